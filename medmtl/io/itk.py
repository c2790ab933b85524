"""NRRD and MetaImage files through SimpleITK: volumes in, masks and maps out."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.files import written_whole
from medmtl.io.stored import LPS_TO_RAS, Stored, check_shape

DESCRIPTION = "description"  # key of a text in a header
READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}


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

    Returns:
        The file; its `header` is a `Grid`.

    Raises:
        DataError: the file is broken, a voxel is not one real number, or the shape is not that of a volume.
    """
    reader, where = _opened(path), str(path)
    if reader.GetNumberOfComponents() != 1 or "complex" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise DataError(f"{where} holds colours, vectors or complex numbers", fix="save one real number a voxel")
    size, dimensions = reader.GetSize(), reader.GetDimension()
    several = dimensions == 4  # the last one is time, or channels: it has no place in the patient
    shape, volumes = (size[:3], size[3]) if several else (size, 1)
    check_shape(where, shape)
    direction = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    grid = Grid(reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(direction.ravel().tolist()))

    @lru_cache(maxsize=1)
    def image(volume: int) -> SimpleITK.Image:
        if several:
            reader.SetExtractSize((*size[:3], 0))
            reader.SetExtractIndex((0, 0, 0, volume))
        try:
            return reader.Execute()
        except RuntimeError:  # its text names a line of ITK's sources
            raise DataError(f"{where} ends before its last voxel, or is damaged", fix="replace the file") from None

    def part(volume: int, place: slice) -> NDArray[Any]:
        stored = SimpleITK.GetArrayViewFromImage(image(volume))  # (D, H, W) of ITK's axes, gone with its image
        return stored[place].copy().transpose(2, 1, 0)

    return Stored(where, shape, volumes, grid.affine, part, grid)


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
