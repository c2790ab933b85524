"""Convolutions of few channels are laid out anew, and compute what they did."""

from copy import deepcopy

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from medmtl.models.narrow import speed_up_narrow


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return UNet(3, 1, outputs, [4, 8, 16], [2, 2], num_res_units=2, norm="instance")


def gradients(part: nn.Module, image: Tensor) -> list[Tensor]:
    found = part(image)
    weights = torch.linspace(-1, 1, found.numel(), dtype=image.dtype).reshape(found.shape)
    return [found, *torch.autograd.grad((found * weights).sum(), list(part.parameters()))]


@pytest.mark.parametrize("outputs", [1, 4])
def test_a_network_and_its_gradients_stay_what_they_are(outputs: int) -> None:
    plain = network(outputs)
    changed = deepcopy(plain)
    speed_up_narrow(changed)
    image = torch.rand(2, 1, 8, 12, 16)
    truth = gradients(deepcopy(plain).double(), image.double())
    for found, before, true in zip(gradients(changed, image), gradients(plain, image), truth, strict=True):
        assert found.shape == true.shape
        error, usual = (float((each - true).abs().max()) for each in (found, before))
        assert error < 4 * usual + 3e-5 * float(true.abs().max())
    assert changed.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_only_few_channels_with_a_gradient_are_laid_out_anew(channels: int) -> None:
    seen = []
    part = nn.Conv3d(channels, 2, 3)
    speed_up_narrow(part)
    part.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.rand(2, channels, 5, 6, 7, requires_grad=True)
    part(image)
    with torch.no_grad():
        part(image.detach())
    assert all(torch.equal(each, image) for each in seen)
    expected = image.stride() if channels == 16 else (210 * channels, 1, 42 * channels, 7 * channels, channels)
    assert [each.stride() for each in seen] == [expected, image.stride()]
