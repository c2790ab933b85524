"""Three orthogonal slices through the organ with the contours of truth and prediction."""

import math
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from medmtl.report.orientation import letters_of, mirrored
from medmtl.report.outline import CLASS_COLOURS, PREDICTION, TRUTH, Outline
from medmtl.report.slices import CaseSlices, Plane
from medmtl.report.style import DARK, literal, style

_OUTLINE = [withStroke(linewidth=3.6, foreground="black")]
_HALO = [withStroke(linewidth=1.6, foreground="black")]
_WIDTH, _TALLEST, _PAD, _GAP, _FOOT = 5.2, 2.4, 0.06, 0.08, 0.47  # inches
_LINE, _BESIDE = 0.17, 0.34  # of the legend of classes: height of a line, width of an entry beside its name, inches


def case_slices(slices: CaseSlices, title: str) -> Figure:
    """Axial, coronal and sagittal slice in their true proportions, with contours and a scale.

    Of several classes each has a colour of its own, the truth solid and the prediction dashed.

    Args:
        slices: the planes of the case.
        title: written above, for example the case, its Dice and its rank.
    """
    colours = dict(zip(slices.classes, cycle(CLASS_COLOURS), strict=False))
    with style(dark=True):
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
            add_legend(figure, *(look._replace(colour=DARK.ink).handle for look in (TRUTH, PREDICTION)), scale)
            patches = [
                Patch(facecolor=shade, edgecolor=DARK.ink, label=literal(name)) for name, shade in colours.items()
            ]
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
            known = any(plane.label.any() for plane in slices.planes.values())
            add_legend(figure, *([TRUTH.handle] if known else []), PREDICTION.handle, scale)
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
    start, level, length = 0.06, 0.06, bar / extent[1]
    # Above whatever is drawn over the image.
    look: dict[str, Any] = {"transform": axes.transAxes, "color": "white", "path_effects": _OUTLINE, "zorder": 5}
    axes.plot([start, start + length], [level, level], linewidth=2, **look)
    axes.set(xlim=extent[1::-1] if mirrored() else extent[:2], ylim=extent[2:], xticks=(), yticks=())
    draw_letters(axes, name)
    axes.set_xlabel(name, fontsize=8, labelpad=3)
    axes.spines[:].set_visible(False)


def draw_letters(axes: Axes, name: str, size: float = 7.5) -> None:
    """The sides of the patient at the edges of a slice; under the lower one lies the scale.

    Args:
        axes: of the slice.
        name: of the view, "axial", "coronal" or "sagittal".
        size: of the letters, points.
    """
    places = [(0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center")]
    places += [(0.5, 0.015, "center", "bottom"), (0.5, 0.98, "center", "top")]
    for letter, (x, y, across, up) in zip(letters_of(name), places, strict=True):
        look: dict[str, Any] = {"fontsize": size, "fontweight": "bold", "color": "white", "zorder": 6}
        axes.text(x, y, letter, transform=axes.transAxes, ha=across, va=up, path_effects=_HALO, **look)


def _round_length(width: float) -> float:
    """A length of 1, 2 or 5 times a power of ten, a fifth to a half of the width."""
    power = 10.0 ** math.floor(math.log10(width / 2))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= width / 2)
