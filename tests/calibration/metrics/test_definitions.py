"""Calibration metrics against their definitions, and by hand; other libraries are in `test_conformance.py`."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from medmtl.calibration.metrics.bins import bin_volume, edges, fine_edges
from medmtl.calibration.metrics.definitions import (
    ALL_METRICS,
    METRICS,
    ace,
    adaptive_ece,
    adaptive_error,
    brier,
    ece,
    gap,
    mce,
    nll,
    reliability,
    resolution,
    summarise,
    uncertainty,
    within_bins,
)


def skewed(voxels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Most probabilities near 0, some at 0 or close to 1, none at 1; overconfident."""
    generator = torch.Generator().manual_seed(seed)
    logit = 4 * torch.randn(voxels, generator=generator) - 5
    probability = torch.sigmoid(2 * logit).clamp(max=1 - 1e-6)
    probability[::7] = 0
    return probability, torch.rand(voxels, generator=generator) < torch.sigmoid(logit)


def brute_force(probability: Tensor, label: Tensor, bins: int) -> dict[str, float]:
    """The definitions, bin by bin and in float64."""
    p, y = probability.double().numpy(), label.numpy().astype(float)
    edge = edges(bins).numpy()
    members = [(p >= edge[m]) & ((p < edge[m + 1]) | (m == bins - 1)) for m in range(bins)]
    members = [member for member in members if member.any()]
    n, mean, share = (
        np.array([f(member) for member in members])
        for f in (np.sum, lambda member: p[member].mean(), lambda member: y[member].mean())
    )
    gaps, weight = np.abs(share - mean), n / len(p)
    within = sum(
        ((p[member] - p[member].mean()) ** 2).sum() - 2 * ((p[member] - p[member].mean()) * y[member]).sum()
        for member in members
    )
    return {
        "ece": (weight * gaps).sum(),
        "ace": gaps.mean(),
        "mce": gaps.max(),
        "brier": np.mean((p - y) ** 2),
        "nll": -np.mean(np.log(np.maximum(np.where(y == 1, p, 1 - p), 1e-12))),
        "gap": (weight * (mean - share)).sum(),
        "volume_ratio": p.sum() / y.sum(),
        "rmsce": np.sqrt((weight * gaps**2).sum()),
        "reliability": (weight * gaps**2).sum(),
        "resolution": (weight * (share - y.mean()) ** 2).sum(),
        "uncertainty": y.mean() * (1 - y.mean()),
        "within_bins": within / len(p),
    }


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_metrics_equal_the_definition(bins: int) -> None:
    probability, label = skewed(50_000)
    found = summarise(bin_volume(probability, label, bins=bins), ALL_METRICS)
    assert found == pytest.approx(brute_force(probability, label, bins), abs=1e-7)


def test_a_probability_of_1_belongs_to_the_last_bin_unlike_in_torchmetrics() -> None:
    # torchmetrics#3510: mean label 1/2, mean probability .975 in one bin; torchmetrics makes two of it and gives .525.
    probability, label = torch.tensor([0.95, 1.0]), torch.tensor([1, 0])
    assert ece(bin_volume(probability, label, bins=10)) == pytest.approx(0.475, abs=1e-7)
    assert float(binary_calibration_error(probability, label, n_bins=10)) == pytest.approx(0.525, abs=1e-6)


def test_ace_passes_over_bins_without_voxels() -> None:
    # Two of ten bins hold voxels, with gaps of .05 and .45.
    table = bin_volume(torch.tensor([0.05, 0.05, 0.05, 0.95, 0.95]), torch.tensor([0, 0, 0, 1, 0]), bins=10)
    assert ace(table) == pytest.approx((0.05 + 0.45) / 2, abs=1e-7)
    assert mce(table) == pytest.approx(0.45, abs=1e-7)
    assert ece(table) == pytest.approx((3 * 0.05 + 2 * 0.45) / 5, abs=1e-7)


def test_brier_and_nll_of_a_few_voxels_by_hand() -> None:
    table = bin_volume(torch.tensor([0.5, 0.25], dtype=torch.float64), torch.tensor([1, 0]))
    assert brier(table) == pytest.approx((0.25 + 0.0625) / 2, abs=1e-15)
    assert nll(table) == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2, abs=1e-15)


def test_nll_of_a_certain_error_is_finite() -> None:
    table = bin_volume(torch.tensor([0.0, 1.0, 1e-30]), torch.tensor([1, 0, 1]))
    assert nll(table) == pytest.approx(-math.log(1e-12), rel=1e-12)


def test_nll_tells_small_probabilities_apart() -> None:
    small = torch.logspace(-11, -1, 50, dtype=torch.float64)
    table = bin_volume(torch.cat([small, small]), torch.arange(100) < 50)
    assert nll(table) == pytest.approx(float(-(small.log() + torch.log1p(-small)).mean() / 2), rel=1e-13)


def test_perfect_predictions_have_no_error() -> None:
    label = torch.arange(1000) % 10 == 0
    assert summarise(bin_volume(label.float(), label)) == {**dict.fromkeys(METRICS, 0.0), "volume_ratio": 1.0}


def test_calibrated_predictions_have_no_gap_but_a_brier_score() -> None:
    table = bin_volume(torch.full((1000,), 0.25), torch.arange(1000) % 4 == 0)
    assert [ece(table), ace(table), mce(table)] == [0, 0, 0]
    assert brier(table) == pytest.approx(0.25 * 0.75)


