"""Layers that a CPU computes faster compute what torch's do."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from medmtl.models.cpu_layers import NarrowTranspose, SingleSlope, SixteenBitDropout, speed_up


def network(outputs: int, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return UNet(3, 1, outputs, [4, 8, 16], [2, 2], num_res_units=2, norm="instance", dropout=dropout)


def faster(part: nn.Module) -> nn.Module:
    changed = deepcopy(part)
    speed_up(changed)
    return changed


def gradients(part: nn.Module, image: Tensor) -> list[Tensor]:
    """What a part finds, and the gradients of its weights and of the image."""
    image = image.clone().requires_grad_()
    found = part(image)
    weights = torch.linspace(-1, 1, found.numel(), dtype=image.dtype).reshape(found.shape)
    return [found, *torch.autograd.grad((found * weights).sum(), [image, *part.parameters()])]


def check_same(part: nn.Module, image: Tensor) -> None:
    """Compare with double precision: the error is at most a few times torch's own.

    A bias before a norm has no gradient: there the rounding is that of what cancels out, of the largest gradient.
    """
    changed = faster(part)
    truth = gradients(deepcopy(part).double(), image.double())
    largest = max(float(true.abs().max()) for true in truth)
    for found, before, true in zip(gradients(changed, image), gradients(part, image), truth, strict=True):
        assert found.shape == true.shape
        error, usual = (float((each - true).abs().max()) for each in (found, before))
        assert error < 4 * usual + 3e-5 * float(true.abs().max()) + 1e-6 * largest
    assert changed.state_dict().keys() == part.state_dict().keys()
    with torch.inference_mode():
        assert torch.allclose(changed(image), part(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 4, 6])
def test_a_network_and_its_gradients_stay_what_they_are(outputs: int) -> None:
    check_same(network(outputs), torch.rand(2, 1, 8, 12, 16))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "one output": lambda: nn.ConvTranspose3d(5, 1, 3, 2, 1, 1),
    "anisotropic": lambda: nn.ConvTranspose3d(5, 3, (3, 3, 1), (2, 2, 1), (1, 1, 0), (1, 1, 0)),
    "dilated": lambda: nn.ConvTranspose3d(5, 2, 3, 2, 1, 1, dilation=2),
    "without a bias": lambda: nn.ConvTranspose3d(5, 4, 2, 2, bias=False),
    "in groups": lambda: nn.ConvTranspose3d(5, 5, 3, 2, 1, 1, groups=5),
    "many to few": lambda: nn.Conv3d(5, 2, 3),
    "slope": lambda: nn.PReLU(),
    "negative slope": lambda: nn.PReLU(init=-0.5),
    "slopes": lambda: nn.PReLU(5),
}


@pytest.mark.parametrize("made", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=["plain", "channels last"])
def test_a_layer_and_its_gradients_stay_what_they_are(
    made: Callable[[], nn.Module], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    check_same(made(), torch.randn(2, 5, 4, 6, 5).contiguous(memory_format=layout))


def test_layers_are_changed_where_that_is_faster() -> None:
    changed = [type(part) for part in faster(network(1, dropout=0.1)).modules()]
    assert {NarrowTranspose, SingleSlope, SixteenBitDropout} <= set(changed)
    assert not {nn.PReLU, nn.Dropout} & set(changed)


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_only_few_channels_with_a_gradient_are_laid_out_anew(channels: int) -> None:
    seen = []
    part = nn.Conv3d(channels, 16, 3)
    speed_up(part)
    part.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.rand(2, channels, 5, 6, 7, requires_grad=True)
    part(image)
    with torch.no_grad():
        part(image.detach())
    assert all(torch.equal(each, image) for each in seen)
    expected = image.stride() if channels == 16 else (210 * channels, 1, 42 * channels, 7 * channels, channels)
    assert [each.stride() for each in seen] == [expected, image.stride()]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_dropout_drops_its_share_keeps_the_mean_and_has_the_gradient_of_its_mask(share: float) -> None:
    torch.manual_seed(0)
    part = faster(nn.Sequential(nn.Dropout(share)))
    image = torch.ones(3, 7, 41, 43, 11, requires_grad=True)  # not a multiple of four values
    found = part(image)
    (gradient,) = torch.autograd.grad(found.sum(), image)
    assert torch.equal(gradient, found)
    count = image.numel()
    assert abs(float((found == 0).float().mean()) - share) < 5 * (share * (1 - share) / count) ** 0.5
    assert len(found.unique()) == 2
    assert abs(float(found.max()) * (1 - share) - 1) < 2**-16 / (1 - share)
    # Neighbours are independent, also those that share a random number of 64 bits.
    kept = (found.detach().flatten() > 0).double()
    for step in (1, 2, 3, 4):
        together = float((kept[step:] * kept[:-step]).mean())
        assert abs(together - (1 - share) ** 2) < 5 * (share / count) ** 0.5


def test_dropout_is_seeded_and_is_nothing_in_evaluation() -> None:
    part = faster(nn.Sequential(nn.Dropout(0.3)))
    image = torch.rand(2, 3, 4, 5, 6, requires_grad=True)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(part(image))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(part.eval()(image), image)


def test_mixed_precision_is_computed_by_torch() -> None:
    plain = network(1).train()
    image = torch.rand(2, 1, 8, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(faster(plain)(image), plain(image))
