"""Where a volume is cut for a page, and between which intensities its slices are grey."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmtl.report.orientation import VIEWS

_MARGIN_MM = 12.0


def cuts(image: NDArray[Any], organ: NDArray[np.bool_]) -> dict[str, tuple[Any, ...]]:
    """Where the views cut a volume: through the largest area of the organ, the middle one of equals.

    A centroid may lie outside the organ, as between two kidneys. Padding, the lowest intensity around all else, is left
    out, so that a small organ in a padded volume is not shown as a speck.

    Args:
        image: `(H, W, D)`, in RAS+ orientation.
        organ: bool, same shape; where it is nowhere the middle of the volume is cut.

    Returns:
        View -> index of its plane: a number for the axis that is cut, slices for the others.
    """
    whole = organ if organ.any() else np.ones(image.shape, dtype=bool)
    # A comparison with NaN is false: an image of which some is not a number is shown whole.
    content = organ | (np.asarray(image) > image.min())
    shown = _box(content) if content.any() else (slice(None),) * 3
    found = {}
    for name, view in VIEWS.items():
        area = _profiles(whole)[view.fixed]
        largest = np.flatnonzero(area == area.max())
        index = int(largest[len(largest) // 2])
        found[name] = tuple(index if axis == view.fixed else shown[axis] for axis in range(3))
    return found


def grey_window(image: NDArray[Any], organ: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[float, float]:
    """The intensities to show as black and as white, one pair for all slices of a volume.

    They are those of the surroundings of the organ: over a whole CT, air and bone leave it no contrast.

    Args:
        image: `(H, W, D)`.
        organ: bool, same shape; where it is nowhere the whole volume counts.
        spacing: voxel size in mm along H, W and D.
    """
    near: tuple[slice, ...] = (slice(None),) * 3
    if organ.any():
        margin = [math.ceil(_MARGIN_MM / size) for size in spacing]
        near = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(_box(organ), margin, strict=True))
    values = np.asarray(image[near], dtype=np.float64)  # an image may hold what float32 cannot
    values = values[np.isfinite(values)]
    black, white = np.quantile(values, (0.01, 0.99)) if values.size else (0.0, 1.0)
    return float(black), float(white)


def _profiles(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """How many voxels are set at each index of each axis."""
    return [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds all that is set."""
    ends = [np.flatnonzero(mass)[[0, -1]] for mass in _profiles(mask)]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)
