"""The pictures of a predicted image: three slices with the outline of its mask, and a strip to leaf through."""

import math
from collections.abc import Collection, Mapping
from itertools import cycle, product
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from monai.data import MetaTensor
from numpy.typing import NDArray

from medmtl.report.cut import grey_window
from medmtl.report.drawing import add_legend, draw_outlines, lay_out
from medmtl.report.orientation import to_ras
from medmtl.report.outline import CLASS_COLOURS, DASHED, TRUTH, Outline
from medmtl.report.slices import CaseSlices
from medmtl.report.stack import SIDE, SLICES, Stack
from medmtl.report.style import literal, style, to_png

MASK = Outline("mask", "#00C8F0", "solid", 1.3)
LEGEND, LINE = 80, 0.19  # letters in a line of the legend, and its height, inches


def draw_case(
    name: str,
    image: MetaTensor,
    mask: NDArray[np.unsignedinteger] | None,
    segments: Mapping[str, Collection[int]] = MappingProxyType({}),
) -> bytes:
    """The PNG file of `case_figure`."""
    return to_png(case_figure(name, image, mask, segments))


def case_figure(
    name: str,
    image: MetaTensor,
    mask: NDArray[np.unsignedinteger] | None,
    segments: Mapping[str, Collection[int]] = MappingProxyType({}),
) -> Figure:
    """Three slices through the largest areas of a mask, with its outline or one for each class in a colour of its own.

    Args:
        name: written above.
        image: `(C, H, W, D)`, of which the first channel is drawn.
        mask: `(H, W, D)`, label values, 0 outside; None to show the middle of the image alone.
        segments: class -> its label values in the mask; with fewer than two the mask has one outline.
    """
    affine, voxels = image.affine.cpu().numpy(), image.as_tensor()[0].cpu().numpy()
    outlined = np.broadcast_to(np.uint8(0), voxels.shape) if mask is None else mask
    (turned, turned_mask), spacing = to_ras(affine, voxels, outlined)
    # Label values take the place of the probability, of which a cut asks only where it is at least one half.
    slices = CaseSlices.cut(turned, None, turned_mask, spacing)
    looks = {MASK: None} if len(segments) < 2 else _looks(segments)
    shown = [] if mask is None else [look.handle for look in looks]
    longest = max(len(look.label) for look in looks)
    columns = max(1, min(len(shown) + 1, LEGEND // (longest + 8)))
    lines = math.ceil((len(shown) + 1) / columns)
    with style(dark=True):
        figure, panels, scale = lay_out(slices, name, more_foot=(lines - 1) * LINE)
        for axes, plane in panels:
            for look, values in looks.items():
                inside = plane.probability > 0 if values is None else np.isin(plane.probability, list(values))
                draw_outlines(axes, plane._replace(probability=inside.astype(np.float32)), TRUTH, look)
        if lines == 1:
            add_legend(figure, *shown, scale)
        else:
            place: dict[str, Any] = {"bbox_to_anchor": (0.5, 0), "borderaxespad": 0.1, "ncols": columns}
            figure.legend(handles=[*shown, scale], loc="lower center", fontsize=8, **place)
    return figure


def slices_of(
    image: MetaTensor,
    mask: NDArray[np.unsignedinteger] | None,
    probability: NDArray[np.floating] | None,
    side: int = SIDE,
    slices: int = SLICES,
) -> Stack:
    """The same image as a strip of slices.

    Args:
        image: `(C, H, W, D)`, of which the first channel is shown.
        mask: `(H, W, D)`, 0 outside; None to show the image alone.
        probability: of the organ, `(H, W, D)`, in [0, 1].
        side: the most pixels along a side of a slice.
        slices: the most slices.
    """
    voxels = image.as_tensor()[0].cpu().numpy()
    volumes = [voxels, *(each for each in (mask, probability) if each is not None)]
    (turned, *over), spacing = to_ras(image.affine.cpu().numpy(), *volumes)
    inside = np.broadcast_to(np.False_, turned.shape) if mask is None else over[0] > 0
    window = grey_window(turned, inside, spacing)
    shown = None if mask is None else inside
    likely = None if probability is None else over[-1]
    return Stack.of(turned, spacing, window, shown, None, likely, side, slices)


def _looks(segments: Mapping[str, Collection[int]]) -> dict[Outline, Collection[int]]:
    """How each class is outlined -> its label values."""
    looks = product((MASK.dashes, DASHED), CLASS_COLOURS)
    return {
        MASK._replace(label=literal(name), colour=colour, dashes=dashes): values
        for (name, values), (dashes, colour) in zip(segments.items(), cycle(looks), strict=False)
    }
