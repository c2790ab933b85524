"""NRRD and MetaImage files through SimpleITK: volumes in, masks and maps out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK

from medmtl.errors import DataError
from medmtl.files import written_whole
from medmtl.io.stored import Stored, check_grid, check_shape, gather
from medmtl.io.volume import LPS_TO_RAS

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


def count_volumes(path: Path) -> int:
    """Number of volumes in a file, of which the header alone is read."""
    size = _opened(path).GetSize()
    return int(size[3]) if len(size) > 3 else 1


def read_itk(path: Path, volume: int) -> Stored:
    """Read one volume of a file.

    Args:
        path: the file, or the header of a pair of header and data.
        volume: which volume of a file with four dimensions, from 0; 0 for three.

    Returns:
        The volume; its `header` is a `Grid`.

    Raises:
        DataError: the file is broken, there is no such volume, a voxel is not one real number, or a check of `voxels`
            fails.
    """
    reader, where = _opened(path), str(path)
    if reader.GetNumberOfComponents() != 1 or "complex" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise DataError(f"{where} holds colours, vectors or complex numbers", fix="save one real number a voxel")
    size = reader.GetSize()
    check_shape(where, size[:3] if len(size) == 4 else size)
    volumes = size[3] if len(size) == 4 else 1
    if not 0 <= volume < volumes:
        raise DataError(f"{where} has no volume {volume}: it has {volumes}, counted from 0", fix="choose another")
    if len(size) == 4:
        reader.SetExtractSize((*size[:3], 0))
        reader.SetExtractIndex((0, 0, 0, volume))
    try:
        image = reader.Execute()
    except RuntimeError:  # whose text is of ITK's sources
        raise DataError(f"{where} ends before its last voxel, or is damaged", fix="replace the file") from None
    grid = Grid(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    check_grid(where, grid.affine, size[:3])
    stored = SimpleITK.GetArrayViewFromImage(image)  # (D, H, W) of ITK's axes
    voxels = gather(where, size[:3], lambda part: stored[part].transpose(2, 1, 0))
    return Stored(voxels, grid.affine, grid)


def write_itk(path: Path, values: np.ndarray, grid: Grid) -> None:
    """Write a volume whole and compressed, in the format that the suffix names.

    Args:
        path: the file, ending in `.nrrd` or `.mha`.
        values: `(H, W, D)`, uint8 or float32.
        grid: what `read_itk` returned as header.
    """
    image = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    with written_whole(path) as beside:
        SimpleITK.WriteImage(image, str(beside), useCompression=True)


def _opened(path: Path) -> SimpleITK.ImageFileReader:
    path.open("rb").close()  # says by its kind of error whether the file is missing or forbidden; ITK does not
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(READERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise DataError(f"{path} has a header that cannot be read", fix="replace the file") from None
    return reader
