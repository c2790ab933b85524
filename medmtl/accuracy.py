"""Accuracy of a segmentation on the image's own grid: Dice and surface distances."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from monai.metrics import compute_dice
from monai.metrics.utils import get_mask_edges, get_surface_distance
from torch import Tensor

from medmtl.quantity import Quantity

ACCURACY: Mapping[str, Quantity] = MappingProxyType(
    {
        quantity.key: quantity
        for quantity in (
            Quantity("dice", "Dice", higher_is_better=True),
            Quantity(
                "hd95_mm", "95th-percentile Hausdorff distance", "mm", higher_is_better=False, digits=2, short="HD95"
            ),
            Quantity("asd_mm", "average surface distance", "mm", higher_is_better=False, digits=2, short="ASD"),
        )
    }
)


FOREGROUND = "foreground"  # all classes of a task as one
RECOGNISED = "dice_recognised"  # Dice where the task was not told, of a network with an output for each task


def dice(predicted: Tensor, label: Tensor) -> float:
    """Dice: twice the common voxels over the voxels of both.

    Args:
        predicted: True for foreground, bool `(H, W, D)`.
        label: ground truth, bool or 0 and 1, `(H, W, D)`.

    Returns:
        In [0, 1]; NaN for a label without foreground.

    Example:
        >>> predicted, label = torch.tensor([[[1, 1, 0, 0]], [[0, 1, 1, 0]]]).bool().unsqueeze(1)
        >>> dice(predicted, label)
        0.5
    """
    return float(compute_dice(predicted[None, None], label[None, None], include_background=True))


def surface_distances(predicted: Tensor, label: Tensor, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """95 % Hausdorff distance (HD95) and average symmetric surface distance (ASD).

    The surface are the foreground voxels with a face to the background, or at the volume's edge; distances are between
    voxel centres. HD95 is the larger of the two directions' 95th percentiles, ASD the mean over the voxels of both
    surfaces. Both as in MONAI.

    Args:
        predicted: True for foreground, bool `(H, W, D)`.
        label: ground truth, bool or 0 and 1, `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.

    Returns:
        HD95 and ASD, mm from 0. Both are NaN for a label without foreground. Both are the length of the volume's
        diagonal, the upper bound of distances within it, for a prediction without foreground, so that an empty
        prediction is not left out of a mean.

    Example:
        >>> predicted, label = torch.zeros(2, 1, 1, 8, dtype=torch.bool)
        >>> predicted[..., 2] = label[..., 4] = True
        >>> surface_distances(predicted, label, spacing_mm=(1, 1, 2.5))
        (5.0, 5.0)
    """
    found, truth = (volume.cpu().bool().numpy() for volume in (predicted, label))
    if not truth.any():
        return math.nan, math.nan
    if not found.any():
        diagonal = math.hypot(*(size * step for size, step in zip(truth.shape, spacing_mm, strict=True)))
        return diagonal, diagonal
    # MONAI's two metrics would each compute the surfaces and their distances again.
    edges = get_mask_edges(found, truth)
    there = get_surface_distance(*edges, spacing=spacing_mm)
    back = get_surface_distance(*reversed(edges), spacing=spacing_mm)
    hd95 = max(float(np.percentile(distances, 95)) for distances in (there, back))
    return hd95, float(np.concatenate([there, back]).mean(dtype=np.float64))
