"""Rates of rejection over re-partitions against a plain loop, and the promise of the rule that they show."""

import numpy as np
import pytest

from medmtl.ood.conformal import p_value
from medmtl.ood.metrics.exchangeable import rate_if_exchangeable
from medmtl.ood.metrics.resampling import Interval


def held_out(seed: int, people: int = 44) -> tuple[np.ndarray, list[str], list[str]]:
    """Half of the patients with one image, half with one in each of three tasks, much alike."""
    rng = np.random.default_rng(seed)
    rows = [("Hip", f"h{who}", rng.normal()) for who in range(people // 2)]
    for who in range(people // 2):
        level = rng.normal()
        rows += [(task, f"s{who}", level + rng.normal(0, 0.2)) for task in ("CT", "MR", "PET")]
    tasks, patients, scores = zip(*rows, strict=True)
    return np.array(scores), list(tasks), list(patients)


def test_exchangeable_scores_give_no_more_false_alarms_than_alpha() -> None:
    rates = [rate_if_exchangeable(*held_out(seed), alpha=0.05, partitions=100).rate.value for seed in range(10)]
    # Of 22 calibration patients: 1 / 23 where every patient has one image, and never more than 5 % by expectation.
    assert 0.02 < np.mean(rates) <= 0.05


def test_the_rate_of_scores_without_ties_is_known() -> None:
    rng = np.random.default_rng(0)
    for people, alpha, expected in ((40, 0.05, 1 / 21), (60, 0.1, 3 / 31), (38, 0.05, 1 / 20)):
        scores, names = rng.normal(size=people), [f"p{who}" for who in range(people)]
        found = rate_if_exchangeable(scores, ["A"] * people, names, alpha, partitions=500)
        assert found.decided == 500
        assert found.rate.value == pytest.approx(expected, abs=0.008)
        assert found.rate.low <= found.rate.value <= found.rate.high
        assert found.rate.low < alpha


def test_the_rate_is_that_of_a_plain_loop() -> None:
    scores, tasks, patients = held_out(3)
    names = np.unique(patients)
    generator, rates = np.random.default_rng(0), []
    for _ in range(30):
        calibrating = set(names[generator.permutation(len(names))[:22]])
        inside = [index for index, who in enumerate(patients) if who in calibrating]
        shares = []
        for who in sorted(set(names) - calibrating):
            own = [index for index, patient in enumerate(patients) if patient == who]
            known = scores[inside].tolist(), [patients[index] for index in inside]
            shares.append(np.mean([p_value(scores[index], *known) <= 0.05 for index in own]))
        rates.append(np.mean(shares))
    assert rate_if_exchangeable(scores, tasks, patients, 0.05, partitions=30).rate.value == pytest.approx(
        np.mean(rates)
    )


def test_scores_that_differ_between_tasks_do_not_break_the_promise() -> None:
    scores, tasks, patients = held_out(4, people=60)
    shifted = scores + 3 * (np.array(tasks) == "CT")
    assert 0 < rate_if_exchangeable(shifted, tasks, patients, alpha=0.1).rate.value <= 0.1


def test_too_few_patients_do_not_decide() -> None:
    scores, tasks, patients = held_out(0, people=34)
    found = rate_if_exchangeable(scores, tasks, patients, alpha=0.05)
    assert (found.rate, found.decided) == (Interval(None, None, None), 0)
    assert rate_if_exchangeable([], [], [], alpha=0.05).decided == 0


def test_the_rate_is_the_same_wherever_the_test_images_lie() -> None:
    """It describes the procedure: `medmtl.ood.metrics.false_alarms` measures."""
    rng = np.random.default_rng(1)
    scores, names = rng.normal(size=80), [f"p{who}" for who in range(80)]
    far = scores + 10 * (np.arange(80) >= 40)
    rates = [rate_if_exchangeable(each, ["A"] * 80, names, 0.05).rate.value for each in (scores, far)]
    assert rates == pytest.approx([2 / 41, 2 / 41], abs=0.01)


def test_a_task_of_high_scores_has_more_than_its_share() -> None:
    scores, tasks, patients = held_out(4, people=60)
    found = rate_if_exchangeable(scores + 3 * (np.array(tasks) == "CT"), tasks, patients, alpha=0.1)
    assert list(found.tasks) == ["Hip", "CT", "MR", "PET"]
    assert found.tasks["CT"] > 4 * found.rate.value
    assert max(found.tasks[task] for task in ("Hip", "MR", "PET")) < found.rate.value
    alone = rate_if_exchangeable(scores, ["A"] * len(scores), patients, alpha=0.1)
    assert alone.tasks == {"A": alone.rate.value}
