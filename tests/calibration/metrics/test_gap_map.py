"""The local gap on a plane against smoothing the whole volume."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medmtl.calibration.metrics.gap_map import SIGMA_MM, local_gap

SPACING = (1.0, 2.0, 5.0)


@pytest.fixture
def volume():
    generator = np.random.default_rng(0)
    shape = (30, 22, 12)
    probability = generator.uniform(size=shape).astype(np.float32)
    label = generator.uniform(size=shape) < probability**2
    region = np.zeros(shape, dtype=bool)
    region[4:25, 3:18, 2:10] = generator.uniform(size=(21, 15, 8)) < 0.8
    return probability, label, region


@pytest.mark.parametrize(
    ("axis", "index", "spacing"), [(0, 14, SPACING), (1, 3, (0.7, 0.7, 1.5)), (2, 9, SPACING), (2, 9, (8.0, 8.0, 8.0))]
)
def test_a_plane_is_that_of_the_whole_volume_smoothed(volume, axis, index, spacing):
    probability, label, region = volume
    sigma = [max(SIGMA_MM / step, 1) for step in spacing]
    inside = region.astype(np.float64)
    excess, mass = (
        gaussian_filter(values, sigma, mode="constant")
        for values in (inside * (probability - label.astype(np.float64)), inside)
    )
    expected = np.where(region, excess / np.where(mass > 0, mass, 1), np.nan).take(index, axis)
    found = local_gap(probability, label, region, spacing, axis, index)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.isfinite(found).sum() == region.take(index, axis).sum() > 20


def test_a_constant_error_is_that_error_up_to_the_edge_of_the_region(volume):
    _, _, region = volume
    label = np.zeros(region.shape, dtype=bool)
    for rate in (0.3, 1.0):
        found = local_gap(np.full(region.shape, rate), label, region, SPACING, 2, 5)
        np.testing.assert_allclose(found[region[:, :, 5]], rate, rtol=1e-6)
    underrated = local_gap(np.zeros(region.shape), ~label, region, SPACING, 2, 5)
    np.testing.assert_allclose(underrated[region[:, :, 5]], -1, rtol=1e-6)


def test_what_lies_outside_the_region_changes_nothing(volume):
    probability, label, region = volume
    before = local_gap(probability, label, region, SPACING, 1, 9)
    after = local_gap(np.where(region, probability, 1), label & region, region, SPACING, 1, 9)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("index", [0, 11])
def test_a_plane_beside_the_region_is_empty(volume, index):
    probability, label, region = volume
    for chosen in (region, np.zeros_like(region)):
        assert np.isnan(local_gap(probability, label, chosen, SPACING, 2, index)).all()
