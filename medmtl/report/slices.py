"""Three orthogonal slices through the organ with the contours of truth and prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from medmtl.report.theme import literal, style

TRUTH, PREDICTION = "#FFD92F", "#00C8F0"
_DASHES = (0, (2.5, 1.5))
_OUTLINE = [withStroke(linewidth=3.6, foreground="black")]
_MARGIN_MM = 12.0
_WIDTH, _TALLEST, _PAD, _GAP, _FOOT = 5.2, 2.4, 0.06, 0.08, 0.47  # inches


class Plane(NamedTuple):
    """One slice, first array axis to the right and second upwards.

    Attributes:
        image: intensities, shape `(width, height)`.
        label: the truth, bool, same shape.
        probability: of the foreground, in [0, 1], same shape.
        spacing: pixel size in mm along width and height.
    """

    image: NDArray[np.float32]
    label: NDArray[np.bool_]
    probability: NDArray[np.float32]
    spacing: tuple[float, float]


@dataclass(frozen=True)
class CaseSlices:
    """What is kept of a volume to show it: three planes instead of the voxels.

    Attributes:
        planes: "axial", "coronal" and "sagittal" -> plane.
        grey: intensities to show as black and as white.
    """

    planes: dict[str, Plane]
    grey: tuple[float, float]

    @classmethod
    def cut(
        cls,
        image: NDArray[np.floating],
        label: NDArray[np.bool_],
        probability: NDArray[np.floating],
        spacing: Sequence[float],
    ) -> "CaseSlices":
        """Cut a volume through the organ's centre (the predicted organ's, or the middle, if there is none).

        Args:
            image: `(H, W, D)`, in RAS+ orientation.
            label: the truth, `(H, W, D)`.
            probability: of the foreground, `(H, W, D)`, in [0, 1].
            spacing: voxel size in mm along H, W and D.
        """
        organ = np.asarray(label, dtype=bool)
        organ = organ if organ.any() else np.asarray(probability) >= 0.5
        organ = organ if organ.any() else np.ones(image.shape, dtype=bool)
        centre = np.round([np.average(np.arange(len(mass)), weights=mass) for mass in _profiles(organ)]).astype(int)
        # Padding is left out, so that a small organ in a padded volume is not shown as a speck.
        shown = _box(organ | (np.asarray(image) != image.min()))
        planes = {}
        for name, fixed in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
            across, up = (axis for axis in range(3) if axis != fixed)
            window = tuple(int(centre[axis]) if axis == fixed else shown[axis] for axis in range(3))
            planes[name] = Plane(
                image=np.array(image[window], dtype=np.float32),
                label=np.array(label[window], dtype=bool),
                probability=np.array(probability[window], dtype=np.float32),
                spacing=(float(spacing[across]), float(spacing[up])),
            )
        # The greys are set by what surrounds the organ: over a whole CT, air and bone would leave it without contrast.
        margin = [math.ceil(_MARGIN_MM / size) for size in spacing]
        near = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(_box(organ), margin, strict=True))
        black, white = np.quantile(image[near], (0.01, 0.99))
        return cls(planes, (float(black), float(white)))


def case_slices(slices: CaseSlices, title: str) -> Figure:
    """Axial, coronal and sagittal slice in their true proportions, with contours and a scale.

    Args:
        slices: the planes of the case.
        title: written above, for example the case, its Dice and its rank.
    """
    sizes = [np.multiply(plane.image.shape, plane.spacing) for plane in slices.planes.values()]
    widths, heights = zip(*sizes, strict=True)
    # One scale for all planes; layout by hand, because the engines leave gaps around axes of fixed proportions.
    scale = min((_WIDTH - 2 * _PAD - 2 * _GAP) / sum(widths), _TALLEST / max(heights))
    height = _FOOT + max(heights) * scale + 0.32
    left = (_WIDTH - sum(widths) * scale - 2 * _GAP) / 2
    bar = _round_length(min(widths))
    with style():
        figure = Figure(figsize=(_WIDTH, height))
        size = min(9.0, 9.0 * 70 / max(len(title), 1))
        figure.text(0.5, 1 - 0.08 / height, literal(title), ha="center", va="top", fontsize=size)
        for name, plane, (across, up) in zip(slices.planes, slices.planes.values(), sizes, strict=True):
            place = (left / _WIDTH, _FOOT / height, across * scale / _WIDTH, up * scale / height)
            _draw(figure.add_axes(place), plane, slices.grey, name, bar)
            left += across * scale + _GAP
        figure.legend(
            handles=[
                Line2D([], [], color=TRUTH, linewidth=2, label="truth"),
                Line2D([], [], color=PREDICTION, linewidth=1.4, linestyle=_DASHES, label="prediction"),
                Line2D([], [], color="white", linewidth=2, path_effects=_OUTLINE, label=f"{bar:g} mm"),
            ],
            loc="lower center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=0.1,
            ncols=3,
            fontsize=8,
        )
    return figure


def _draw(axes: Axes, plane: Plane, grey: tuple[float, float], name: str, bar: float) -> None:
    (columns, rows), (across, up) = plane.image.shape, plane.spacing
    extent = (0.0, columns * across, 0.0, rows * up)
    axes.imshow(plane.image.T, cmap="gray", vmin=grey[0], vmax=grey[1], origin="lower", extent=extent)
    centres = (np.arange(columns) + 0.5) * across, (np.arange(rows) + 0.5) * up
    for mask, colour, dashes, width in (
        (plane.label.astype(np.float32), TRUTH, "solid", 2.0),
        (plane.probability, PREDICTION, _DASHES, 1.1),
    ):
        if min(mask.shape) > 1 and mask.max() >= 0.5 > mask.min():
            axes.contour(*centres, mask.T, levels=[0.5], colors=[colour], linestyles=[dashes], linewidths=width)
    start, level = 0.06 * extent[1], 0.06 * extent[3]
    axes.plot([start, start + bar], [level, level], color="white", linewidth=2, path_effects=_OUTLINE)
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=(), yticks=())
    axes.set_xlabel(name, fontsize=8, labelpad=3)
    axes.spines[:].set_visible(False)


def _profiles(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """How many voxels are set at each index of each axis."""
    return [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds all that is set."""
    ends = [np.flatnonzero(mass)[[0, -1]] for mass in _profiles(mask)]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _round_length(width: float) -> float:
    """A length of 1, 2 or 5 times a power of ten, a fifth to a half of the width."""
    power = 10.0 ** math.floor(math.log10(width / 2))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= width / 2)
