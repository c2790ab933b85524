"""Three orthogonal slices through the organ with the contours of truth and prediction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from medmtl.calibration.metrics.gap_map import local_gap
from medmtl.calibration.metrics.regions import band
from medmtl.report.style import INK, literal, style

Dashes = Literal["solid"] | tuple[float, tuple[float, ...]]

_OUTLINE = [withStroke(linewidth=3.6, foreground="black")]
_MARGIN_MM = 12.0
_WIDTH, _TALLEST, _PAD, _GAP, _FOOT = 5.2, 2.4, 0.06, 0.08, 0.47  # inches
_LINE, _BESIDE = 0.17, 0.34  # of the legend of classes: height of a line, width of an entry beside its name, inches


class Outline(NamedTuple):
    """How an outline is drawn.

    Attributes:
        label: in the legend.
        colour: hexadecimal.
        dashes: matplotlib's line style.
        width: in points.
    """

    label: str
    colour: str
    dashes: Dashes
    width: float

    @property
    def handle(self) -> Line2D:
        """Its entry in the legend."""
        return Line2D([], [], color=self.colour, linestyle=self.dashes, linewidth=self.width, label=self.label)


DASHED: Dashes = (0, (2.5, 1.5))
TRUTH = Outline("truth", "#FFD92F", "solid", 2.0)
PREDICTION = Outline("prediction", "#00C8F0", DASHED, 1.1)


# Of classes: Okabe and Ito's colours, safe for colour blindness, those first that stand out on a grey image.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")


class Plane(NamedTuple):
    """One slice, first array axis to the right and second upwards.

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
        grey: intensities to show as black and as white.
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
        """Cut a volume through the organ's centre (the predicted organ's, or the middle, if there is none).

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
        organ = organ if organ.any() else np.ones(image.shape, dtype=bool)
        centre = np.round([np.average(np.arange(len(mass)), weights=mass) for mass in _profiles(organ)]).astype(int)
        # Padding is left out, so that a small organ in a padded volume is not shown as a speck.
        shown = _box(organ | (np.asarray(image) != image.min()))
        near_organ = band(torch.from_numpy(np.array(label, dtype=bool)), spacing).numpy()
        planes = {}
        for name, fixed in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
            across, up = (axis for axis in range(3) if axis != fixed)
            gap = local_gap(probability, label, near_organ, spacing, fixed, int(centre[fixed]))
            window = tuple(int(centre[axis]) if axis == fixed else shown[axis] for axis in range(3))
            planes[name] = Plane(
                image=np.array(image[window], dtype=np.float32),
                label=np.array(label[window], dtype=bool),
                probability=np.array(probability[window], dtype=np.float32),
                spacing=(float(spacing[across]), float(spacing[up])),
                gap=gap[shown[across], shown[up]].copy(),
                parts=None if parts is None else (parts[0][window].astype(np.uint8), parts[1][window].astype(np.uint8)),
            )
        # Grey values are scaled to the surroundings of the organ: over a whole CT, air and bone leave it no contrast.
        margin = [math.ceil(_MARGIN_MM / size) for size in spacing]
        near = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(_box(organ), margin, strict=True))
        black, white = np.quantile(image[near], (0.01, 0.99))
        return cls(planes, (float(black), float(white)), dict(classes or {}))


def case_slices(slices: CaseSlices, title: str) -> Figure:
    """Axial, coronal and sagittal slice in their true proportions, with contours and a scale.

    Of several classes each has a colour of its own, the truth solid and the prediction dashed.

    Args:
        slices: the planes of the case.
        title: written above, for example the case, its Dice and its rank.
    """
    colours = dict(zip(slices.classes, cycle(CLASS_COLOURS), strict=False))
    with style():
        letters = max((TextPath((0, 0), literal(name), size=8).get_extents().width for name in colours), default=0.0)
        beside = max(1, int(_WIDTH / (_BESIDE + letters / 72)))
        figure, panels, scale = lay_out(slices, title, more_foot=math.ceil(len(colours) / beside) * _LINE)
        for axes, plane in panels:
            if plane.parts is None:
                draw_outlines(axes, plane, TRUTH, PREDICTION)
                continue
            for name, numbers in slices.classes.items():
                for parts, look in zip(plane.parts, (TRUTH, PREDICTION), strict=True):
                    fine = look._replace(colour=colours[name], width=0.7 * look.width)  # neighbours share outlines
                    _outline(axes, plane, np.isin(parts, numbers), fine)
        if colours:
            add_legend(figure, *(look._replace(colour=INK).handle for look in (TRUTH, PREDICTION)), scale)
            patches = [Patch(facecolor=shade, edgecolor=INK, label=literal(name)) for name, shade in colours.items()]
            figure.legend(
                handles=patches,
                ncols=min(len(patches), beside),
                fontsize=8,
                handlelength=1.0,
                columnspacing=1.0,
                loc="lower center",
                bbox_to_anchor=(0.5, 0.22 / figure.get_figheight()),
                borderaxespad=0.1,
            )
        else:
            add_legend(figure, TRUTH.handle, PREDICTION.handle, scale)
    return figure


def lay_out(slices: CaseSlices, title: str, more_foot: float = 0.0) -> tuple[Figure, list[tuple[Axes, Plane]], Line2D]:
    """The images of the planes side by side, with a title above and room for a legend at the foot.

    Args:
        slices: the planes of the case.
        title: written above.
        more_foot: room between planes and legend, inches.

    Returns:
        The figure, the axes of each plane in mm, and the legend's entry of the scale.
    """
    sizes = [np.multiply(plane.image.shape, plane.spacing) for plane in slices.planes.values()]
    widths, heights = zip(*sizes, strict=True)
    # One scale for all planes; layout by hand, because the engines leave gaps around axes of fixed proportions.
    scale = min((_WIDTH - 2 * _PAD - 2 * _GAP) / sum(widths), _TALLEST / max(heights))
    foot = _FOOT + more_foot
    height = foot + max(heights) * scale + 0.32
    left = (_WIDTH - sum(widths) * scale - 2 * _GAP) / 2
    bar = _round_length(min(widths))
    figure = Figure(figsize=(_WIDTH, height))
    size = min(9.0, 9.0 * 70 / max(len(title), 1))
    figure.text(0.5, 1 - 0.08 / height, literal(title), ha="center", va="top", fontsize=size)
    panels = []
    for name, plane, (across, up) in zip(slices.planes, slices.planes.values(), sizes, strict=True):
        place = (left / _WIDTH, foot / height, across * scale / _WIDTH, up * scale / height)
        axes = figure.add_axes(place)
        _draw_image(axes, plane, slices.grey, name, bar)
        panels.append((axes, plane))
        left += across * scale + _GAP
    return figure, panels, Line2D([], [], color="white", linewidth=2, path_effects=_OUTLINE, label=f"{bar:g} mm")


def draw_outlines(axes: Axes, plane: Plane, truth: Outline, prediction: Outline) -> None:
    """Draw where the label ends, and where the probability passes one half.

    Args:
        axes: of the plane, from `lay_out`.
        plane: the plane.
        truth: the look of the label's outline.
        prediction: the look of the prediction's.
    """
    _outline(axes, plane, plane.label, truth)
    _outline(axes, plane, plane.probability, prediction)


def _outline(axes: Axes, plane: Plane, mask: NDArray[np.generic], look: Outline) -> None:
    values = mask.astype(np.float32)
    if min(values.shape) > 1 and values.max() >= 0.5 > values.min():
        centres = [(np.arange(n) + 0.5) * size for n, size in zip(plane.image.shape, plane.spacing, strict=True)]
        axes.contour(
            *centres, values.T, levels=[0.5], colors=[look.colour], linestyles=[look.dashes], linewidths=look.width
        )


def add_legend(figure: Figure, *handles: Line2D) -> None:
    """A legend in one line at the foot."""
    figure.legend(
        handles=handles, ncols=len(handles), fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 0), borderaxespad=0.1
    )


def extent_of(plane: Plane) -> tuple[float, float, float, float]:
    """Left, right, lower and upper edge of the plane, mm."""
    (columns, rows), (across, up) = plane.image.shape, plane.spacing
    return 0.0, columns * across, 0.0, rows * up


def _draw_image(axes: Axes, plane: Plane, grey: tuple[float, float], name: str, bar: float) -> None:
    extent = extent_of(plane)
    axes.imshow(plane.image.T, cmap="gray", vmin=grey[0], vmax=grey[1], origin="lower", extent=extent)
    start, level = 0.06 * extent[1], 0.06 * extent[3]
    # Above whatever is drawn over the image.
    axes.plot([start, start + bar], [level, level], color="white", linewidth=2, path_effects=_OUTLINE, zorder=5)
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
