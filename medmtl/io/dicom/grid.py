"""Grid: the frames of a series as volumes, and where their voxels lie."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.dicom.frames import Frame
from medmtl.io.stored import MAX_SHEAR

SAME_PLACE = 1e-3  # mm
PLACE_TOLERANCE = 0.1  # of the slice spacing, between a slice and its place on an even grid: headers are rounded
HOLE = 1.5  # times the gaps around it: slices are missing there
STEP = 3  # equal gaps in a row are a spacing that the scanner chose
MAX_FINER = 4  # times as many slices as there are: more would be made up


class Grid(NamedTuple):
    """The grid of a series' volumes.

    Attributes:
        depths: of each slice along the normal, from the first one, mm, ascending.
        uneven: whether slices are not the same distance apart.
        step: mm between slices, where they are uneven the finest that the scanner chose.
        tilt: mm that a slice lies further along rows and columns for a mm of depth, as a tilted gantry leaves it.
        affine: `(4, 4)` from voxel indices to mm, left-posterior-superior, of slices evenly spaced along a line.
    """

    depths: NDArray[np.float64]
    uneven: bool
    step: float
    tilt: NDArray[np.float64]
    affine: NDArray[np.float64]


def volumes_of(where: str, frames: Sequence[Frame]) -> list[list[Frame]]:
    """Divide frames into volumes, each sorted along the normal of rows and columns.

    Where several frames lie at one place, the first of each place are the first volume, the second ones the second.

    Args:
        where: the series, for messages.
        frames: in the order in which they were made.

    Raises:
        DataError: frames cannot be stacked: they have several sizes, orientations or pixel spacings, there is one
            place only, or places have different numbers of frames.
    """
    if len(frames) == 1:
        raise DataError(f"{where} is a single slice of a series", fix="point to the folder that holds all of them")
    first = frames[0]
    sizes = {one.shape for one in frames}
    if len(sizes) > 1:
        mixed = ", ".join(f"{columns} x {rows}" for columns, rows in sorted(sizes))
        raise DataError(f"{where} mixes slices of several sizes ({mixed})", fix="keep those of one scan")
    for name, what in (("across", "orientations"), ("down", "orientations"), ("spacing", "pixel spacings")):
        apart = max(np.abs(np.subtract(getattr(one, name), getattr(first, name))).max() for one in frames)
        if not apart < 1e-3:
            raise DataError(f"{where} mixes slices of several {what}", fix="keep those of one scan")
    depth = np.array([one.position for one in frames]) @ np.cross(first.across, first.down)
    order = np.argsort(depth, kind="stable")
    gaps = np.diff(depth[order])
    if not np.isfinite(gaps).all() or gaps.max() < SAME_PLACE:
        raise DataError(f"{where} has {len(frames)} slices at one place", fix="use a series of several places")
    usual = float(np.median(gaps[gaps > SAME_PLACE]))
    places = np.split(order, np.flatnonzero(gaps > PLACE_TOLERANCE * usual) + 1)
    counts = {len(place) for place in places}
    if len(counts) > 1:
        doubled = sum(len(place) - 1 for place in places)
        raise DataError(
            f"{where} has slices at the place of another ({doubled} of {len(frames)}), {min(counts)} to {max(counts)} "
            "at a place (several echoes or time points, one of them incomplete?)",
            fix="keep one volume of the series",
        )
    return [[frames[place[number]] for place in map(sorted, places)] for number in range(counts.pop())]


def grid_of(where: str, frames: Sequence[Frame]) -> Grid:
    """The grid of a volume.

    Args:
        where: the series, for messages.
        frames: of the volume, sorted along the normal.

    Raises:
        DataError: slices are missing, or not stacked along a line.
    """
    first = frames[0]
    axes = np.array([first.across, first.down, np.cross(first.across, first.down)])
    along = (np.array([one.position for one in frames]) - first.position) @ axes.T
    depths, aside = along[:, 2], along[:, :2]
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    finest = _finest(where, frames, gaps)
    tilt = aside[-1] / depths[-1]
    if np.linalg.norm(aside - depths[:, None] * tilt, axis=1).max() > PLACE_TOLERANCE * usual:
        raise DataError(f"{where} has slices that are not stacked along a line", fix="export the series again")
    even = np.linspace(0, depths[-1], len(depths))
    uneven = bool(np.abs(depths - even).max() > PLACE_TOLERANCE * usual)
    step = finest if uneven else float(even[1])
    if depths[-1] / step > MAX_FINER * len(frames):
        raise DataError(
            f"{where} has slices {gaps.min():.2f} to {gaps.max():.2f} mm apart", fix="resample it to an even spacing"
        )
    affine = np.eye(4)
    affine[:3] = np.column_stack(
        [
            first.across * first.spacing[0],
            first.down * first.spacing[1],
            (frames[-1].position - first.position) / (len(frames) - 1),
            first.position,
        ]
    )
    straight = np.linalg.norm(tilt) / np.hypot(1, np.linalg.norm(tilt)) <= MAX_SHEAR
    return Grid(depths, uneven, step, np.zeros(2) if straight else tilt, affine)


def _finest(where: str, frames: Sequence[Frame], gaps: NDArray[np.float64]) -> float:
    """The smallest spacing that the scanner chose, where it chose several.

    Raises:
        DataError: slices are missing, for a gap, or a pair of gaps, is far wider than those around it.
    """
    starts = np.flatnonzero(np.abs(np.diff(gaps)) > PLACE_TOLERANCE * gaps[1:]) + 1
    runs = np.split(np.arange(len(gaps)), starts)
    widths = [float(np.median(gaps[run])) for run in runs]
    chosen = [width for run, width in zip(runs, widths, strict=True) if len(run) >= STEP]
    usual = min(chosen, default=float(np.median(gaps)))
    holes: list[int] = []
    missing = 0
    for number, (run, width) in enumerate(zip(runs, widths, strict=True)):
        around = max([usual, *widths[max(number - 1, 0) : number], *widths[number + 1 : number + 2]])
        if len(run) < STEP and width > HOLE * around:
            missing += sum(max(round(gap / around) - 1, 1) for gap in gaps[run])
            holes += run.tolist()
    if missing:
        widest = max(holes, key=lambda gap: float(gaps[gap]))
        raise DataError(
            f"{where} lacks {missing} slice{'s' * (missing > 1)}: there are {gaps[widest]:.2f} mm between two (usually "
            f"{np.median(gaps):.2f} mm), after {frames[widest].file}",
            fix="export the series again",
        )
    return min(chosen, default=float(gaps.min()))
