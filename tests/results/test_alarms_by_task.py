"""False alarms of one task: a pooled threshold does not bound them. Report and rule say what it bounds."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from case_sample import report_of

from medmtl.ood.conformal import ConformalRule
from medmtl.results.case import CaseResult

ALPHA = 0.05
HIGHER = {"CT": 0.0, "MR": 1.0}  # scores of MR are a deviation higher
TESTED = {"CT": 600, "MR": 100}


def held_out(rng: np.random.Generator, people: Mapping[str, int]) -> dict[str, list[float]]:
    return {task: rng.normal(HIGHER[task], 1, count).tolist() for task, count in people.items()}


def verdict_of(rule: ConformalRule, make_case: Callable[..., CaseResult]) -> dict[str, Any]:
    """The OOD part of the report on new people of the tasks, one image each, told as of their task."""
    rng, cases = np.random.default_rng(1), []
    for task, people in TESTED.items():
        scores = rng.normal(HIGHER[task], 1, people)
        cases += [
            make_case(f"{task}{number}", task, patient=f"{task}{number}", rejected=rule.rejects(score, [task]))
            for number, score in enumerate(scores)
        ]
    found: dict[str, Any] = report_of(cases, alpha=ALPHA, promise=rule.stated)["ood"]
    return found


def test_the_report_shows_that_a_pooled_threshold_does_not_bound_a_task(make_case: Callable[..., CaseResult]) -> None:
    rule = ConformalRule(held_out(np.random.default_rng(0), {"CT": 108, "MR": 18}), ALPHA)
    found = verdict_of(rule, make_case)
    assert found["verdict"]["promise"] == "the mix of tasks, exactly"
    together, alone = found["false_alarms"], found["datasets"]["MR"]
    assert together["low"] < ALPHA < together["high"]
    assert (alone["people"], alone["low"] > ALPHA) == (100, True)
    assert found["datasets"]["CT"]["high"] < ALPHA


def test_the_report_says_of_which_images_the_rule_bounds_the_share(make_case: Callable[..., CaseResult]) -> None:
    scores = held_out(np.random.default_rng(0), {"CT": 99, "MR": 99})
    stated = [
        verdict_of(ConformalRule(scores, ALPHA, reused=reused), make_case)["verdict"]["promise"]
        for reused in (False, True)
    ]
    assert stated == [
        "each task, exactly",
        "each task, approximately (the held-out patients chose the checkpoint, too)",
    ]


@pytest.mark.parametrize(
    ("people", "promise"), [({"CT": 36, "MR": 6}, "the mix of tasks"), ({"CT": 36, "MR": 19}, "each task")]
)
def test_a_rule_keeps_the_promise_that_it_names_and_not_the_other(people: dict[str, int], promise: str) -> None:
    """Over draws of held-out people and of new ones, whose task is told."""
    rng, draws = np.random.default_rng(2), 1500
    alarms = dict.fromkeys(people, 0)
    for _ in range(draws):
        rule = ConformalRule(held_out(rng, people), ALPHA)
        assert rule.promise == promise
        for task in people:
            alarms[task] += bool(rule.rejects(rng.normal(HIGHER[task]), [task]))
    rates = {task: count / draws for task, count in alarms.items()}
    error = (ALPHA * (1 - ALPHA) / draws) ** 0.5
    mix = sum(people[task] * rate for task, rate in rates.items()) / sum(people.values())
    assert mix <= ALPHA + 3 * error
    if promise == "each task":
        assert max(rates.values()) <= ALPHA + 3 * error
    else:
        assert rates["MR"] > ALPHA + 3 * error