def test_a_table_without_voxels_has_no_metric() -> None:
    table = bin_volume(torch.rand(5), torch.ones(5), torch.zeros(5, dtype=torch.bool))
    assert all(math.isnan(value) for value in summarise(table, ALL_METRICS).values())


def test_metrics_come_in_a_fixed_order_as_plain_numbers() -> None:
    summary = summarise(bin_volume(*skewed(100)))
    assert list(summary) == list(METRICS) == ["ece", "ace", "mce", "brier", "nll", "gap", "volume_ratio"]
    assert list(ALL_METRICS)[: len(METRICS)] == list(METRICS)
    assert {type(value) for value in summary.values()} == {float}


def test_the_gap_is_above_0_where_foreground_is_overrated() -> None:
    overrated = bin_volume(torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([1, 0, 0, 0]))
    assert gap(overrated) == pytest.approx(0.25, abs=1e-7)
    underrated = bin_volume(torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([1, 1, 1, 0]))
    assert gap(underrated) == pytest.approx(-0.25, abs=1e-7)


def test_parts_of_the_brier_score_of_a_few_voxels_by_hand() -> None:
    # Ten voxels at .2 of which three are foreground, ten at .8 of which nine are: a = .6.
    p = torch.tensor([0.2, 0.8], dtype=torch.float64).repeat_interleave(10)
    y = torch.cat([torch.arange(10) < 3, torch.arange(10) < 9])
    table = bin_volume(p, y, bins=10)
    assert reliability(table) == pytest.approx(0.01)
    assert resolution(table) == pytest.approx(0.09)
    assert uncertainty(table) == pytest.approx(0.24)
    assert within_bins(table) == pytest.approx(0, abs=1e-15)
    assert brier(table) == pytest.approx(0.01 - 0.09 + 0.24)


def sorted_groups(p: np.ndarray, y: np.ndarray, groups: int) -> float:
    """Adaptive ECE of sorted voxels, groups of equal size."""
    order = np.argsort(p, kind="stable")
    parts = zip(np.split(p[order], groups), np.split(y[order], groups), strict=True)
    return sum(abs(y.mean() - p.mean()) for p, y in parts) / groups


def certain(voxels: int) -> tuple[Tensor, Tensor]:
    """Nearly all probabilities next to 0 or 1."""
    logit = 9 * torch.randn(voxels, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 4
    return torch.sigmoid(logit), torch.rand(voxels, generator=torch.Generator().manual_seed(1)) < torch.sigmoid(
        logit / 2
    )


def rounded(voxels: int) -> tuple[Tensor, Tensor]:
    """Few different probabilities, so that many voxels tie."""
    probability, label = skewed(voxels)
    return (20 * probability).round() / 20, label


@pytest.mark.parametrize("make", [skewed, certain, rounded])
@pytest.mark.parametrize(("groups", "bins"), [(1, 64), (15, 64), (15, 4096)])
def test_adaptive_ece_is_that_of_sorted_voxels_within_its_bound(make: Any, groups: int, bins: int) -> None:
    probability, label = make(45_000)
    fine = fine_edges(bins)
    table = bin_volume(probability, label, bins=fine)
    bound = adaptive_error(table, fine, groups)
    for order in (torch.arange(45_000), torch.argsort(label.int(), stable=True), torch.argsort(label.int()).flip(0)):
        exact = sorted_groups(probability[order].double().numpy(), label[order].numpy().astype(float), groups)
        assert abs(adaptive_ece(table, groups) - exact) <= bound + 1e-12
    assert groups > 1 or bound == 0


@pytest.mark.parametrize("make", [skewed, certain])
def test_adaptive_ece_is_close_to_that_of_sorted_voxels(make: Any) -> None:
    probability, label = make(45_000)
    exact = sorted_groups(probability.double().numpy(), label.numpy().astype(float), 15)
    assert adaptive_ece(bin_volume(probability, label, bins=fine_edges())) == pytest.approx(exact, rel=0.01)
    assert exact > 0.01


def test_adaptive_ece_is_bounded_even_where_labels_are_most_adverse() -> None:
    # All voxels in one bin, half of them foreground: sorted with these first, two groups have gaps of about 1/2 each.
    fine = torch.tensor([0, 0.49, 0.51, 1], dtype=torch.float64)
    label = torch.arange(1000) < 500
    table = bin_volume(torch.linspace(0.495, 0.505, 1000), label, bins=fine)
    exact = sorted_groups(np.linspace(0.495, 0.505, 1000), label.numpy().astype(float), 2)
    difference = abs(adaptive_ece(table, 2) - exact)
    assert 0.49 < difference <= adaptive_error(table, fine, 2) == pytest.approx(0.51, abs=1e-3)


def test_without_voxels_there_is_no_adaptive_ece() -> None:
    table = bin_volume(torch.zeros(0), torch.zeros(0), bins=fine_edges())
    assert math.isnan(adaptive_ece(table))
    assert math.isnan(adaptive_error(table, fine_edges()))


def test_the_ratio_of_volumes_is_that_of_sums_over_voxels_and_undefined_without_foreground() -> None:
    draw = np.random.default_rng(0)
    p, y = draw.random(5000), draw.random(5000) < 0.3
    tables = [bin_volume(torch.from_numpy(p), torch.from_numpy(y), bins=bins) for bins in (1, 7)]
    assert [METRICS["volume_ratio"](table) for table in tables] == pytest.approx([p.sum() / y.sum()] * 2)
    nothing = bin_volume(torch.from_numpy(p), torch.zeros(5000))
    assert np.isnan(METRICS["volume_ratio"](nothing))
    assert METRICS["volume_ratio"].higher_is_better is None
