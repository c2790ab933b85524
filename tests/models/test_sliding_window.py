"""Whole volumes: the same as MONAI's sliding windows, with each voxel counted once in the feature statistics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from torch import nn

from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.evidence.features import FeatureTap
from medmtl.ood.evidence.window_weights import WindowWeights

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
# Image and window: an image smaller than a window or as large; a little larger on one axis, or of many windows.
ONE_WINDOW = [((5, 6, 3), (8, 8, 8)), ((8, 8, 8), (8, 8, 8))]
WINDOWS = [
    ((9, 8, 5), (8, 8, 8)),
    ((21, 17, 8), (8, 8, 8)),
    ((7, 19, 10), (10, 6, 4)),
    ((13, 4, 11), (5, 7, 3)),
]


def image_of(shape: tuple[int, ...], seed: int = 0) -> MetaTensor:
    return MetaTensor(torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)), affine=AFFINE)


def pointwise() -> nn.Sequential:
    """A network that sees one voxel at a time: its features do not depend on the window."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv3d(1, 4, 1), nn.Tanh(), nn.Conv3d(4, 1, 1)).eval()


def test_a_volume_of_one_window_is_the_network_s_own_output(small_unet: Callable[[], UNet]) -> None:
    network, image = small_unet(), image_of((16, 8, 12))
    with torch.no_grad():
        found = VolumePredictor(network, (16, 8, 12), overlap=0.25, window_batch=4)(image)
        expected = torch.sigmoid(network(image.as_tensor()[None]))[0]
    torch.testing.assert_close(found.as_tensor(), expected, rtol=0, atol=1e-6)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.affine, AFFINE)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("shape", [(20, 17, 9), (6, 18, 7)])
def test_many_windows_are_blended_as_monai_does(
    small_unet: Callable[[], UNet], shape: tuple[int, int, int], overlap: float
) -> None:
    network, image, window = small_unet(), image_of(shape), (12, 8, 8)
    with torch.no_grad():
        found = VolumePredictor(network, window, overlap, window_batch=3)(image)
        # What lies beyond the image is filled with its minimum.
        fill = float(image.min())
        logits = sliding_window_inference(
            image.as_tensor()[None], window, 1, network, overlap=overlap, mode="gaussian", cval=fill
        )
    assert found.shape == image.shape
    torch.testing.assert_close(found.as_tensor(), torch.sigmoid(logits)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_tapping_features_does_not_change_the_prediction(small_unet: Callable[[], UNet], overlap: float) -> None:
    network, image = small_unet(), image_of((20, 9, 8))
    predict = VolumePredictor(network, (8, 8, 8), overlap, window_batch=2)
    with torch.no_grad():
        assert torch.equal(predict(image, FeatureTap(network, ["model.0"])), predict(image))


@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [(*size, 0.5) for size in ONE_WINDOW] + [(*size, each) for size in WINDOWS for each in (0.0, 0.25, 0.7)],
)
def test_every_voxel_of_the_image_counts_once_and_padding_not_at_all(
    shape: tuple[int, ...], window: tuple[int, ...], overlap: float
) -> None:
    network, image = pointwise(), image_of(shape)
    tap = FeatureTap(network, ["0", "2"])
    with torch.no_grad():
        VolumePredictor(network, window, overlap, window_batch=3)(image, tap)
        maps = network[0](image.as_tensor()[None])
        features = maps.movedim(1, -1).reshape(-1, 4).double().numpy()
    for layer in ("0", "2"):
        assert tap.gram_matrices[layer].voxels == pytest.approx(np.prod(shape), rel=1e-6)
    # The features of a voxel are the same in every window, so the sum over windows is that over the image.
    np.testing.assert_allclose(tap.gram_matrices["0"].gram.numpy(), features.T @ features, rtol=1e-5, atol=1e-5)


def test_where_windows_overlap_a_voxel_counts_in_the_window_whose_centre_is_nearest() -> None:
    class PlaceInWindow(nn.Module):
        """Tells for every voxel where in the window it is along the first axis: features that depend on the window."""

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            places = torch.arange(windows.shape[2], dtype=torch.float32)
            return places[:, None, None].expand_as(windows).clone()

    network = nn.Sequential(PlaceInWindow())
    tap = FeatureTap(network, ["0"])
    VolumePredictor(network, (4, 2, 2), overlap=0.5, window_batch=1)(image_of((8, 2, 2)), tap)
    # Windows start at 0, 2 and 4: voxels 0 to 2 count in the first, 3 and 4 in the second, 5 to 7 in the third.
    places = [0, 1, 2, 1, 2, 1, 2, 3]
    assert float(tap.gram_matrices["0"].gram) == pytest.approx(4 * sum(place**2 for place in places))
    assert float(tap.gram_matrices["0"].total) == pytest.approx(4 * sum(places))


@pytest.mark.parametrize("window_batch", [1, 100])
def test_the_number_of_windows_computed_together_does_not_matter(
    small_unet: Callable[[], UNet], window_batch: int
) -> None:
    network, image = small_unet(), image_of((19, 10, 8))
    found = []
    for batch in (3, window_batch):
        tap = FeatureTap(network, ["model.0", "model.1.submodule.0"])
        with torch.no_grad():
            found.append((VolumePredictor(network, (8, 8, 8), 0.3, batch)(image, tap), tap))
    (one, first), (other, second) = found
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for layer in first.gram_matrices:
        assert first.gram_matrices[layer].voxels == pytest.approx(second.gram_matrices[layer].voxels)
        torch.testing.assert_close(
            first.gram_matrices[layer].gram, second.gram_matrices[layer].gram, rtol=1e-4, atol=1e-4
        )


def test_the_singular_values_of_a_volume_are_those_of_its_stacked_weighted_windows(
    small_unet: Callable[[], UNet],
) -> None:
    network, image, window = small_unet(), image_of((20, 17, 8)), (8, 8, 8)
    rows: list[torch.Tensor] = []
    tap = FeatureTap(network, ["model.0"])
    original = tap._add

    def spy(layer: str, output: torch.Tensor, windows: WindowWeights) -> None:
        full = torch.einsum("bh,bw,bd->bhwd", *windows.axes)[:, None]
        share = torch.nn.functional.avg_pool3d(full, 2).reshape(-1, 1).double()
        rows.append(output.movedim(1, -1).reshape(-1, output.shape[1]).double() * share.sqrt())
        original(layer, output, windows)

    tap._add = spy  # type: ignore[method-assign]
    with torch.no_grad():
        VolumePredictor(network, window, 0.5, window_batch=4)(image, tap)
    sigma = torch.linalg.svdvals(torch.cat(rows))
    roots = torch.linalg.eigvalsh(tap.gram_matrices["model.0"].gram).flip(0).clamp_min(0).sqrt()
    torch.testing.assert_close(roots, sigma, rtol=1e-4, atol=1e-5 * float(sigma[0]))
    assert tap.gram_matrices["model.0"].voxels == pytest.approx(20 * 17 * 8 / 8)
