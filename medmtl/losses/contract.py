"""Contract test of losses, for the tests of a user's own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medmtl.contract import requirements
from medmtl.losses.masked import UNKNOWN, leave_out_unknown

SHAPE = (2, 1, 8, 9, 10)


def check_loss(loss: nn.Module) -> None:
    """Check that a loss has the properties that training relies on.

    Args:
        loss: takes logits and labels, both `(B, 1, H, W, D)`, float32.

    Raises:
        AssertionError: names the requirement that is not met.
    """
    require = requirements(loss, "a loss")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, generator=generator)
    label = torch.zeros(SHAPE)
    label[:, :, 2:6, 2:6, 3:7] = 1
    before = label.clone()

    value, gradient = _differentiate(loss, require, "logits and labels of shape (B, 1, H, W, D)", logits, label)
    require(bool(gradient.any()), "has a gradient")
    require(torch.equal(label, before), "leaves the labels as they are")
    again, gradient_again = _differentiate(loss, require, "the same batch again", logits, label)
    require(
        torch.equal(value, again) and torch.equal(gradient, gradient_again),
        "gives the same value and gradient for the same batch",
    )

    sure = 6 * (2 * label - 1)
    right, _ = _differentiate(loss, require, "a right segmentation", sure, label)
    wrong, _ = _differentiate(loss, require, "a wrong segmentation", -sure, label)
    require(bool(right < wrong), "is lower for the right segmentation than for its inverse")
    _differentiate(loss, require, "a batch without foreground", logits, torch.zeros(SHAPE))

    unknown = torch.rand(SHAPE, generator=generator) < 0.3
    for name, ignored in (("ignored voxels", unknown), ("ignored voxels only", torch.ones_like(unknown))):
        marked = label.masked_fill(ignored, UNKNOWN)
        _, gradient = _differentiate(
            lambda z, y: loss(*leave_out_unknown(z, y)), require, f"a batch with {name}", logits, marked
        )
        require(not gradient[ignored].any(), f"has no gradient from the ignored voxels of a batch with {name}")


def _differentiate(
    loss: Callable[[Tensor, Tensor], Tensor],
    require: Callable[[object, str], None],
    batch: str,
    logits: Tensor,
    label: Tensor,
) -> tuple[Tensor, Tensor]:
    """Value and gradient of the loss, checked to be a finite float32 scalar and finite."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, label)
    require(isinstance(value, Tensor) and value.ndim == 0, f"gives a scalar tensor for {batch}")
    require(value.dtype == torch.float32, f"gives float32 for {batch}")
    require(bool(value.isfinite()), f"gives a finite value for {batch}")
    require(value.requires_grad, f"can be differentiated by the logits, for {batch}")
    (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    require(gradient is not None and bool(gradient.isfinite().all()), f"has a finite gradient for {batch}")
    return value.detach(), gradient
