"""Accuracy of a segmentation on the image's own grid: overlap, and how far the two surfaces are from each other."""

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
            Quantity("hd95_mm", "95th-percentile Hausdorff distance", "mm", higher_is_better=False, digits=2),
            Quantity("asd_mm", "average surface distance", "mm", higher_is_better=False, digits=2),
        )
    }
)


def dice(predicted: Tensor, label: Tensor) -> float:
    """Twice the common voxels over the voxels of both.

    Args:
        predicted: True for foreground, bool `(H, W, D)`.
        label: ground truth, bool or 0 and 1, `(H, W, D)`.

    Returns:
        From 0 to 1; NaN for a label without foreground.
    """
    return float(compute_dice(predicted[None, None], label[None, None], include_background=True))


def surface_distances(predicted: Tensor, label: Tensor, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """How far the surface of a segmentation is from that of the label, in both directions.

    The surface are the foreground voxels with a face to the background, or at the volume's edge; distances are between
    voxel centres. HD95, the 95 % Hausdorff distance, is the larger of the two directions' 95th percentiles. ASD, the
    average symmetric surface distance, is the mean over the voxels of both surfaces. Both as in MONAI.

    Args:
        predicted: True for foreground, bool `(H, W, D)`.
        label: ground truth, bool or 0 and 1, `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.

    Returns:
        HD95 and ASD, mm from 0. Both are NaN for a label without foreground. Both are the length of the volume's
        diagonal, which no distance within it exceeds, for a prediction without foreground: a model that finds nothing
        must not gain by dropping out of a mean.
    """
    found, truth = (volume.cpu().bool().numpy() for volume in (predicted, label))
    if not truth.any():
        return math.nan, math.nan
    if not found.any():
        diagonal = math.hypot(*(size * step for size, step in zip(truth.shape, spacing_mm, strict=True)))
        return diagonal, diagonal
    # MONAI's two metrics would each find the surfaces and their distances anew.
    edges = get_mask_edges(found, truth)
    there = get_surface_distance(*edges, spacing=spacing_mm)
    back = get_surface_distance(*reversed(edges), spacing=spacing_mm)
    hd95 = max(float(np.percentile(distances, 95)) for distances in (there, back))
    return hd95, float(np.concatenate([there, back]).mean(dtype=np.float64))
