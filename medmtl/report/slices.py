"""The slices of a volume that pages show: where it is cut, and between which intensities it is grey."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medmtl.calibration.metrics.gap_map import local_gap
from medmtl.calibration.metrics.regions import band
from medmtl.report.orientation import VIEWS

_MARGIN_MM = 12.0


class Plane(NamedTuple):
    """One slice of a volume in RAS+ orientation, first array axis across the page and second upwards.

    Attributes:
        image: intensities, shape `(width, height)`.
        label: the truth, bool, same shape.
        probability: of the foreground, in [0, 1], same shape.
        spacing: pixel size in mm along width and height.
        gap: probability minus observed frequency of organ around each pixel, see `local_gap`, same shape; NaN farther
            than 5 mm from the organ.
        parts: truth and prediction as numbers of parts, where there are several classes, same shape each.
    """

    image: NDArray[np.float32]
    label: NDArray[np.bool_]
    probability: NDArray[np.float32]
    spacing: tuple[float, float]
    gap: NDArray[np.float32]
    parts: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None


@dataclass(frozen=True)
class CaseSlices:
    """The parts of a volume that are shown: three planes instead of all voxels.

    Attributes:
        planes: "axial", "coronal" and "sagittal" -> plane.
        grey: intensities to show as black and as white, the same for all slices of the volume.
        classes: class -> the numbers of its parts, where there are several.
    """

    planes: dict[str, Plane]
    grey: tuple[float, float]
    classes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def cut(
        cls,
        image: NDArray[np.floating],
        label: NDArray[np.bool_] | None,
        probability: NDArray[np.floating],
        spacing: Sequence[float],
        parts: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
        classes: Mapping[str, Sequence[int]] | None = None,
    ) -> "CaseSlices":
        """Cut a volume where the organ is largest, see `cuts`: the labelled one, or the predicted one without a label.

        Args:
            image: `(H, W, D)`, in RAS+ orientation.
            label: the truth, `(H, W, D)`; None where it is unknown, which counts as no organ.
            probability: of the foreground, `(H, W, D)`, in [0, 1].
            spacing: voxel size in mm along H, W and D.
            parts: truth and prediction as numbers of parts, where there are several classes, `(H, W, D)` each.
            classes: class -> the numbers of its parts.
        """
        label = np.broadcast_to(np.False_, image.shape) if label is None else label
        organ = np.asarray(label, dtype=bool)
        organ = organ if organ.any() else np.asarray(probability) >= 0.5
        near_organ = band(torch.from_numpy(np.array(label, dtype=bool)), spacing).numpy()
        planes = {}
        for name, cut in cuts(image, organ).items():
            fixed, across, up = VIEWS[name]
            gap = local_gap(probability, label, near_organ, spacing, fixed, cut[fixed])
            planes[name] = Plane(
                image=np.array(image[cut], dtype=np.float32),
                label=np.array(label[cut], dtype=bool),
                probability=np.array(probability[cut], dtype=np.float32),
                spacing=(float(spacing[across]), float(spacing[up])),
                gap=gap[cut[across], cut[up]].copy(),
                parts=None if parts is None else (parts[0][cut].astype(np.uint8), parts[1][cut].astype(np.uint8)),
            )
        return cls(planes, grey_window(image, organ, spacing), dict(classes or {}))


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
    values = np.asarray(image[near], dtype=np.float32)
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
