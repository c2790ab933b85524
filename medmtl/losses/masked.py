"""Voxels to ignore, whose label is unknown."""

import torch
from torch import Tensor

UNKNOWN = 255  # in a label of 0 and 1
CERTAIN = 30.0  # a logit: the sigmoid of -30 is 1e-13


def leave_out_unknown(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Exclude voxels of unknown label from a loss, whatever the loss is.

    They become background that is predicted with certainty: no gradient, no contribution to an overlap (Dice, Tversky:
    within 1e-13 a voxel as if they were cut out) or to the sum of a cross-entropy, whose mean still divides by all
    voxels. MONAI's `MaskedLoss` multiplies logits by 0 instead, which is a probability of one half.

    Args:
        logits: of foreground, `(B, 1, H, W, D)`.
        label: 0, 1 and `UNKNOWN`, `(B, 1, H, W, D)`.

    Returns:
        Logits and label for the loss, the same objects if all labels are known.

    Example:
        >>> logits, label = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([1.0, 255.0, 0.0])
        >>> [values.tolist() for values in leave_out_unknown(logits, label)]
        [[2.0, -30.0, -1.0], [1.0, 0.0, 0.0]]
    """
    unknown = label == UNKNOWN
    if not unknown.any():
        return logits, label
    return torch.where(unknown, -CERTAIN, logits), label.masked_fill(unknown, 0)
