"""False alarms by patient against the binomial distribution, and the share of images that they are not."""

import numpy as np
import pytest
from scipy.stats import binom

from medmtl.ood.metrics.false_alarms import FlaggedPeople, flagged_by_task, flagged_people


def test_a_patient_is_one_alarm_however_many_images_are_flagged() -> None:
    patients = ["ann", "ann", "bob", "cid", "cid", "cid"]
    found = flagged_people([True, True, False, False, True, None], patients)
    assert (found.people, found.people_flagged, found.rate) == (3, 2, pytest.approx(2 / 3))
    undecided = flagged_people([None, False], ["ann", "bob"])
    assert (undecided.people, undecided.people_flagged) == (1, 0)
    assert flagged_people([None], ["ann"]) == flagged_people([], []) == FlaggedPeople(0, 0, None, None, None)


@pytest.mark.parametrize(("flagged", "people"), [(0, 21), (1, 21), (5, 9), (9, 9)])
def test_ends_are_the_rates_at_which_so_many_flagged_are_just_too_few_or_too_many(flagged: int, people: int) -> None:
    found = flagged_people([number < flagged for number in range(people)], [f"p{number}" for number in range(people)])
    assert found.low <= found.rate <= found.high
    assert binom.cdf(flagged, people, found.high) == pytest.approx(0.025 if flagged < people else 1)
    assert binom.sf(flagged - 1, people, found.low) == pytest.approx(0.025 if flagged else 1)


def test_none_of_21_people_means_at_most_16_percent() -> None:
    assert flagged_people([False] * 21, [str(number) for number in range(21)]).high == pytest.approx(0.161, abs=5e-4)


def test_a_patient_of_several_tasks_is_one_of_each_and_one_in_all() -> None:
    tasks, patients = ["CT", "MR", "CT", "PET"], ["ann", "ann", "bob", "bob"]
    rejected = [True, False, False, False]
    found = flagged_by_task(rejected, patients, tasks)
    assert {task: (row.people_flagged, row.people) for task, row in found.items()} == {
        "CT": (1, 2),
        "MR": (0, 1),
        "PET": (0, 1),
    }
    overall = flagged_people(rejected, patients)
    assert (overall.people_flagged, overall.people) == (1, 2)


def test_the_rate_follows_the_test_images() -> None:
    rng = np.random.default_rng(0)
    threshold = rng.normal(size=29).max()  # the rule of 29 held-out patients at a level of .05
    names = [f"p{number}" for number in range(400)]
    rates = [flagged_people((rng.normal(shift, 1, 400) > threshold).tolist(), names).rate for shift in (0, 1, 3, 10)]
    assert rates == sorted(rates)
    assert rates[0] < 0.1 < rates[1]
    assert rates[-1] == 1
