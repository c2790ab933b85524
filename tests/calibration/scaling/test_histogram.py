"""The histogram of logits: exact sums in any order, of any number of voxels, and close to the voxels it stands for."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import nll
from medmtl.calibration.scaling.histogram import BINS, HIGH, LOW, WIDTH, LogitHistogram, logit_histogram, to_logits
from medmtl.errors import DataError


def volume(voxels: int = 100_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(voxels, generator=generator) - 4
    return torch.sigmoid(logits), torch.rand(voxels, generator=generator) < torch.sigmoid(logits / 2)


def same(one: LogitHistogram, other: LogitHistogram) -> bool:
    return torch.equal(one.count, other.count) and torch.equal(one.total, other.total) and one.cases == other.cases


def test_it_counts_every_voxel_of_the_region_by_label_and_bin() -> None:
    probability, label = volume()
    region = torch.arange(len(label)) % 3 > 0
    found = logit_histogram(probability, label, region)
    logits = to_logits(probability[region]).numpy()
    edges = np.linspace(LOW, HIGH, BINS + 1)
    for value in (0, 1):
        expected, _ = np.histogram(logits[label[region].numpy() == value], edges)
        # Rounding to 2^-20 may move a logit over the edge of its bin.
        assert np.abs(found.count[value].numpy() - expected).sum() <= 2 * len(logits) * 2**-20 / WIDTH + 4
        assert found.count[value].sum() == expected.sum()
    assert float(found.total.sum()) == pytest.approx(logits.sum(), abs=1e-6 * len(logits))
    assert (found.count.dtype, found.total.dtype) == (torch.int64, torch.float64)


def test_mean_logits_stand_for_the_voxels_within_the_stated_error() -> None:
    probability, label = volume()
    logits, labels, count = (values.numpy() for values in logit_histogram(probability, label).points())
    exact = to_logits(probability).numpy()
    for temperature in (0.2, 1.0, 3.0):
        of_points = np.average(np.logaddexp(0, (1 - 2 * labels) * logits / temperature), weights=count)
        of_voxels = np.logaddexp(0, (1 - 2 * label.double().numpy()) * exact / temperature).mean()
        assert abs(of_points - of_voxels) <= 3.8e-6 / temperature**2 + 1e-6 / temperature


def test_the_nll_of_probabilities_that_float32_tells_apart_is_the_reported_one() -> None:
    probability, label = volume()
    probability = probability.clamp(max=1 - 1e-6)
    logits, labels, count = (values.numpy() for values in logit_histogram(probability, label).points())
    found = float(np.average(np.logaddexp(0, (1 - 2 * labels) * logits), weights=count))
    assert found == pytest.approx(nll(bin_volume(probability, label)), abs=1e-5)


def test_pooling_is_exact_in_every_order() -> None:
    volumes = [volume(20_000, seed) for seed in range(5)]
    parts = [logit_histogram(*each) for each in volumes]
    forth = sum(parts, LogitHistogram.empty())
    back = sum(reversed(parts), LogitHistogram.empty())
    together = logit_histogram(torch.cat([p for p, _ in volumes]), torch.cat([y for _, y in volumes]))
    assert same(forth, back)
    assert torch.equal(forth.count, together.count)
    assert torch.equal(forth.total, together.total)
    assert (forth.cases, together.cases) == (5, 1)


def test_certain_probabilities_have_a_finite_logit() -> None:
    probability = torch.tensor([0.0, 1.0])
    assert to_logits(probability).tolist() == pytest.approx([math.log(1e-12), 25 * math.log(2)])
    found = logit_histogram(probability, torch.tensor([1, 0]))
    assert found.count[1, 0] == found.count[0, -1] == 1


def test_a_volume_without_voxels_is_no_case() -> None:
    found = logit_histogram(torch.rand(5), torch.ones(5), torch.zeros(5, dtype=torch.bool))
    assert (found.cases, found.voxels) == (0, 0)
    assert [len(values) for values in found.points()] == [0, 0, 0]


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match=r"1\.5 is not in"):
        logit_histogram(torch.tensor([0.5, 1.5]), torch.tensor([0, 1]))
