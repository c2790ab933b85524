"""NIfTI files (`.nii`, `.nii.gz`) through nibabel: volumes in, masks and maps out."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.files import written_whole
from medmtl.io.stored import Stored, check_shape

MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # unit of length in a NIfTI header: metre, millimetre, micrometre
SPATIAL = 0b111  # bits of `xyzt_units` that hold it
DISAGREEMENT_MM = 1.0  # between sform and qform, at a corner of the volume
DESCRIPTION_BYTES = 79
GRID_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
)


def open_nifti(path: Path) -> Stored:
    """Open a file.

    Returns:
        The file; its `header` is nibabel's. The affine is the sform, or the qform where there is no sform, in mm
        whatever unit the header names.

    Raises:
        DataError: a voxel is not one real number, has no size, or the shape is not that of a volume.
    """
    # One handle for all slabs: each goes on where the last one ended, so a compressed file is inflated once.
    image = nibabel.load(path, keep_file_open=True)
    where, dtype = str(path), image.get_data_dtype()
    if dtype.kind not in "biuf":
        raise DataError(f"{where} holds colours or complex numbers ({dtype})", fix="save one real number a voxel")
    size, header = _shape(image.shape), image.header
    shape, volumes = (size[:3], int(size[3])) if len(size) == 4 else (size, 1)
    check_shape(where, shape)
    if header["sform_code"] == 0:
        _check_sizes(path, type(header))

    def part(volume: int, place: slice) -> NDArray[Any]:
        further = (volume,) + (0,) * (len(image.shape) - 4) if len(image.shape) > 3 else ()
        return np.asanyarray(image.dataobj[(slice(None), slice(None), place, *further)])

    return Stored(where, shape, volumes, _affine(image), part, header, warnings=_warnings(header, shape))


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


def _affine(image: nibabel.Nifti1Image) -> NDArray[np.float64]:
    """The affine of an image in mm: its sform, or its qform where it has none."""
    affine = np.array(image.affine, np.float64)
    affine[:3] *= _millimetres(image.header)
    return affine


def _millimetres(header: Nifti1Header) -> float:
    """Length in mm of the unit that a header counts in; a header that names none counts in mm."""
    return MILLIMETRES.get(int(header["xyzt_units"]) & SPATIAL, 1.0)


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without empty axes after the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _check_sizes(path: Path, kind: type[Nifti1Header]) -> None:
    """Check the voxel sizes of the file itself, where its affine is made of them: nibabel takes 0 for 1."""
    with ImageOpener(path) as file:
        header = kind.from_fileobj(file, check=False)
    empty = np.flatnonzero(header["pixdim"][1:4] == 0)
    if len(empty):
        raise DataError(f"{path} has a voxel size of 0 mm along axis {empty[0]}", fix="repair its header")


def _warnings(header: Nifti1Header, shape: tuple[int, ...]) -> tuple[str, ...]:
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is None and qform is None:
        return ("the header holds no orientation: left and right may be swapped",)
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
    alone = type(header)()
    for field in GRID_FIELDS:
        alone[field] = header[field]
    alone["pixdim"][:4] = header["pixdim"][:4]
    alone["xyzt_units"] = header["xyzt_units"] & SPATIAL
    return alone
