"""Spatially varying label smoothing against its definition, written out over voxels and neighbours."""

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import binary_cross_entropy_with_logits

from medmtl.errors import ConfigError, DataError
from medmtl.losses import SVLS
from medmtl.losses.svls import smooth


def by_loops(label: torch.Tensor, sigma: float) -> torch.Tensor:
    """The smoothed label of one volume `(*spatial)`."""
    offsets = list(itertools.product((-1, 0, 1), repeat=label.ndim))
    gaussian = {offset: math.exp(-sum(step**2 for step in offset) / (2 * sigma**2)) for offset in offsets}
    total = sum(gaussian.values())
    kernel = {offset: weight / total for offset, weight in gaussian.items()}
    centre = (0,) * label.ndim
    kernel[centre] = sum(weight for offset, weight in kernel.items() if offset != centre)
    smoothed = torch.zeros(label.shape, dtype=torch.float64)
    for voxel in itertools.product(*(range(side) for side in label.shape)):
        for offset, weight in kernel.items():
            near = tuple(
                min(max(i + step, 0), side - 1) for i, step, side in zip(voxel, offset, label.shape, strict=True)
            )
            smoothed[voxel] += weight * float(label[near]) / sum(kernel.values())
    return smoothed


def volumes(*shape: int, classes: int = 2) -> torch.Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("sigma", "shape"), [(1.0, (4, 5, 6)), (0.5, (1, 2, 3)), (3.0, (5, 6))])
def test_labels_are_those_of_the_definition(sigma: float, shape: tuple[int, ...]) -> None:
    label = volumes(2, 1, *shape).double()
    expected = torch.stack([by_loops(one[0], sigma) for one in label])[:, None]
    torch.testing.assert_close(smooth(label, sigma), expected, rtol=0, atol=1e-12)


def test_only_boundaries_are_soft_and_a_voxel_keeps_half_of_its_label() -> None:
    label = torch.zeros(1, 1, 12, 12, 12)
    label[..., :6] = 1
    smoothed = smooth(label, 1.0)
    assert ((smoothed > 0) & (smoothed < 1)).any((0, 1, 2, 3)).tolist() == [i in (5, 6) for i in range(12)]
    lonely = torch.zeros(1, 1, 5, 5, 5)
    lonely[..., 2, 2, 2] = 1
    assert smooth(lonely, 1.0)[..., 2, 2, 2].item() == pytest.approx(0.5)


def test_value_and_gradient_are_those_of_the_definition() -> None:
    label = volumes(2, 1, 4, 5, 6)
    logits = torch.randn(2, 1, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.stack([by_loops(one[0], 1.0) for one in label])[:, None]
    p = logits.sigmoid()
    loss = SVLS()(logits.requires_grad_(), label)
    loss.backward()
    assert loss.item() == pytest.approx(-(target * p.log() + (1 - target) * (1 - p).log()).mean().item(), abs=1e-12)
    torch.testing.assert_close(logits.grad, (p - target) / p.numel(), rtol=1e-9, atol=1e-12)
    assert gradcheck(lambda z: SVLS()(z, label), logits)


def test_several_classes_are_those_of_the_definition() -> None:
    label = volumes(2, 1, 4, 5, 6, classes=3)
    logits = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.stack([torch.stack([by_loops(one[0] == c, 1.0) for c in range(3)]) for one in label])
    torch.testing.assert_close(target.sum(1), torch.ones(2, 4, 5, 6, dtype=torch.float64))
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert SVLS()(logits, label).item() == pytest.approx(expected.item(), abs=1e-12)
    assert gradcheck(lambda z: SVLS()(z, label), logits.requires_grad_())


def test_two_classes_are_one_channel() -> None:
    label = volumes(2, 1, 4, 5, 6)
    logits = torch.randn(2, 1, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pair = torch.cat([torch.zeros_like(logits), logits], 1)
    assert SVLS()(pair, label).item() == pytest.approx(SVLS()(logits, label).item(), abs=1e-12)


@pytest.mark.parametrize("foreground", [0, 1])
def test_without_a_boundary_it_is_cross_entropy(foreground: int) -> None:
    logits = torch.randn(2, 1, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    label = torch.full_like(logits, foreground)
    assert SVLS()(logits, label).item() == pytest.approx(binary_cross_entropy_with_logits(logits, label).item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_saturated_logits_have_finite_gradients(dtype: torch.dtype) -> None:
    for logit in (-1e4, 0.0, 1e4):
        logits = torch.full((2, 1, 4, 5, 6), logit, dtype=dtype, requires_grad=True)
        loss = SVLS()(logits, volumes(2, 1, 4, 5, 6).to(torch.uint8))
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_a_width_of_nothing_and_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="sigma=0"):
        SVLS(sigma=0)
    with pytest.raises(DataError, match="values from 0 to 2 with 1 channels"):
        SVLS()(torch.zeros(1, 1, 2, 2), torch.tensor([[[[0, 1], [2, 0]]]]))
