"""NIfTI files (`.nii`, `.nii.gz`, pairs of `.hdr` and `.img`): volumes in through nibabel, masks and maps out."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.files import written_whole
from medmtl.io.stored import NO_ORIENTATION, Stored, check_bytes, check_shape
from medmtl.io.stream import Unpacked, open_stream

MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # unit of length in a NIfTI header: metre, millimetre, micrometre
SPATIAL = 0b111  # bits of `xyzt_units` that hold it
DISAGREEMENT_MM = 1.0  # between sform and qform, at a corner of the volume
DESCRIPTION_BYTES = 79
EXTENSIONS = 4  # bytes after a header that say whether extensions follow, which are not read
GRID_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
)
REPAIRS = logging.Logger("nibabel's repairs of a header")  # has no handler but this: what matters is said in our words
REPAIRS.addHandler(logging.NullHandler())
LFS_POINTER = b"version https://git-lfs"  # first bytes of what Git leaves in the place of a large file


def open_nifti(path: Path) -> Stored | None:
    """Open a file.

    Args:
        path: the file; of a pair the header, whose voxels lie beside it.

    Returns:
        The file; its `header` is nibabel's. The affine is the sform, or the qform where there is no sform, in mm
        whatever unit the header names. None for a header of Analyze.

    Raises:
        DataError: a voxel is not one real number, has no size, or the shape is not that of a volume.
    """
    where, pair = str(path), path.name.lower().endswith(".hdr")
    stream = open_stream(path)
    start = stream.read(Nifti2Header.sizeof_hdr)
    raw = _header(path, start, pair)
    if raw is None:
        stream.close()
        return None
    if pair:
        stream.close()
        stream = open_stream(voxels_of(path))
    header, warnings = _repaired(raw)
    dtype = header.get_data_dtype()
    if dtype.kind not in "biuf":
        raise DataError(f"{where} holds colours or complex numbers ({dtype})", fix="save one real number a voxel")
    size = _shape(header.get_data_shape())
    shape, volumes = (size[:3], int(size[3])) if len(size) == 4 else (size, 1)
    check_shape(where, shape, volumes)
    if header["sform_code"] == 0:
        _check_sizes(where, raw)
    offset = int(header.get_data_offset())
    last = offset + int(np.prod(size, dtype=object)) * dtype.itemsize
    check_bytes(where, last, stream.most)
    # One stream for all slabs: each goes on where the last one ended, so a compressed file is unpacked once.
    proxy = ArrayProxy(stream, header, mmap=False)

    def part(volume: int, place: slice) -> NDArray[Any]:
        further = (volume,) + (0,) * (len(proxy.shape) - 4) if len(proxy.shape) > 3 else ()
        return np.asanyarray(proxy[(slice(None), slice(None), place, *further)])

    warnings += _orientation(header, shape)
    if not pair and isinstance(stream, Unpacked) != path.name.lower().endswith(".gz"):
        state = "is compressed" if isinstance(stream, Unpacked) else "is not compressed"
        warnings += (f"the file {state}, other than its name says",)
    return Stored(
        where,
        shape,
        volumes,
        _affine(header),
        part,
        header,
        warnings=warnings,
        finish=partial(stream.finish, last),
        close=stream.close,
    )


def write_nifti(
    path: Path, values: np.ndarray, affine: np.ndarray, header: object = None, description: str = ""
) -> None:
    """Write a volume whole, on the grid of a header where there is one.

    Args:
        path: the file, ending in `.nii.gz`.
        values: `(H, W, D)`, or `(H, W, D, C)` with a volume a class, of an unsigned type or float32.
        affine: `(4, 4)` in mm; used where there is no NIfTI header.
        header: that of `open_nifti`. Its affines, their codes and the unit are kept bit by bit; all other
            fields describe the image or the patient, and are left out.
        description: of the values, for the header, which holds 79 bytes of it.
    """
    if isinstance(header, Nifti1Header):
        kind = nibabel.Nifti2Image if isinstance(header, Nifti2Header) else nibabel.Nifti1Image
        image = kind(values, None, _grid_alone(header))  # without an affine nibabel leaves the header's alone
    else:
        image = nibabel.Nifti1Image(values, affine)
        image.header.set_xyzt_units("mm")
    image.header.set_data_dtype(values.dtype)
    image.header["descrip"] = description.encode()[:DESCRIPTION_BYTES]
    with written_whole(path) as beside:
        nibabel.save(image, beside)


def _header(path: Path, start: bytes, pair: bool) -> Nifti1Header | None:
    """The header as it is in the file; None where it is one of Analyze."""
    if not start:
        raise OSError("it is empty")
    if start.startswith(LFS_POINTER):
        raise DataError(f"{path} cannot be read (it is a pointer of Git LFS)", fix="run `git lfs pull`")
    kinds = (Nifti2PairHeader, Nifti1PairHeader) if pair else (Nifti2Header, Nifti1Header)
    for kind in kinds:
        if kind.may_contain_header(start):
            return kind(start[: kind.sizeof_hdr], check=False)
    if pair:
        return None
    raise OSError("it has no header of NIfTI")


def _repaired(raw: Nifti1Header) -> tuple[Nifti1Header, tuple[str, ...]]:
    """A header with what nibabel repairs, and warnings of what was repaired.

    Raises:
        HeaderDataError: it cannot be repaired.
    """
    header = raw.copy()
    header.check_fix(logger=REPAIRS)
    warnings: tuple[str, ...] = ()
    sizes = raw["pixdim"][1:4]
    if raw["sform_code"] != 0 and not (sizes > 0).all():
        warnings += ("the voxel sizes of the header are not all above 0; those of the sform are used",)
    elif raw["sform_code"] == 0 and (sizes < 0).any():
        warnings += ("a voxel size of the header is below 0, and taken as above",)
    first = raw.sizeof_hdr + EXTENSIONS
    if type(raw).is_single and header.get_data_offset() < first:
        header.set_data_offset(first)
        warnings += ("the header lets the voxels begin within itself; they are read from its end",)
    return header, warnings


def voxels_of(path: Path) -> Path:
    """The file of the voxels of a pair.

    Raises:
        DataError: there is none.
    """
    base = path.name[: -len(".hdr")]
    for ending in (".img", ".img.gz", ".IMG"):
        if (path.parent / f"{base}{ending}").is_file():
            return path.parent / f"{base}{ending}"
    raise DataError(f"{path} has no {base}.img beside it", fix="restore it")


def _affine(header: Nifti1Header) -> NDArray[np.float64]:
    """The affine of an image in mm: its sform, or its qform where it has none."""
    affine = np.array(header.get_best_affine(), np.float64)
    affine[:3] *= _millimetres(header)
    return affine


def _millimetres(header: Nifti1Header) -> float:
    """Length in mm of the unit that a header counts in; a header that names none counts in mm."""
    return MILLIMETRES.get(int(header["xyzt_units"]) & SPATIAL, 1.0)


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without empty axes after the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(map(int, shape))


def _check_sizes(where: str, raw: Nifti1Header) -> None:
    """Check the voxel sizes of the file itself, where its affine is made of them: nibabel takes 0 for 1."""
    empty = np.flatnonzero(raw["pixdim"][1:4] == 0)
    if len(empty):
        raise DataError(f"{where} has a voxel size of 0 mm along axis {empty[0]}", fix="repair its header")


def _orientation(header: Nifti1Header, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Warnings of what the header leaves open."""
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is None and qform is None:
        return (NO_ORIENTATION,)
    if sform is None or qform is None:
        return ()
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    apart = np.linalg.norm(apply_affine(sform, corners) - apply_affine(qform, corners), axis=1).max()
    apart *= _millimetres(header)
    if apart <= DISAGREEMENT_MM:
        return ()
    return (f"sform and qform of the header are up to {apart:.1f} mm apart; the sform is used",)


def _qform(header: Nifti1Header) -> np.ndarray | None:
    """The qform, or None where there is none: no code, or numbers that are not of a rotation."""
    try:
        qform = header.get_qform(coded=True)[0]
    except ValueError:
        return None
    return qform if qform is not None and np.isfinite(qform).all() else None


def _grid_alone(header: Nifti1Header) -> Nifti1Header:
    """A header of the same kind that has the grid of another, and nothing else."""
    alone = (Nifti2Header if isinstance(header, Nifti2Header) else Nifti1Header)()
    for field in GRID_FIELDS:
        alone[field] = header[field]
    alone["pixdim"][:4] = header["pixdim"][:4]
    alone["xyzt_units"] = header["xyzt_units"] & SPATIAL
    return alone
