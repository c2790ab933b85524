"""Mosaics: pictures into which Siemens' scanners lay all slices of a volume side by side."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from medmtl.errors import DataError
from medmtl.io.dicom.files import quiet

if TYPE_CHECKING:
    from pydicom import Dataset


def is_mosaic(header: "Dataset") -> bool:
    """Whether a file's picture is a mosaic of slices."""
    return "MOSAIC" in (header.get("ImageType") or ()) and "PerFrameFunctionalGroupsSequence" not in header


def tiles(where: str, header: "Dataset") -> Iterator[dict[str, Any]]:
    """The slices of a mosaic: what differs from the frame that its picture is.

    The header gives the corner that one slice of the size of the whole picture would have, centred on the first slice;
    how many there are, and towards which side they follow, is in Siemens' private header (CSA).

    Args:
        where: the series, for messages.
        header: of the file.

    Yields:
        `position`, `shape` and `corner` of each slice, in their order in the picture.

    Raises:
        DataError: the private header is missing, or says nothing that fits the picture.
    """
    count, normal = _private(header)
    grid = math.ceil(math.sqrt(count))
    columns, rows = int(header.Columns), int(header.Rows)
    step = float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 0)
    if count < 1 or normal is None or columns % grid or rows % grid or not step > 0:
        raise DataError(f"{where} is a mosaic whose private header (CSA) is missing", fix="export it with its header")
    shape = (columns // grid, rows // grid)
    row, column = np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3))
    height, width = map(float, header.PixelSpacing)
    first = np.asarray(header.ImagePositionPatient, float)
    first = first + row * width * (columns - shape[0]) / 2 + column * height * (rows - shape[1]) / 2
    for index in range(count):
        corner = (index % grid * shape[0], index // grid * shape[1])
        yield {"position": first + index * step * normal, "shape": shape, "corner": corner}


def _private(header: "Dataset") -> tuple[int, np.ndarray | None]:
    """How many slices a mosaic holds, and the direction in which they follow each other."""
    try:
        with quiet():
            from nibabel.nicom import csareader  # warns on import that it knows Siemens' files only

            csa = csareader.get_csa_header(header, "image")
            normal = csareader.get_slice_normal(csa)
            return int(csareader.get_n_mosaic(csa) or 0), None if normal is None else np.asarray(normal, float)
    except Exception:  # whatever is wrong with a private header, it says nothing
        return 0, None
