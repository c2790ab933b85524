import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from medmtl.calibration.metrics.gap_map import local_gap
from medmtl.calibration.metrics.regions import band
from medmtl.report.slices import CaseSlices
from medmtl.report.style import to_png
from medmtl.report.test.maps import LIMIT_POINTS, calibration_map

SPACING = (2.0, 2.0, 3.0)


@pytest.fixture
def volume():
    """An organ that is too probable on its left and too improbable on its right."""
    image = np.random.default_rng(0).normal(size=(24, 20, 16)).astype(np.float32)
    label = np.zeros(image.shape, dtype=bool)
    label[8:16, 6:14, 5:11] = True
    probability = np.where(label, 0.6, 0.0).astype(np.float32)
    probability[:12][~label[:12]] = 0.7
    return image, label, probability


def overlays(figure):
    return {axes.get_xlabel(): axes.images[1] for axes in figure.axes[:3]}


def test_each_plane_holds_the_gap_of_the_band_in_the_whole_volume(volume):
    image, label, probability = volume
    slices = CaseSlices.cut(image, label, probability, SPACING)
    region = band(torch.from_numpy(label), SPACING).numpy()
    for name, axis, index in (("axial", 2, 8), ("coronal", 1, 10), ("sagittal", 0, 12)):
        expected = local_gap(probability, label, region, SPACING, axis, index)
        np.testing.assert_array_equal(slices.planes[name].gap, expected)
        assert slices.planes[name].gap.shape == slices.planes[name].image.shape


def test_a_map_shows_points_within_the_band_alone_on_one_scale_for_all_cases(volume):
    slices = CaseSlices.cut(*volume, SPACING)
    for name, overlay in overlays(calibration_map(slices, "case")).items():
        shown = np.ma.filled(overlay.get_array(), np.nan)
        np.testing.assert_allclose(shown, 100 * slices.planes[name].gap.T, rtol=1e-6)
        assert np.isnan(shown).any()
        assert overlay.get_clim() == (-LIMIT_POINTS, LIMIT_POINTS)


def test_too_high_a_probability_is_orange_and_too_low_a_one_is_purple(volume):
    figure = calibration_map(CaseSlices.cut(*volume, SPACING), "case")
    axial = overlays(figure)["axial"]
    left, right = (np.nanmean(axial.get_array()[:, half]) for half in (slice(0, 9), slice(13, 24)))
    assert left > 10 > -10 > right
    red, _, blue = to_rgb(axial.cmap(axial.norm(left)))
    assert red > blue
    red, _, blue = to_rgb(axial.cmap(axial.norm(right)))
    assert blue > red
    assert to_rgb(axial.cmap(axial.norm(0.0))) == pytest.approx((0.97, 0.97, 0.97), abs=0.02)
    words = [text.get_text() for text in figure.texts]
    assert words[1:] == ["too low", "too high"]
    assert "percentage points" in figure.axes[3].get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["truth", "prediction", "20 mm"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 3, 2), (2, 2, 200)])
def test_volumes_of_any_shape_are_mapped(shape):
    image = np.zeros(shape, dtype=np.float32)
    for label in (np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)):
        figure = calibration_map(CaseSlices.cut(image, label, image, SPACING), "a title longer than the figure " * 4)
        assert to_png(figure)[1:4] == b"PNG"
