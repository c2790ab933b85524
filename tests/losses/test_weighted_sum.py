"""Weighted sums, and mixed precision of all losses."""

import pytest
import torch
from monai.losses import DiceCELoss

from medmtl.errors import ConfigError
from medmtl.losses import ML1ACE, NACL, SVLS, WeightedSum


def test_losses_count_by_their_weights() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 5, 6, generator=random, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 2, (2, 1, 4, 5, 6), generator=random)
    accuracy, calibration = DiceCELoss(sigmoid=True), ML1ACE()
    value = WeightedSum([accuracy, calibration], [2.0, 0.5])(logits, label)
    expected = 2 * accuracy(logits, label) + calibration(logits, label) / 2
    assert value.item() == expected.item()
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_what_a_loss_keeps_moves_with_the_sum() -> None:
    weighted = WeightedSum([torch.nn.BCEWithLogitsLoss(pos_weight=torch.ones(1))], [1])
    assert "losses.0.pos_weight" in dict(weighted.named_buffers())


@pytest.mark.parametrize(("losses", "weights"), [([], []), ([ML1ACE()], []), ([ML1ACE()], [1, 1])])
def test_each_loss_needs_a_weight(losses: list, weights: list) -> None:
    with pytest.raises(ConfigError, match=f"{len(losses)} losses and {len(weights)} weights"):
        WeightedSum(losses, weights)


@pytest.mark.parametrize("loss", [ML1ACE(), SVLS(), NACL(), WeightedSum([DiceCELoss(sigmoid=True), ML1ACE()], [1, 1])])
def test_mixed_precision_costs_no_accuracy(loss: torch.nn.Module) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 5, 6, generator=random).bfloat16().requires_grad_()
    label = torch.randint(0, 2, (2, 1, 4, 5, 6), generator=random).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, label)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits.float(), label).item(), rel=1e-3)
    assert logits.grad.isfinite().all()
