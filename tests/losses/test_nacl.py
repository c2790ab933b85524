"""MONAI's neighbour-aware and focal losses on one foreground logit, against their definitions."""

import itertools

import pytest
import torch
from monai.losses import FocalLoss
from torch.autograd import gradcheck

from medmtl.errors import ConfigError, DataError
from medmtl.losses import NACL


def patches(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, shape, generator=random, dtype=torch.uint8)
    return torch.randn(shape, generator=random, dtype=torch.float64), label


def share_of_neighbours(label: torch.Tensor) -> torch.Tensor:
    """Share of foreground among the 27 voxels around each, none of it beyond the border, `(H, W, D)`."""
    share = torch.zeros(label.shape, dtype=torch.float64)
    for voxel in itertools.product(*(range(side) for side in label.shape)):
        near = tuple(slice(max(i - 1, 0), i + 2) for i in voxel)
        share[voxel] = label[near].sum() / 27
    return share


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_value_and_gradient_are_those_of_the_definition(distance: str) -> None:
    logits, label = patches(2, 1, 4, 5, 6)
    logits.requires_grad_()
    penalty = torch.zeros((), dtype=torch.float64)
    for z, y in zip(logits[:, 0], label[:, 0], strict=True):
        for logit, truth in ((-z / 2, 1 - y), (z / 2, y)):
            distances = share_of_neighbours(truth) - logit
            penalty = penalty + (distances.abs() if distance == "l1" else distances**2).mean() / 4
    y, p = label.double(), logits.sigmoid()
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean() + 0.3 * penalty
    loss = NACL(distance_type=distance, alpha=0.3)(logits, label)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)  # MONAI takes the shares in float32
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)
    assert gradcheck(lambda z: NACL(distance_type=distance)(z, label), logits)


def test_foreground_and_background_are_treated_alike() -> None:
    logits, label = patches(2, 1, 4, 5, 6)
    assert NACL()(-logits, 1 - label).item() == pytest.approx(NACL()(logits, label).item(), abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_the_type_of_the_label_does_not_matter(dtype: torch.dtype) -> None:
    logits, label = patches(2, 1, 4, 5, 6)
    assert NACL()(logits, label.to(dtype)) == NACL()(logits, label)


@pytest.mark.parametrize("loss", [NACL(), FocalLoss()], ids=["nacl", "focal"])
def test_saturated_logits_have_finite_gradients(loss: torch.nn.Module) -> None:
    for foreground, logit in itertools.product([0.0, 1.0], [-1e4, 0.0, 1e4]):
        logits = torch.full((2, 1, 4, 5, 6), logit, requires_grad=True)
        value = loss(logits, torch.full((2, 1, 4, 5, 6), foreground))
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


def test_the_focal_loss_is_that_of_its_definition() -> None:
    logits, label = patches(2, 1, 4, 5, 6)
    truth = torch.where(label.bool(), logits.sigmoid(), 1 - logits.sigmoid())
    expected = -((1 - truth) ** 2 * truth.log()).mean()
    assert FocalLoss()(logits, label).item() == pytest.approx(expected.item(), rel=1e-6)


def test_several_channels_and_labels_that_do_not_fit_are_refused() -> None:
    logits, label = patches(2, 1, 4, 5, 6)
    with pytest.raises(ConfigError, match=r"NACL takes one channel of logits, not 3: use monai\.losses\.NACLLoss"):
        NACL()(logits.expand(2, 3, 4, 5, 6), label)
    with pytest.raises(DataError, match="values from 0 to 2"):
        NACL()(logits, 2 * label)
    with pytest.raises(DataError, match="not whole"):
        NACL()(logits, label / 2)
