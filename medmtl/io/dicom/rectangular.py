"""Rectangular: slices of a tilted gantry, or of several spacings, interpolated on a grid of right angles."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmtl.io.dicom.grid import Grid

Slices = Callable[[int], NDArray[Any]]


class Rectangular(NamedTuple):
    """A volume on a grid of right angles.

    Attributes:
        affine: `(4, 4)` from voxel indices to mm, left-posterior-superior.
        shape: columns, rows and slices.
        slices: number of a slice -> `(columns, rows)`.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    slices: Slices


def rectangular(grid: Grid, shape: tuple[int, int], slices: Slices) -> Rectangular:
    """Interpolate the slices of a volume on a grid of right angles and even steps.

    A slice of a tilted gantry is moved within its plane to where it was taken, on a picture that is enlarged to hold
    all of them, with the slice's lowest value around it. Slices of several spacings are interpolated at the finest.
    Both linearly, as dcm2niix does. The pixels of the first slice stay where they are.

    Args:
        grid: of the volume.
        shape: columns and rows of a slice.
        slices: number of a slice -> `(columns, rows)`.
    """
    spacing = np.linalg.norm(grid.affine[:3, :2], axis=0)
    shifts = grid.depths[:, None] * grid.tilt / spacing  # pixels
    low, high = np.floor(shifts.min(0)).astype(int), np.ceil(shifts.max(0)).astype(int)
    size = (shape[0] + int(high[0] - low[0]), shape[1] + int(high[1] - low[1]))
    depths = np.arange(int(grid.depths[-1] / grid.step + 1e-3) + 1) * grid.step

    @lru_cache(maxsize=2)
    def moved(number: int) -> NDArray[Any]:
        return _moved(slices(number), shifts[number] - low, size)

    def interpolated(number: int) -> NDArray[Any]:
        if not grid.uneven:
            return moved(number)
        depth = min(depths[number], grid.depths[-1])
        after = int(np.searchsorted(grid.depths, depth))
        if after == 0 or grid.depths[after] == depth:
            return moved(after)
        below, above = grid.depths[after - 1 : after + 1]
        share = (depth - below) / (above - below)
        return (1 - share) * moved(after - 1) + share * moved(after)

    affine = grid.affine.copy()
    affine[:3, 2] = np.cross(*(affine[:3, :2] / spacing).T) * grid.step
    affine[:3, 3] += affine[:3, :2] @ low
    return Rectangular(affine, (*size, len(depths)), interpolated)


def _moved(values: NDArray[Any], shift: NDArray[np.float64], size: tuple[int, int]) -> NDArray[Any]:
    """A picture moved by pixels along both axes, on a larger one."""
    if values.shape == size:
        return values
    for axis in (0, 1):
        whole = int(np.floor(shift[axis]))
        part = shift[axis] - whole
        room = size[axis] - values.shape[axis] - whole
        around = [(0, 0), (0, 0)]
        around[axis] = (whole, room)
        placed = np.pad(values, around, constant_values=values.min())
        values = placed if part == 0 else (1 - part) * placed + part * np.roll(placed, 1, axis)
    return values
