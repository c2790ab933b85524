"""Labels as targets of a loss: one channel a class, in the shape of the logits."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from medmtl.errors import DataError


def targets(logits: Tensor, label: Tensor) -> Tensor:
    """Convert a label to the shape of the logits.

    Args:
        logits: `(B, C, *spatial)`: one channel is the logit of foreground, several are those of a softmax.
        label: `(B, 1, *spatial)`, any type: share of foreground in [0, 1] with one channel, class numbers with
            several.

    Returns:
        Share of each class in each voxel, `(B, C, *spatial)`, float32 (float64 for float64 logits).

    Raises:
        DataError: shapes differ, or a label value is not a class.
    """
    if label.shape != (len(logits), 1, *logits.shape[2:]):
        raise DataError(
            f"logits {tuple(logits.shape)} and label {tuple(label.shape)} do not fit",
            fix="give the label one channel and the grid of the logits",
        )
    classes = logits.shape[1]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    label = label.as_subclass(Tensor)  # MONAI's MetaTensor would carry its metadata through every operation
    low, high = torch.aminmax(label)
    if not (low >= 0 and high <= max(classes - 1, 1)):  # a NaN makes both NaN
        raise DataError(
            f"label values from {low.item():g} to {high.item():g} with {classes} channels of logits",
            fix="use 0 and 1 with one channel, 0 to C - 1 with C",
        )
    if classes == 1:
        return label.to(dtype)
    numbers = label.long()
    if label.is_floating_point() and not torch.equal(numbers.to(label.dtype), label):
        raise DataError("label values are not whole numbers", fix="number the classes from 0 to C - 1")
    return one_hot(numbers.squeeze(1), classes).movedim(-1, 1).to(dtype)
