"""A case at a glance: three slices through its label, with the outline of every label value."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medmtl.report.cut import cuts, grey_window
from medmtl.report.drawing import draw_letters
from medmtl.report.orientation import VIEWS, on_page
from medmtl.report.style import PALETTE, style

_SIDE, _GAP, _DOTS_PER_INCH = 1.3, 0.04, 100  # the longer side of a volume, and the space between slices, in inches


def thumbnail(image: NDArray[Any], label: NDArray[Any] | None, spacing: Sequence[float]) -> bytes:
    """Draw axial, coronal and sagittal slice, side by side on black.

    Args:
        image: `(H, W, D)`, in RAS+ orientation.
        label: label values on the same grid; None without one.
        spacing: voxel size in mm along H, W and D.

    Returns:
        A PNG file. The slices go through the largest areas of the label, or the middle of the volume where nothing is
        labelled, see `cuts`. The outlines of the values above 0 have the colours of the palette, in their order.
    """
    organ = np.broadcast_to(np.False_, image.shape) if label is None else label > 0
    places = cuts(image, organ)
    grey = grey_window(image, organ, spacing)
    extents = {
        name: [size * spacing[axis] for axis, size in zip(view[1:], image[places[name]].shape, strict=True)]
        for name, view in VIEWS.items()
    }
    scale = _SIDE / max(size for extent in extents.values() for size in extent)
    width = scale * sum(across for across, _ in extents.values()) + 2 * _GAP
    height = scale * max(up for _, up in extents.values())
    left = 0.0
    with style(dark=True):
        figure = Figure(figsize=(width, height))
        for name, (across, up) in extents.items():
            size = scale * across, scale * up
            axes = figure.add_axes((left / width, 0.5 - size[1] / height / 2, size[0] / width, size[1] / height))
            left += size[0] + _GAP
            _draw(axes, image[places[name]], across, up, grey)
            draw_letters(axes, name, size=6)
            if label is not None:
                _outline(axes, label[places[name]], across, up)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="black", metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, plane: NDArray[Any], width: float, height: float, grey: tuple[float, float]) -> None:
    pixels = on_page(np.nan_to_num(np.asarray(plane, dtype=np.float64), posinf=0, neginf=0))
    extent = 0, width, 0, height
    axes.imshow(pixels, "gray", vmin=grey[0], vmax=grey[1], extent=extent, aspect="auto", interpolation="bilinear")
    axes.set_axis_off()


def _outline(axes: Axes, plane: NDArray[Any], width: float, height: float) -> None:
    if min(plane.shape) < 2:
        return
    pixels = on_page(plane)[::-1]
    across, up = ((np.arange(n) + 0.5) * mm / n for n, mm in zip(plane.shape, (width, height), strict=True))
    for value in (value for value in np.unique(plane) if value > 0):
        inside = pixels == value
        if not inside.all():
            colour = PALETTE[(int(value) - 1) % len(PALETTE)]
            axes.contour(across, up, inside.astype(np.float32), levels=[0.5], colors=[colour], linewidths=1.0)
