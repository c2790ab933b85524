"""Resampled calibration against pooling the bins of the drawn cases one resample at a time."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from medmtl.bootstrap import RESAMPLES, CaseDraws, Resamples
from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.calibration.metrics.definitions import summarise
from medmtl.calibration.metrics.intervals import (
    INTERVAL_METRICS,
    frequency_band,
    resampled_metrics,
)

PATIENTS = ["ann", "bob", "ann", "cid", "dan", "eve", "eve", "eve"]


def make_tables(seed: int, cases: int = len(PATIENTS)) -> list[BinTable]:
    generator = torch.Generator().manual_seed(seed)
    tables = []
    for case in range(cases):
        voxels = 20 + 30 * case
        p = torch.rand(voxels, generator=generator, dtype=torch.float64) ** (1 + case % 3)
        tables.append(bin_volume(p, torch.rand(voxels, generator=generator) < p ** (0.5 + case / 4), bins=7))
    return tables


def pooled(tables: Sequence[BinTable], times: Sequence[float]) -> BinTable:
    """The tables, each as often as it was drawn."""
    drawn = [table for table, count in zip(tables, times, strict=True) for _ in range(int(count))]
    return sum(drawn[1:], drawn[0])


def test_metrics_of_all_resamples_are_those_of_the_drawn_cases_pooled_one_by_one() -> None:
    tables = make_tables(0)
    draws = CaseDraws.of({"Liver": PATIENTS})
    assert draws is not None
    weights = draws.weights["Liver"]
    assert weights.shape == (RESAMPLES, len(PATIENTS))
    found = resampled_metrics(tables, weights)
    assert tuple(found) == INTERVAL_METRICS
    for row in range(0, RESAMPLES, 20):
        expected = summarise(pooled(tables, weights[row]))
        assert {name: values[row] for name, values in found.items()} == pytest.approx(
            {name: expected[name] for name in INTERVAL_METRICS}, rel=1e-12
        )


def test_bins_that_no_drawn_case_fills_do_not_count_in_the_mean_over_bins() -> None:
    low = bin_volume(torch.tensor([0.1, 0.1]), torch.tensor([0, 1]), bins=4)
    high = bin_volume(torch.tensor([0.9]), torch.tensor([1]), bins=4)
    found = resampled_metrics([low, high], np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert found["ace"][:2] == pytest.approx([0.4, (0.4 + 0.1) / 2])
    assert all(np.isnan(values[2]) for values in found.values())


def test_all_cases_of_a_patient_are_drawn_together_in_every_task() -> None:
    draws = CaseDraws.of({"Liver": PATIENTS, "Heart": ["eve", "bob", "zoe"]})
    assert draws is not None
    liver, heart = draws.weights["Liver"], draws.weights["Heart"]
    np.testing.assert_array_equal(liver[:, 0], liver[:, 2])
    np.testing.assert_array_equal(liver[:, 5], heart[:, 0])
    np.testing.assert_array_equal(liver[:, 1], heart[:, 1])
    people = liver[:, [0, 1, 3, 4, 5]].sum(axis=1) + heart[:, 2]
    assert (people == 6).all()
    assert draws.of_patients.freedom == 5


def test_a_task_of_one_patient_cannot_be_resampled() -> None:
    assert CaseDraws.of({"Liver": PATIENTS, "Heart": ["eve", "eve"]}) is None
    assert CaseDraws.of({}) is None


def test_the_band_is_the_interval_of_the_frequency_of_drawn_patients() -> None:
    tables = make_tables(1)
    names = sorted(set(PATIENTS))
    resamples = Resamples.of(np.ones((len(names), 1)), RESAMPLES)
    assert resamples is not None
    frequency = np.empty((RESAMPLES, 7))
    for row, drawn in enumerate(resamples.drawn):
        table = pooled(tables, [drawn[names.index(patient)] for patient in PATIENTS])
        frequency[row] = table.positives.double() / table.count
    band = frequency_band(tables, PATIENTS)
    np.testing.assert_allclose(band.ends, resamples.interval(frequency), rtol=1e-12)
    assert (band.patients, band.reliable) == (5, False)
    curve = pooled(tables, [1] * 8)
    observed = (curve.positives.double() / curve.count).numpy()
    assert ((band.ends[0] <= observed) & (observed <= band.ends[1])).all()


def test_there_is_no_band_where_one_patient_alone_has_voxels() -> None:
    both = bin_volume(torch.tensor([0.1, 0.6]), torch.tensor([0, 1]), bins=4)
    one = bin_volume(torch.tensor([0.1]), torch.tensor([0]), bins=4)
    ends = frequency_band([both, both, one], ["ann", "ann", "bob"]).ends
    assert np.isfinite(ends[:, 0]).all()
    assert np.isnan(ends[:, 1:]).all()
    alone = frequency_band([both, one], ["ann", "ann"])
    assert np.isnan(alone.ends).all()
    assert (alone.patients, alone.reliable) == (1, False)
