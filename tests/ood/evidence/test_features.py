"""FeatureTap: the Gram matrix of a feature map, streamed over windows, is that of the stacked windows."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from torch import nn
from torch.nn import functional

from medmtl.errors import ConfigError
from medmtl.ood.evidence.features import FeatureTap


def network() -> nn.Sequential:
    """A fine layer `0` and layers `2` and `3` of half and of twice the size, with fixed random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv3d(1, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv3d(6, 5, 2, stride=2),
            nn.ConvTranspose3d(5, 3, 4, stride=4),
        ).eval()


def windows(count: int, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Random windows, and shares of their voxels along the axes from 0 to 1, some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 6, 4, generator=generator)
    shares = [(torch.rand(count, side, generator=generator) * 1.5 - 0.4).clamp(0, 1) for side in (8, 6, 4)]
    return images, shares


def some(shares: list[torch.Tensor], start: int, end: int | None) -> list[torch.Tensor]:
    return [share[start:end] for share in shares]


def full(shares: list[torch.Tensor]) -> torch.Tensor:
    """The weight of each voxel, `(B, 1, H, W, D)`."""
    return torch.einsum("bh,bw,bd->bhwd", *shares)[:, None]


def ones(volumes: torch.Tensor) -> list[torch.Tensor]:
    return [torch.ones(len(volumes), side) for side in volumes.shape[2:]]


def feature_maps(net: nn.Sequential, images: torch.Tensor, layer: int) -> torch.Tensor:
    return net[: layer + 1](images).detach()


def test_the_gram_matrix_streamed_over_windows_is_that_of_all_windows_stacked() -> None:
    net = network().double()
    images, shares = windows(7)
    images, shares = images.double(), [share.double() for share in shares]
    weights = full(shares)
    tap = FeatureTap(net, ["0", "2", "3"])
    for start, end in pairwise((0, 3, 4, 7)):
        with torch.no_grad(), tap.weighing(some(shares, start, end)):
            net(images[start:end])
    scaled = {
        "0": weights.numpy(),
        "2": functional.avg_pool3d(weights, 2).numpy(),
        "3": weights.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4).numpy(),
    }
    for layer, weight in scaled.items():
        # Layer 0 is followed by an in-place ReLU: what counts is the map as the layer returned it.
        maps = feature_maps(net, images, int(layer)).numpy()
        stacked = np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
        expected = stacked.T @ (stacked * weight.reshape(-1, 1))
        np.testing.assert_allclose(tap.gram_matrices[layer].gram.numpy(), expected, rtol=1e-10, atol=1e-10)
        assert tap.gram_matrices[layer].gram.dtype == torch.float64
        assert tap.gram_matrices[layer].voxels == pytest.approx(weight.sum(), rel=1e-12)


def test_unit_weights_give_the_plain_gram_matrix_whose_roots_are_the_singular_values() -> None:
    net, (images, _) = network(), windows(3)
    images = images[:, :, :4, :4]  # 8 voxels of layer 2 for its 5 channels: few, so products are float64
    tap = FeatureTap(net, ["2"])
    with torch.no_grad(), tap.weighing(ones(images)):
        net(images)
    stacked = feature_maps(net, images, 2).movedim(1, -1).reshape(-1, 5).double()
    roots = torch.linalg.eigvalsh(tap.gram_matrices["2"].gram).flip(0).sqrt()
    torch.testing.assert_close(roots, torch.linalg.svdvals(stacked), rtol=1e-9, atol=0)
    assert tap.gram_matrices["2"].voxels == len(stacked)


def test_per_voxel_divides_by_the_weights_of_each_layer() -> None:
    net, (images, weights) = network(), windows(3)
    tap = FeatureTap(net, ["0", "2"])
    with torch.no_grad(), tap.weighing(weights):
        net(images)
    found = tap.per_voxel()
    assert tap.gram_matrices["0"].voxels == pytest.approx(8 * tap.gram_matrices["2"].voxels)
    for layer in ("0", "2"):
        torch.testing.assert_close(found[layer] * tap.gram_matrices[layer].voxels, tap.gram_matrices[layer].gram)


def test_reset_forgets_the_volume() -> None:
    net, (images, weights) = network(), windows(4)
    tap, fresh = FeatureTap(net, ["0"]), FeatureTap(net, ["0"])
    with torch.no_grad():
        with tap.weighing(some(weights, 0, 3)):
            net(images[:3])
        kept = tap.gram_matrices["0"].gram
        before = kept.clone()
        tap.reset()
        assert tap.gram_matrices == {}
        for one in (tap, fresh):
            with one.weighing(some(weights, 3, None)):
                net(images[3:])
    assert torch.equal(tap.gram_matrices["0"].gram, fresh.gram_matrices["0"].gram)
    assert tap.gram_matrices["0"].voxels == fresh.gram_matrices["0"].voxels
    # Whoever keeps a volume's Gram matrix keeps it unchanged.
    assert torch.equal(kept, before)


def test_passes_outside_the_block_are_not_counted_and_the_hooks_are_gone() -> None:
    net, (images, weights) = network(), windows(2)
    tap = FeatureTap(net, ["0", "2"])
    net(images)
    with tap.weighing(weights):
        net(images)
    with pytest.raises(RuntimeError), tap.weighing(weights):
        net(images[:, :, :1])
    assert not any(module._forward_hooks for module in net.modules())
    counted = tap.per_voxel()
    net(images)
    assert all(torch.equal(gram, counted[layer]) for layer, gram in tap.per_voxel().items())


