"""A case at a glance: three slices through its label, with the outline of every label value."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medmtl.report.style import PALETTE, style

_SIDE, _GAP, _DOTS_PER_INCH = 1.3, 0.04, 100  # the longer side of a volume, and the space between slices, in inches
_PLANES = ((2, 0, 1), (1, 0, 2), (0, 1, 2))  # the axis that is fixed, the one to the right, the one upwards
_OTHERS = ((1, 2), (0, 2), (0, 1))  # the other axes of each


def thumbnail(image: NDArray[Any], label: NDArray[Any] | None, spacing: Sequence[float]) -> bytes:
    """Draw axial, coronal and sagittal slice, side by side on black.

    Args:
        image: `(H, W, D)`, in RAS+ orientation.
        label: label values on the same grid; None without one.
        spacing: voxel size in mm along H, W and D.

    Returns:
        A PNG file. The slices go through the centre of the label, or of the volume where nothing is labelled; empty
        margins are left out. The outlines of the values above 0 have the colours of the palette, in their order.
    """
    box = _content(image, label)
    image, label = image[box], None if label is None else label[box]
    extent = np.multiply(image.shape, spacing)
    scale = _SIDE / extent.max()
    width = scale * sum(extent[across] for _, across, _ in _PLANES) + 2 * _GAP
    height = scale * max(extent[up] for _, _, up in _PLANES)
    centre, left = _centre(image, label), 0.0
    with style():
        figure = Figure(figsize=(width, height))
        for fixed, across, up in _PLANES:
            size = scale * extent[across], scale * extent[up]
            place = left / width, 0.5 - size[1] / height / 2, size[0] / width, size[1] / height
            axes = figure.add_axes(place)
            left += size[0] + _GAP
            cut = tuple(centre[axis] if axis == fixed else slice(None) for axis in range(3))
            _draw(axes, image[cut], extent[across], extent[up])
            if label is not None:
                _outline(axes, label[cut], extent[across], extent[up])
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="black", metadata={"Software": None})
    return buffer.getvalue()


def _content(image: NDArray[Any], label: NDArray[Any] | None) -> tuple[slice, ...]:
    """The smallest box that holds all that is labelled or above the image's lowest value."""
    shown = image > image.min() if label is None else (image > image.min()) | (label > 0)
    if not shown.any():
        return (slice(None),) * 3
    ends = [np.flatnonzero(shown.any(axis=others))[[0, -1]] for others in _OTHERS]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _centre(image: NDArray[Any], label: NDArray[Any] | None) -> list[int]:
    """The index of the label's centre of mass; the middle of the volume where nothing is labelled."""
    if label is None or not (label > 0).any():
        return [size // 2 for size in image.shape]
    profiles = [(label > 0).sum(axis=others) for others in _OTHERS]
    return [round(np.average(np.arange(len(profile)), weights=profile)) for profile in profiles]


def _draw(axes: Axes, plane: NDArray[Any], width: float, height: float) -> None:
    grey = np.nan_to_num(np.asarray(plane, dtype=np.float32), posinf=0, neginf=0)
    black, white = np.quantile(grey, (0.01, 0.99))
    extent = 0, width, 0, height
    axes.imshow(
        grey.T, "gray", vmin=black, vmax=white, origin="lower", extent=extent, aspect="auto", interpolation="bilinear"
    )
    axes.set_axis_off()


def _outline(axes: Axes, plane: NDArray[Any], width: float, height: float) -> None:
    if min(plane.shape) < 2:
        return
    across, up = ((np.arange(size) + 0.5) * mm / size for size, mm in zip(plane.shape, (width, height), strict=True))
    values = [value for value in np.unique(plane) if value > 0]
    for value in values:
        inside = plane == value
        if not inside.all():
            colour = PALETTE[(int(value) - 1) % len(PALETTE)]
            axes.contour(across, up, inside.T.astype(np.float32), levels=[0.5], colors=[colour], linewidths=1.0)
