"""Voxels of unknown truth, which a loss must not count."""

import torch
from torch import Tensor

UNKNOWN = 255  # in a label of 0 and 1
CERTAIN = 30.0  # of a logit: the sigmoid of -30 is 1e-13


def leave_out_unknown(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Make voxels of unknown truth count nothing in a loss, whatever the loss is.

    They become background that is certainly found: no gradient, nothing in an overlap (Dice, Tversky: within 1e-13 a
    voxel as if they were cut out), and nothing in the sum of a cross-entropy, whose mean still divides by all voxels.
    MONAI's `MaskedLoss` multiplies logits by 0 instead, which stands for a probability of one half.

    Args:
        logits: of foreground, `(B, 1, H, W, D)`.
        label: 0, 1 and `UNKNOWN`, `(B, 1, H, W, D)`.

    Returns:
        Logits and label to hand to the loss, the same where all is known.
    """
    unknown = label == UNKNOWN
    if not unknown.any():
        return logits, label
    return torch.where(unknown, -CERTAIN, logits), label.masked_fill(unknown, 0)
