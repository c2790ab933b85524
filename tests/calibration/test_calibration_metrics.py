"""Calibration metrics against the definition, torchmetrics and MONAI, where these can be trusted: on few voxels."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from medmtl.calibration.bins import bin_volume, edges
from medmtl.calibration.metrics import METRICS, ace, brier, ece, mce, nll, summarise


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
    gaps = [abs(y[member].mean() - p[member].mean()) for member in members]
    return {
        "ece": sum(gap * member.sum() / len(p) for gap, member in zip(gaps, members, strict=True)),
        "ace": sum(gaps) / len(gaps),
        "mce": max(gaps),
        "brier": np.mean((p - y) ** 2),
        "nll": -np.mean(np.log(np.maximum(np.where(y == 1, p, 1 - p), 1e-12))),
    }


@pytest.mark.parametrize("bins", [1, 10, 15, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_equal_the_definition(bins: int, seed: int) -> None:
    probability, label = skewed(50_000, seed)
    assert summarise(bin_volume(probability, label, bins=bins)) == pytest.approx(
        brute_force(probability, label, bins), abs=1e-7
    )


@pytest.mark.parametrize("bins", [10, 15, 20])
def test_ece_and_mce_equal_torchmetrics_below_a_probability_of_1(bins: int) -> None:
    # torchmetrics gives p = 1 a bin of its own; all other bins have the same edges, closed below.
    probability, label = skewed(100_000)
    table = bin_volume(probability, label, bins=bins)
    for metric, norm in ((ece, "l1"), (mce, "max")):
        expected = float(binary_calibration_error(probability, label.long(), n_bins=bins, norm=norm))
        assert metric(table) == pytest.approx(expected, abs=5e-5)
        assert expected > 0.005


def test_a_probability_of_1_belongs_to_the_last_bin_unlike_in_torchmetrics() -> None:
    # torchmetrics#3510: mean label 1/2, mean probability .975 in one bin; torchmetrics makes two of it and gives .525.
    probability, label = torch.tensor([0.95, 1.0]), torch.tensor([1, 0])
    assert ece(bin_volume(probability, label, bins=10)) == pytest.approx(0.475, abs=1e-7)


@pytest.mark.parametrize("bins", [10, 15, 20])
@pytest.mark.parametrize(("metric", "reduction"), [(ece, "expected"), (ace, "average"), (mce, "maximum")])
def test_ece_ace_and_mce_equal_monai(bins: int, metric: type, reduction: str) -> None:
    probability, label = skewed(100_000)
    probability[::11] = 1
    monai = CalibrationErrorMetric(num_bins=bins, calibration_reduction=reduction)
    monai(probability.view(1, 1, 100, 1000), label.view(1, 1, 100, 1000))
    expected = float(monai.aggregate())
    assert metric(bin_volume(probability, label, bins=bins)) == pytest.approx(expected, abs=5e-5)
    assert expected > 0.005


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
    assert summarise(bin_volume(label.float(), label)) == dict.fromkeys(METRICS, 0.0)


def test_calibrated_predictions_have_no_gap_but_a_brier_score() -> None:
    table = bin_volume(torch.full((1000,), 0.25), torch.arange(1000) % 4 == 0)
    assert [ece(table), ace(table), mce(table)] == [0, 0, 0]
    assert brier(table) == pytest.approx(0.25 * 0.75)


def test_a_table_without_voxels_has_no_metric() -> None:
    table = bin_volume(torch.rand(5), torch.ones(5), torch.zeros(5, dtype=torch.bool))
    assert all(math.isnan(value) for value in summarise(table).values())


def test_metrics_come_in_a_fixed_order_as_plain_numbers() -> None:
    summary = summarise(bin_volume(*skewed(100)))
    assert list(summary) == list(METRICS) == ["ece", "ace", "mce", "brier", "nll"]
    assert {type(value) for value in summary.values()} == {float}
