"""Resamples of patients against draws worked by hand."""

import numpy as np
import pytest
from scipy.stats import norm, t

from medmtl.bootstrap import Resamples


def test_every_resample_draws_as_many_patients_as_there_are_and_each_as_often_as_any_other() -> None:
    found = Resamples.of(np.ones((7, 1)), 4000)
    assert found is not None
    assert (found.drawn.sum(axis=1) == 7).all()
    assert found.freedom == 6
    np.testing.assert_allclose(found.drawn.mean(axis=0), 1, atol=0.05)  # standard error 0.015
    np.testing.assert_allclose(found.drawn.var(axis=0), 6 / 7, atol=0.1)  # of the multinomial


def test_tasks_that_share_patients_are_one_group_and_the_others_keep_their_number() -> None:
    # Patients 0, 2 and 4 are of task A, 2 and 4 of B as well, 1 and 3 of C alone.
    counts = np.array([[1, 0, 0], [0, 0, 2], [3, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=float)
    found = Resamples.of(counts, 500)
    assert found is not None
    assert (found.drawn[:, [0, 2, 4]].sum(axis=1) == 3).all()
    assert (found.drawn[:, [1, 3]].sum(axis=1) == 2).all()
    assert len(np.unique(found.drawn[:, 0])) > 2
    assert found.freedom == 3


def test_the_same_patients_are_drawn_alike_each_time() -> None:
    first, second = Resamples.of(np.ones((5, 1)), 100), Resamples.of(np.full((5, 1), 3.0), 100)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.drawn, second.drawn)


@pytest.mark.parametrize("counts", [np.zeros((0, 1)), [[2]], [[1, 1], [1, 0], [1, 0]]])
def test_a_task_of_a_single_patient_shows_no_spread(counts: list[list[int]]) -> None:
    assert Resamples.of(np.array(counts, dtype=float), 100) is None


@pytest.mark.parametrize(("patients", "reliable"), [(2, False), (5, False), (6, True)])
def test_the_interval_is_the_expanded_percentile_one(patients: int, reliable: bool) -> None:
    found = Resamples.of(np.ones((patients, 1)), 1000)
    assert found is not None
    values = np.random.default_rng(0).normal(size=(1000, 2))
    freedom = patients - 1
    tail = norm.cdf(-np.sqrt(patients / freedom) * t.ppf(0.975, freedom))
    for column, (low, high) in enumerate(found.interval(values).T):
        assert low == pytest.approx(np.quantile(values[:, column], tail))
        assert high == pytest.approx(np.quantile(values[:, column], 1 - tail))
    values[::2, 1] = np.nan
    np.testing.assert_allclose(found.interval(values)[:, 1], found.interval(values[1::2, 1]))
    assert found.reliable == reliable
