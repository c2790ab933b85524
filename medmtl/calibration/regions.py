"""Regions: the voxels over which calibration is measured.

They follow from the ground truth alone. A region that followed from the prediction would measure two models on
different voxels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

# Spacings come from float32 headers: a voxel that is a whole margin away must not fall out by their rounding.
ROUNDING = 1e-5


def whole(label: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """All voxels.

    Args:
        label: ground truth of the organ, bool `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.

    Returns:
        The region, bool `(H, W, D)`, on the label's device.
    """
    return torch.ones_like(label, dtype=torch.bool)


def band(label: Tensor, spacing_mm: Sequence[float], margin_mm: float = 5.0) -> Tensor:
    """The organ and the voxels near it, where predictions are difficult.

    Args:
        label: ground truth of the organ, bool `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.
        margin_mm: how far from the organ the band reaches, mm between voxel centres.

    Returns:
        The region, bool `(H, W, D)`, on the label's device; without an organ it is empty.
    """
    organ = label.cpu().bool().numpy()
    region = np.zeros_like(organ)
    if organ.any():
        box = _bounding_box(organ, [math.ceil(margin_mm / step) for step in spacing_mm])
        region[box] = distance_transform_edt(~organ[box], sampling=spacing_mm) <= margin_mm * (1 + ROUNDING)
    return torch.from_numpy(region).to(label.device)


REGIONS: Mapping[str, Callable[[Tensor, Sequence[float]], Tensor]] = MappingProxyType({"whole": whole, "band": band})


def _bounding_box(organ: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box around the organ, widened by `margin` voxels along each axis."""
    box = []
    for axis, more in enumerate(margin):
        others = tuple(other for other in range(organ.ndim) if other != axis)
        inside = np.flatnonzero(organ.any(axis=others))
        box.append(slice(max(int(inside[0]) - more, 0), int(inside[-1]) + more + 1))
    return tuple(box)
