"""Formats of neuroimaging through nibabel: FreeSurfer (`.mgz`), Analyze (`.hdr`), MINC 1 (`.mnc`), AFNI (`.HEAD`)."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.brikhead import AFNIImage
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.stored import NO_ORIENTATION, Stored, check_bytes, check_shape
from medmtl.io.stream import open_stream

KINDS: dict[str, type[SpatialImage]] = {
    ".mgz": nibabel.MGHImage,
    ".mgh": nibabel.MGHImage,
    ".hdr": nibabel.AnalyzeImage,
    ".mnc": nibabel.Minc1Image,
    ".head": AFNIImage,
}
MINC_2 = b"\x89HDF"  # first bytes


def open_nibabel(path: Path) -> Stored:
    """Open a file, or the header of a pair.

    Returns:
        The file, without a header for the writer: masks of it are NIfTI.

    Raises:
        DataError: a voxel is not one real number, or the shape is not that of a volume.
    """
    where, suffix = str(path), path.suffix.lower()
    with path.open("rb") as file:
        if file.read(len(MINC_2)) == MINC_2:
            raise DataError(f"{where} is MINC 2", fix="convert it by mnc2nii")
    with ExitStack() as closing:
        files = KINDS[suffix].filespec_to_file_map(where)
        for name in ("header", "image") if suffix == ".hdr" else ("image",):  # that of AFNI is text
            stream = files[name].fileobj = open_stream(Path(files[name].filename))
            closing.callback(stream.close)
        image = KINDS[suffix].from_file_map(files, mmap=False)
        dtype = np.dtype(image.get_data_dtype())
        if dtype.kind not in "biuf":
            raise DataError(f"{where} holds colours or complex numbers ({dtype})", fix="save one real number a voxel")
        size = tuple(map(int, image.shape))
        while len(size) > 3 and size[-1] == 1:
            size = size[:-1]
        several = len(size) == 4 and suffix != ".mnc"  # whose first axis is time
        shape, volumes = (size[:3], size[3]) if several else (size, 1)
        check_shape(where, shape, volumes)
        offset = int(getattr(image.dataobj, "offset", 0))
        last = offset + int(np.prod(size, dtype=object)) * dtype.itemsize
        data = files["image"].fileobj
        check_bytes(where, last, data.most)
        keep = closing.pop_all()

    def part(volume: int, place: slice) -> NDArray[Any]:
        further = (volume,) + (0,) * (len(image.shape) - 4) if len(image.shape) > 3 else ()
        return np.asanyarray(image.dataobj[(slice(None), slice(None), place, *further)])

    warnings = (NO_ORIENTATION,) if suffix == ".hdr" else ()
    affine = np.array(image.affine, np.float64)
    return Stored(
        where, shape, volumes, affine, part, warnings=warnings, finish=partial(data.finish, last), close=keep.close
    )
