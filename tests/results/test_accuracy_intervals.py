"""The interval of mean Dice is that of the comparison of arms, which is computed elsewhere by other code."""

import pytest

from medmtl.experiment.analysis.statistics import estimate_mean
from medmtl.results.accuracy_intervals import accuracy_intervals


def test_the_interval_is_that_of_the_comparison_of_arms(make_case):
    dice = {"Liver": [0.9, 0.8, 0.85, 0.7, 0.95, float("nan")], "Heart": [0.6, 0.5, 0.75, 0.4]}
    cases = {
        task: [make_case(f"{task}{i}", task, dice=value, patient=f"p{i // 2}") for i, value in enumerate(values)]
        for task, values in dice.items()
    }
    found = accuracy_intervals(cases)["dice"]
    flat = [case for own in cases.values() for case in own]
    expected = estimate_mean(
        [case.dice for case in flat], [case.patient for case in flat], [case.dataset for case in flat]
    )
    assert (found["low"], found["high"], found["n"]) == pytest.approx((expected.low, expected.high, expected.n))
    assert not found["reliable"]


def test_one_patient_gives_no_interval_and_no_case_neither(make_case):
    for cases in ([make_case()], [], [make_case(dice=None)]):
        found = accuracy_intervals({"Liver": cases})["dice"]
        assert (found["low"], found["high"], found["reliable"]) == (None, None, False)
    assert accuracy_intervals({})["dice"]["n"] == 0
