"""Voxels of unknown label: as if they were cut out, whatever their logits."""

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from medmtl.losses import ML1ACE, NACL, SVLS
from medmtl.losses.masked import UNKNOWN, leave_out_unknown

LOSSES = [DiceCELoss(sigmoid=True), ML1ACE(), NACL(), SVLS()]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Logits and labels, half of them unknown."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 6, 5, 4, generator=random, dtype=torch.float64)
    label = torch.randint(0, 2, logits.shape, generator=random).double()
    return logits, torch.where(torch.rand(logits.shape, generator=random) < 0.5, float(UNKNOWN), label)


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_of_unknown_voxels_change_nothing(loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, label = batch
    unknown = label == UNKNOWN
    other = torch.where(unknown, -3 * logits + 1, logits).requires_grad_()
    value = loss(*leave_out_unknown(other, label))
    assert value.item() == loss(*leave_out_unknown(logits, label)).item()
    (gradient,) = torch.autograd.grad(value, other)
    assert not gradient[unknown].any()
    assert gradient[~unknown].any()


def test_an_overlap_is_that_of_the_known_voxels_alone(batch: tuple[Tensor, Tensor]) -> None:
    logits, label = (tensor[:1] for tensor in batch)
    known = label != UNKNOWN
    loss = DiceLoss(sigmoid=True)
    cut = loss(logits[known][None, None], label[known][None, None])
    assert loss(*leave_out_unknown(logits, label)).item() == pytest.approx(cut.item(), rel=1e-9)


def test_a_mean_over_voxels_adds_the_known_ones(batch: tuple[Tensor, Tensor]) -> None:
    logits, label = batch
    known = label != UNKNOWN
    loss = nn.BCEWithLogitsLoss(reduction="sum")
    assert loss(*leave_out_unknown(logits, label)).item() == pytest.approx(loss(logits[known], label[known]).item())


def test_nothing_is_touched_where_all_is_known(batch: tuple[Tensor, Tensor]) -> None:
    logits, label = batch[0], (batch[1] == 1).float()
    assert leave_out_unknown(logits, label) == (logits, label)


def test_a_patch_of_unknown_voxels_has_no_gradient() -> None:
    logits = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.full(logits.shape, float(UNKNOWN))
    value = DiceCELoss(sigmoid=True)(*leave_out_unknown(logits, label))
    assert not torch.autograd.grad(value, logits)[0].any()
