"""Histograms and their detector against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from medmtl.ood.detectors.classifier import thumbnail
from medmtl.ood.detectors.intensity import BINS, IntensityHistogram, intensity_histogram
from medmtl.ood.detectors.synthetic import draw_evidence, draw_training


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_histogram_is_the_share_of_voxels_from_the_least_value_to_the_greatest() -> None:
    image = noise(1, 9, 10, 11)
    expected = np.histogram(image.double(), bins=BINS)[0] / image.numel()
    found = intensity_histogram(MetaTensor(image), window=False)
    assert type(found) is torch.Tensor
    np.testing.assert_allclose(found, expected, atol=1.5 / image.numel())
    assert float(found.sum()) == pytest.approx(1)


def test_a_windowed_histogram_covers_the_window_whatever_the_image_holds() -> None:
    found = intensity_histogram(torch.tensor([-1.0, -0.999, 0.001, 1.0, 1.2]), window=True)
    assert found.nonzero().flatten().tolist() == [0, BINS // 2, BINS - 1]
    np.testing.assert_allclose(found[found > 0], [0.4, 0.2, 0.4])


def test_scale_and_offset_count_only_within_a_window() -> None:
    image = 0.2 * noise(5000).clamp(-3, 3)
    moved = 0.5 * image + 0.25  # exact in floating point but for rounding of the edges
    same = intensity_histogram(image, window=False) - intensity_histogram(moved, window=False)
    assert float(same.abs().sum()) < 0.01
    other = intensity_histogram(image, window=True) - intensity_histogram(moved, window=True)
    assert float(other.abs().sum()) > 0.5


@pytest.mark.parametrize("window", [False, True])
def test_a_constant_image_has_a_histogram(window: bool) -> None:
    assert float(intensity_histogram(torch.zeros(1, 4, 4, 4), window).sum()) == pytest.approx(1)


def test_nearest_is_the_distance_after_pca() -> None:
    training = draw_training(patients=6)
    detector = IntensityHistogram()
    detector.fit(training)
    histograms = np.stack([case.view.histogram.numpy() for case in training])
    found = PCA(0.9999, svd_solver="full").fit(histograms)
    query = draw_evidence("LiverCT", 60, noise=0.3)
    expected = cdist(found.transform(query.view.histogram.numpy()[None]), found.transform(histograms)).min()
    assert detector.score(query) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 64, 64, 64), (64, 32, 96), (1, 20, 33, 70)])
def test_a_thumbnail_is_a_small_image_between_0_and_1(shape: tuple[int, ...]) -> None:
    found = thumbnail(MetaTensor(noise(*shape) * 100 + 7) if len(shape) == 4 else noise(*shape))
    assert type(found) is torch.Tensor
    assert found.shape == (32, 32, 32)
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) < float(found.max()) <= 1


def test_a_thumbnail_averages_blocks_and_does_not_see_outliers() -> None:
    image = torch.zeros(64, 64, 64)
    image[:32] = 1
    image[0, 0, 0] = 1e6
    found = thumbnail(image)
    assert torch.equal(found, torch.cat([torch.ones(16, 32, 32), torch.zeros(16, 32, 32)]))
    assert torch.equal(thumbnail(torch.full((40, 40, 40), 3.0)), torch.zeros(32, 32, 32))
