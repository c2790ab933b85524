"""NRRD and MetaImage files through SimpleITK: volumes in, masks and maps out."""

from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.files import written_whole
from medmtl.io.itk_voxels import Place, open_voxels, place_of
from medmtl.io.stored import LPS_TO_RAS, Stored, check_bytes, check_shape

DESCRIPTION = "description"  # key of a text in a header
READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}
TYPES = {
    SimpleITK.sitkUInt8: "u1",
    SimpleITK.sitkInt8: "i1",
    SimpleITK.sitkUInt16: "u2",
    SimpleITK.sitkInt16: "i2",
    SimpleITK.sitkUInt32: "u4",
    SimpleITK.sitkInt32: "i4",
    SimpleITK.sitkUInt64: "u8",
    SimpleITK.sitkInt64: "i8",
    SimpleITK.sitkFloat32: "f4",
    SimpleITK.sitkFloat64: "f8",
}
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what matters of its warnings is checked, and said, here


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

    ITK reads the header alone: it checks no checksum, and would read whatever file a header names.

    Returns:
        The file; its `header` is a `Grid`.

    Raises:
        DataError: the file is broken, a voxel is not one real number, or the shape is not that of a volume.
    """
    lies = place_of(path)  # before ITK, which would open what the header names
    reader, where = _opened(path), str(path)
    pixel = reader.GetPixelIDValue()
    if reader.GetNumberOfComponents() != 1 or pixel not in TYPES:
        raise DataError(f"{where} holds colours, vectors or complex numbers", fix="save one real number a voxel")
    size, dimensions = reader.GetSize(), reader.GetDimension()
    several = dimensions == 4  # the last one is time, or channels: it has no place in the patient
    shape, volumes = (size[:3], size[3]) if several else (size, 1)
    check_shape(where, shape, volumes)
    direction = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    grid = Grid(reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(direction.ravel().tolist()))
    if lies.text:
        return _of_text(path, reader, lies, Stored(where, shape, volumes, grid.affine, _no_part, grid))
    dtype = np.dtype(TYPES[pixel]).newbyteorder(">" if lies.big else "<")
    slice_bytes = shape[0] * shape[1] * dtype.itemsize
    needed = slice_bytes * shape[2] * volumes
    stream, first = open_voxels(path, lies, needed)

    def part(volume: int, place: slice) -> NDArray[Any]:
        start, stop, _ = place.indices(shape[2])
        stream.seek(first + (volume * shape[2] + start) * slice_bytes)
        content = stream.read((stop - start) * slice_bytes)
        if len(content) < (stop - start) * slice_bytes:
            raise _cut_short(where)
        return np.frombuffer(content, dtype).reshape((*shape[:2], stop - start), order="F")

    finish = partial(stream.finish, first + needed)
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


def _of_text(path: Path, reader: SimpleITK.ImageFileReader, place: Place, stored: Stored) -> Stored:
    """A file whose voxels are text, which ITK reads as a whole."""
    if place.files != (path,):
        raise DataError(f"{path} keeps its voxels as text in another file", fix="save it in one")
    voxels = int(np.prod(stored.shape, dtype=object)) * stored.volumes
    check_bytes(str(path), 2 * voxels - 1, path.stat().st_size)  # a digit each, and what separates them

    @lru_cache(maxsize=1)
    def whole() -> NDArray[Any]:
        try:
            image = reader.Execute()
        except RuntimeError:  # its text names a line of ITK's sources
            raise _cut_short(str(path)) from None
        array = SimpleITK.GetArrayFromImage(image).T
        return array if array.ndim == 4 else array[..., None]

    return replace(stored, part=lambda volume, place: whole()[..., place, volume])


def _no_part(_: int, place: slice) -> NDArray[Any]:
    raise NotImplementedError


def _cut_short(where: str) -> DataError:
    return DataError(f"{where} ends before its last voxel, or is damaged", fix="replace the file")


def _opened(path: Path) -> SimpleITK.ImageFileReader:
    path.open("rb").close()  # raises FileNotFoundError or PermissionError, which ITK does not tell apart
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(READERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise DataError(f"{path} has a header that cannot be read", fix="replace the file") from None
    return reader
