"""NIfTI files (`.nii`, `.nii.gz`) through nibabel: volumes in, masks and maps out."""

from pathlib import Path

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.openers import ImageOpener

from medmtl.errors import DataError
from medmtl.files import written_whole
from medmtl.io.stored import Stored, check_grid, check_shape, gather
from medmtl.io.volume import SPATIAL, affine_of, millimetres

DISAGREEMENT_MM = 1.0  # between sform and qform, at a corner of the volume
GRID_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
)


def count_volumes(path: Path) -> int:
    """Number of volumes in a file, of which the header alone is read."""
    shape = _shape(nibabel.load(path).shape)
    return int(shape[3]) if len(shape) > 3 else 1


def read_nifti(path: Path, volume: int) -> Stored:
    """Read one volume of a file.

    Args:
        path: the file.
        volume: which volume of a file with four dimensions, from 0; 0 for three.

    Returns:
        The volume; its `header` is nibabel's. The affine is the sform, or the qform where there is no sform, in mm
        whatever unit the header names.

    Raises:
        DataError: there is no such volume, a voxel is not one real number, or a check of `voxels` fails.
    """
    # One handle for all slabs: each goes on where the last one ended, so a compressed file is inflated once.
    image = nibabel.load(path, keep_file_open=True)
    where, stored = str(path), image.get_data_dtype()
    if stored.kind not in "biuf":
        raise DataError(f"{where} holds colours or complex numbers ({stored})", fix="save one real number a voxel")
    shape = _shape(image.shape)
    check_shape(where, shape[:3] if len(shape) == 4 else shape)
    volumes = shape[3] if len(shape) == 4 else 1
    if not 0 <= volume < volumes:
        raise DataError(f"{where} has no volume {volume}: it has {volumes}, counted from 0", fix="choose another")
    header = image.header
    _check_sizes(path, type(header))
    affine = affine_of(image)
    check_grid(where, affine, shape[:3])
    further = (volume,) + (0,) * (len(image.shape) - 4) if len(image.shape) > 3 else ()
    voxels = gather(where, shape[:3], lambda part: image.dataobj[(slice(None), slice(None), part, *further)])
    return Stored(voxels, affine, header, warnings=_warnings(header, shape[:3]))


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, header: object = None) -> None:
    """Write a volume whole, on the grid of a header where there is one.

    Args:
        path: the file, ending in `.nii.gz`.
        values: `(H, W, D)`, uint8 or float32.
        affine: `(4, 4)` in mm; used where there is no NIfTI header.
        header: what `read_nifti` returned. Its affines, their codes and the unit are kept bit by bit; whatever else
            it says belongs to the image, or even names the patient, and is left out.
    """
    if isinstance(header, Nifti1Header):
        kind = nibabel.Nifti2Image if isinstance(header, Nifti2Header) else nibabel.Nifti1Image
        image = kind(values, None, _grid_alone(header))  # without an affine nibabel leaves the header's alone
    else:
        image = nibabel.Nifti1Image(values, affine)
        image.header.set_xyzt_units("mm")
    image.header.set_data_dtype(values.dtype)
    with written_whole(path) as beside:
        nibabel.save(image, beside)


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without empty axes after the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _check_sizes(path: Path, kind: type[Nifti1Header]) -> None:
    """Check the voxel sizes of the file itself, if its affine is made of them: nibabel takes 0 for 1."""
    with ImageOpener(path) as file:
        header = kind.from_fileobj(file, check=False)
    empty = np.flatnonzero(header["pixdim"][1:4] == 0)
    if len(empty) and header["sform_code"] == 0:
        raise DataError(f"{path} has a voxel size of 0 mm along axis {empty[0]}", fix="repair its header")


def _warnings(header: Nifti1Header, shape: tuple[int, ...]) -> tuple[str, ...]:
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is None and qform is None:
        return ("the header says nothing of orientation: left and right may be swapped",)
    if sform is None or qform is None:
        return ()
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    apart = np.linalg.norm(apply_affine(sform, corners) - apply_affine(qform, corners), axis=1).max()
    apart *= millimetres(header)
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
