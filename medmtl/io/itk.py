"""NRRD and MetaImage files: volumes in, masks and maps out through SimpleITK."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.files import written_whole
from medmtl.io.meta import read_meta
from medmtl.io.nrrd import read_nrrd
from medmtl.io.stored import LPS_TO_RAS, Stored, check_shape
from medmtl.io.voxel_files import open_voxels

DESCRIPTION = "description"  # key of a text in a header
READERS = {".nrrd": read_nrrd, ".nhdr": read_nrrd, ".mha": read_meta, ".mhd": read_meta}


class Grid(NamedTuple):
    """A grid as ITK describes it, left-posterior-superior.

    Attributes:
        spacing: voxel size along each axis, mm.
        origin: centre of the first voxel, mm.
        direction: rotation, 3 x 3, row by row.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def affine(self) -> np.ndarray:
        """`(4, 4)`, from voxel indices to mm, right-anterior-superior."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * self.spacing
        affine[:3, 3] = self.origin
        return LPS_TO_RAS @ affine


def open_itk(path: Path) -> Stored:
    """Open a file, or the header of a pair of header and data.

    They are read here and not by ITK, which checks no sum of a compressed file, reads whatever file a header names, and
    ends the process on some headers.

    Returns:
        The file; its `header` is a `Grid`.

    Raises:
        DataError: the file is broken, a voxel is not one real number, or the shape is not that of a volume.
    """
    where = str(path)
    header = READERS[path.suffix.lower()](path)
    if header.components != 1:
        raise DataError(f"{where} holds colours, vectors or complex numbers", fix="save one real number a voxel")
    size = header.size
    several = len(size) == 4  # the last one is time, or channels: it has no place in the patient
    shape, volumes = (size[:3], size[3]) if several else (size, 1)
    check_shape(where, shape, volumes)
    spacing = np.linalg.norm(header.axes, axis=0)
    direction = header.axes / np.where(spacing > 0, spacing, 1)
    grid = Grid(tuple(spacing.tolist()), header.origin, tuple(direction.ravel().tolist()))
    stream, first = open_voxels(path, header)
    bytes_of_slice = shape[0] * shape[1] * header.dtype.itemsize

    def part(volume: int, place: slice) -> NDArray[Any]:
        start, stop, _ = place.indices(shape[2])
        stream.seek(first + (volume * shape[2] + start) * bytes_of_slice)
        content = stream.read((stop - start) * bytes_of_slice)
        if len(content) < (stop - start) * bytes_of_slice:
            raise DataError(f"{where} ends before its last voxel", fix="replace the file")
        return np.frombuffer(content, header.dtype).reshape((*shape[:2], stop - start), order="F")

    finish = partial(stream.finish, first + bytes_of_slice * shape[2] * volumes)
    return Stored(where, shape, volumes, grid.affine, part, grid, finish=finish, close=stream.close)


def write_itk(path: Path, values: np.ndarray, grid: Grid, description: str = "") -> None:
    """Write a volume whole and compressed, in the format that the suffix names.

    Args:
        path: the file, ending in `.nrrd` or `.mha`.
        values: `(H, W, D)`, or `(H, W, D, C)` with a volume a class, of an unsigned type or float32.
        grid: the header of `open_itk`.
        description: of the values, for the header.
    """
    further = values.ndim - len(grid.spacing)
    direction = np.eye(values.ndim)
    direction[:3, :3] = np.reshape(grid.direction, (3, 3))
    image = SimpleITK.GetImageFromArray(values.T, isVector=False)
    image.SetSpacing((*grid.spacing, *[1.0] * further))
    image.SetOrigin((*grid.origin, *[0.0] * further))
    image.SetDirection(direction.ravel().tolist())
    if description:
        image.SetMetaData(DESCRIPTION, description)
    with written_whole(path) as beside:
        SimpleITK.WriteImage(image, str(beside), useCompression=True)
