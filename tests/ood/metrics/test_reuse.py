"""The simulation of what it costs to choose a checkpoint and to set threshold and temperature on the same patients."""

import pytest
from benchmarks.reuse import calibration_errors, false_alarms


def test_without_a_choice_false_alarms_are_those_of_the_conformal_rule() -> None:
    # The threshold is the highest of 20 scores, which a new patient exceeds with a probability of 1 in 21.
    cost = false_alarms(0.5, 1.0, patients=20, checkpoints=1, repetitions=4000)
    assert cost.reused == pytest.approx(1 / 21, abs=0.003)
    assert cost.apart == pytest.approx(1 / 21, abs=0.003)
    assert false_alarms(0.5, 1.0, patients=18, checkpoints=1, repetitions=2).apart == 0  # too few to reject anybody


def test_a_choice_by_the_same_patients_costs_false_alarms_the_more_the_less_checkpoints_agree() -> None:
    alike, differing = (false_alarms(correlation, 1.0, 20, 10, 2000) for correlation in (0.9, 0.5))
    assert alike.reused - alike.apart > 4 * alike.error
    assert differing.reused > alike.reused + 4 * alike.error
    assert differing.apart == pytest.approx(1 / 21, abs=0.004)
    unrelated = false_alarms(0.5, 0.0, 20, 10, 2000)
    assert abs(unrelated.reused - unrelated.apart) < 4 * unrelated.error


def test_the_patients_who_set_a_temperature_are_better_calibrated_than_new_ones() -> None:
    costs = calibration_errors(0.5, patients=5, checkpoints=3, repetitions=100)
    assert costs["the patients who set it"].apart < costs["new patients"].apart
