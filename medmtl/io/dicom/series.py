"""Series: a DICOM series as volumes."""

from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.dicom.files import headers, pixels, whole
from medmtl.io.dicom.frames import frames_of
from medmtl.io.dicom.grid import Grid, grid_of, volumes_of
from medmtl.io.dicom.rectangular import Slices, rectangular
from medmtl.io.stored import LPS_TO_RAS, Stored, check_shape

if TYPE_CHECKING:
    from pydicom import Dataset

MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PET"}
SAME_GRID_MM = 1e-2  # between the affines of volumes
SUV = "GML"  # unit of PET in standardised uptake values, g/ml


def open_dicom(path: Path, series: str | None) -> Stored:
    """Open a series as volumes of one grid.

    Args:
        path: the folder of the series, or a file that holds all its slices (enhanced, multi-frame).
        series: its unique identifier; None for the only one of the folder.

    Returns:
        The volumes, axes columns, rows and slices along the normal, in the unit that each slice's rescaling gives;
        several where frames share their places, such as echoes and time points. Its `header` is, for each volume, the
        data sets in the order of the slices, without their pixels.

    Raises:
        DataError: pydicom is not installed; a file is broken or compressed in a way that cannot be read; slices are
            missing, or of several sizes or orientations; or they lack their place in the patient.
    """
    files = headers(path, series)
    where = str(path) if path.is_file() else f"{path} (series {files[0][1].get('SeriesNumber') or series})"
    volumes = volumes_of(where, frames_of(where, files))
    grids = [grid_of(where, frames) for frames in volumes]
    if not all(np.allclose(one.affine, grids[0].affine, atol=SAME_GRID_MM) for one in grids):
        raise DataError(f"{where} has volumes on several grids", fix="keep one volume of the series")
    grid, shape = grids[0], (*volumes[0][0].shape, len(volumes[0]))
    check_shape(where, shape)
    image = lru_cache(maxsize=1)(whole)

    @lru_cache(maxsize=1)
    def picture(file: Path, index: int, rescale: tuple[float, float] | None) -> NDArray[Any]:
        return pixels(file, image(file), index, rescale)

    def stored(volume: int, number: int) -> NDArray[Any]:
        frame = volumes[volume][number]
        (left, top), (columns, rows) = frame.corner, frame.shape
        return picture(frame.file, frame.picture, frame.rescale)[top : top + rows, left : left + columns].T

    slices: list[Slices] = [partial(stored, volume) for volume in range(len(volumes))]
    affine = grid.affine
    if grid.uneven or grid.tilt.any():
        made = [rectangular(grid, shape[:2], each) for each in slices]
        affine, shape, slices = made[0].affine, made[0].shape, [each.slices for each in made]
        check_shape(where, shape)

    def part(volume: int, place: slice) -> NDArray[Any]:
        return np.stack([slices[volume](number) for number in range(*place.indices(shape[2]))], axis=-1)

    data_sets = tuple(tuple({id(one.header): one.header for one in frames}.values()) for frames in volumes)
    header = files[0][1]
    modality = MODALITIES.get(str(header.get("Modality")), "other")
    notes = _notes(header, modality, len(volumes), grid)
    return Stored(where, shape, len(volumes), LPS_TO_RAS @ affine, part, data_sets, modality, notes)


def _notes(header: "Dataset", modality: str, volumes: int, grid: Grid) -> tuple[str, ...]:
    """What a user should know about a series."""
    notes = []
    unit, gaps = str(header.get("Units", "unknown")), np.diff(grid.depths)
    if modality == "PET" and unit != SUV:
        notes.append(f"PET values are taken as stored, in {unit}, and not converted to SUV")
    if volumes > 1:
        notes.append(f"the series holds {volumes} volumes, counted from 0: the first one is used where none is chosen")
    if grid.tilt.any():
        angle = np.degrees(np.arctan(np.linalg.norm(grid.tilt)))
        notes.append(f"the gantry was tilted by {angle:.1f} degrees: slices are moved to a grid of right angles")
    if grid.uneven:
        apart = f"{gaps.min():.2f} to {gaps.max():.2f} mm"
        notes.append(f"slices are {apart} apart: they are interpolated every {grid.step:.2f} mm")
    return tuple(notes)
