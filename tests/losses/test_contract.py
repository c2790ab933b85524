"""`check_loss`: every built-in loss and those of MONAI hold it, and each broken promise is named."""

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss
from torch import Tensor, nn

from medmtl.losses import ML1ACE, NACL, SVLS, WeightedSum, check_loss

LOSSES = [
    ML1ACE(),
    ML1ACE(soft=False, absent=True),
    NACL(),
    NACL(distance_type="l2"),
    SVLS(),
    WeightedSum([DiceCELoss(sigmoid=True), ML1ACE()], [1, 0.3]),
    DiceCELoss(sigmoid=True),
    DiceLoss(sigmoid=True),
    FocalLoss(),
    TverskyLoss(sigmoid=True),
    nn.BCEWithLogitsLoss(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_built_in_losses_and_those_of_monai_hold_the_contract(loss: nn.Module) -> None:
    check_loss(loss)


class Broken(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        return self.function(logits, label)


def in_place(logits: Tensor, label: Tensor) -> Tensor:
    value = (logits.sigmoid() - label).square().mean()
    label.zero_()
    return value


cross_entropy = nn.functional.binary_cross_entropy_with_logits
BROKEN = {
    "gives a scalar tensor": lambda z, y: cross_entropy(z, y, reduction="none"),
    "gives float32": lambda z, y: cross_entropy(z.double(), y.double()),
    "gives a finite value for a batch without foreground": lambda z, y: cross_entropy(z, y) + y.mean().log(),
    "gives a finite value for logits and labels": lambda z, y: z.log().mean(),
    "can be differentiated by the logits": lambda z, y: ((z > 0) != y).float().mean(),
    "has a finite gradient": lambda z, y: (0 * (z.flatten()[0].detach() - z.flatten()[0]).sqrt()) + cross_entropy(z, y),
    "has a gradient": lambda z, y: 0 * cross_entropy(z, y),
    "leaves the labels as they are": in_place,
    "gives the same value and gradient": lambda z, y: cross_entropy(z + torch.randn_like(z), y),
    "is lower for the right segmentation": lambda z, y: cross_entropy(z, 1 - y),
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_promise_is_named(words: str) -> None:
    with pytest.raises(AssertionError, match=f"^Broken breaks its contract: a loss {words}"):
        check_loss(Broken(BROKEN[words]))