def test_tapping_changes_neither_the_output_nor_the_gradients() -> None:
    net, (images, weights) = network(), windows(2)
    plain = net(images)
    tap = FeatureTap(net, ["0", "2"])
    with tap.weighing(weights):
        tapped = net(images)
    assert torch.equal(tapped, plain)
    tapped.sum().backward()
    assert not any(gram.requires_grad for gram in tap.per_voxel().values())


def test_bfloat16_features_are_summed_in_float64() -> None:
    net, (images, _) = network().to(torch.bfloat16), windows(3)
    tap = FeatureTap(net, ["0"])
    with torch.no_grad(), tap.weighing(ones(images)):
        net(images.to(torch.bfloat16))
    stacked = feature_maps(net, images.to(torch.bfloat16), 0).movedim(1, -1).reshape(-1, 6).double()
    torch.testing.assert_close(tap.gram_matrices["0"].gram, stacked.T @ stacked, rtol=1e-12, atol=0)


def test_float32_features_of_a_network_that_computes_in_half_precision_keep_their_own() -> None:
    images = torch.randn(3, 1, 8, 6, 4, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Identity())  # as a normalisation that stays float32
    found = []
    for mixed in (True, False):
        tap = FeatureTap(net, ["0"])
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed), tap.weighing(ones(images)):
            net(images)
            found.append(tap.per_voxel()["0"])
    assert torch.equal(*found)


@pytest.mark.parametrize("layer", ["model.7", "", "Model.0"])
def test_a_layer_that_does_not_exist_is_answered_with_those_that_do(small_unet: Callable[[], UNet], layer: str) -> None:
    net = small_unet()
    with pytest.raises(ConfigError) as error:
        FeatureTap(net, ["model.0", layer])
    message = str(error.value)
    assert repr(layer) in message
    for name, _ in net.named_modules():
        assert name in message


def test_naming_no_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer"):
        FeatureTap(network(), [])


def test_a_layer_that_does_not_return_one_feature_map_is_named() -> None:
    class Pair(nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return image, image

    class Flat(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1)

    for module in (Pair(), Flat()):
        net = nn.Sequential(module)
        images, weights = windows(1)
        with pytest.raises(ConfigError, match="'0'"), FeatureTap(net, ["0"]).weighing(weights):
            net(images)


def test_means_streamed_over_windows_are_those_of_the_weighted_voxels_stacked() -> None:
    net = network().double()
    images, shares = windows(5)
    images, shares = images.double(), [share.double() for share in shares]
    weights = full(shares)
    tap = FeatureTap(net, ["0", "2"])
    for start, end in pairwise((0, 2, 5)):
        with torch.no_grad(), tap.weighing(some(shares, start, end)):
            net(images[start:end])
    for layer, weight in {"0": weights, "2": functional.avg_pool3d(weights, 2)}.items():
        maps = feature_maps(net, images, int(layer)).numpy()
        stacked = np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
        found = tap.evidence()[layer]
        np.testing.assert_allclose(found.mean.numpy(), np.average(stacked, axis=0, weights=weight.flatten()), rtol=1e-9)
        np.testing.assert_array_equal(found.gram.numpy(), tap.per_voxel()[layer].numpy())
        assert found.voxels == pytest.approx(float(weight.sum()), rel=1e-12)
        assert found.windows is None


def test_maps_of_many_voxels_are_multiplied_in_float32_and_lose_next_to_nothing() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        maps = torch.randn(2, 6, 12, 11, 10) @ torch.randn(10, 10)
        # Channels whose sizes differ by a thousand: eigenvalues by a million.
        maps *= torch.logspace(0, -3, 6)[:, None, None, None]
        maps[:, 0] += 3
    tap = FeatureTap(nn.Sequential(nn.Identity()), ["0"])
    with tap.weighing(ones(maps)):
        tap.modules["0"](maps)
    stacked = maps.movedim(1, -1).reshape(-1, 6).double()
    roots = torch.linalg.eigvalsh(tap.gram_matrices["0"].gram).flip(0).sqrt()
    torch.testing.assert_close(roots, torch.linalg.svdvals(stacked), rtol=1e-4, atol=0)
    assert not torch.equal(tap.gram_matrices["0"].gram, stacked.T @ stacked)


def test_windows_are_averaged_over_pairs_until_they_are_small() -> None:
    maps = torch.randn(3, 5, 16, 8, 6, generator=torch.Generator().manual_seed(0))
    tap = FeatureTap(nn.Sequential(nn.Identity()), ["0"], pooled=["0"])
    for part in (maps[:2], maps[2:]):
        with tap.weighing(ones(part)):
            tap.modules["0"](part)
    kept = tap.evidence()["0"].windows
    # 5 x 16 x 8 x 6 = 3,840 numbers, 480 after one averaging.
    expected = maps.unflatten(2, (8, 2)).unflatten(4, (4, 2)).unflatten(6, (3, 2)).mean((3, 5, 7)).flatten(1)
    assert kept is not None
    torch.testing.assert_close(kept, expected)


def test_of_many_windows_some_are_kept_evenly_spaced() -> None:
    tap = FeatureTap(nn.Sequential(nn.Identity()), ["0"], pooled=["0"])
    maps = torch.arange(200.0).reshape(200, 1, 1, 1, 1)
    with tap.weighing(ones(maps)):
        tap.modules["0"](maps)
    kept = tap.evidence()["0"].windows
    assert kept is not None
    assert len(kept) == 64
    steps = kept.flatten().diff()
    assert kept[0] == 0
    assert kept[-1] == 199
    assert steps.min() >= 3
    assert steps.max() <= 4


def test_a_pooled_layer_must_be_tapped() -> None:
    with pytest.raises(ConfigError, match="'2'"):
        FeatureTap(network(), ["0"], pooled=["2"])
