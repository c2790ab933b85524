"""What a reader returns: one volume as float32 and its grid, checked in the same way whatever file it came from."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from medmtl.errors import DataError

MAX_VOXELS = 2**31  # 8 GiB as float32; a CT of the whole body, 512 x 512 x 2000, has a quarter of that
MAX_EXTENT_MM = 5000.0  # no patient is longer: micrometres taken for millimetres are
MAX_SHEAR = 0.01  # cosine between two axes: 0.6 degrees off a right angle; resampling follows the affine below that
SLAB_VOXELS = 2**22  # converted at a time: 32 MB in float64
REASON_LENGTH = 160


class Stored(NamedTuple):
    """One volume of a file.

    Attributes:
        voxels: `(H, W, D)` float32, in the file's own storage order.
        affine: `(4, 4)` float64, from voxel indices to mm, right-anterior-superior.
        header: what the writer needs to give a mask the same grid; what it is depends on the kind of file.
        modality: CT, MR, PET, other, or None where the file does not say.
        warnings: what a user should know about this volume.
    """

    voxels: np.ndarray
    affine: np.ndarray
    header: object
    modality: str | None = None
    warnings: tuple[str, ...] = ()


def check_shape(where: str, shape: Sequence[int]) -> None:
    """Check that a shape is that of a volume that a computer can hold; before anything of its size is allocated.

    Args:
        where: the file, for the message.
        shape: voxels along each axis.

    Raises:
        DataError: it has not three axes, an axis has fewer than two voxels, or there are more than `MAX_VOXELS`.
    """
    size = " x ".join(str(side) for side in shape)
    if len(shape) != 3:
        raise DataError(f"{where} has {len(shape)} dimensions ({size})", fix="use a volume of three or four")
    if min(shape) < 2:
        raise DataError(f"{where} is a single slice ({size} voxels)", fix="use a volume of several")
    if np.prod([int(side) for side in shape], dtype=object) > MAX_VOXELS:
        raise DataError(f"{where} claims {size} voxels, too many to hold", fix="correct its header or crop it")


def check_grid(where: str, affine: np.ndarray, shape: Sequence[int]) -> None:
    """Check that an affine describes voxels with a size and right angles.

    Args:
        where: the file, for the message.
        affine: `(4, 4)`, from voxel indices to mm.
        shape: voxels along each of the three axes.

    Raises:
        DataError: the affine is not finite, a voxel has no size or a volume that cannot be a patient's, or two axes
            are off a right angle by a cosine of more than `MAX_SHEAR`.
    """
    fix = "repair its header"
    if not np.isfinite(affine).all():
        raise DataError(f"{where} has an affine or spacing that is not finite", fix=fix)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if min(spacing) < 1e-6:
        raise DataError(f"{where} has a voxel size of 0 mm along axis {int(np.argmin(spacing))}", fix=fix)
    extent = spacing * np.asarray(shape)
    if max(extent) > MAX_EXTENT_MM:
        raise DataError(
            f"{where} is {max(extent):.0f} mm long with voxels of {' x '.join(f'{size:g}' for size in spacing)} mm",
            fix="correct the spacing in its header",
        )
    direction = affine[:3, :3] / spacing
    shear = np.abs(direction.T @ direction - np.eye(3)).max()
    if shear > MAX_SHEAR:
        raise DataError(
            f"{where} has a sheared affine (axes up to {np.degrees(np.arcsin(min(shear, 1))):.1f} degrees off a right "
            f"angle)",
            fix="resample it to a rectangular grid",
        )


def gather(where: str, shape: tuple[int, ...], slab: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Convert a volume to float32 a few slices at a time, so that no second copy of it is ever held.

    Args:
        where: the file, for the message.
        shape: `(H, W, D)`.
        slab: a range of the last axis -> `(H, W, d)`, of any real type.

    Returns:
        `(H, W, D)` float32.

    Raises:
        DataError: see `check_shape`; or voxels are not finite as float32, or all the same.
    """
    check_shape(where, shape)
    voxels = np.empty(shape, np.float32)
    thickness = max(SLAB_VOXELS // (shape[0] * shape[1]), 1)
    broken, low, high = 0, np.inf, -np.inf
    for start in range(0, shape[2], thickness):
        part = slice(start, min(start + thickness, shape[2]))
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(slab(part)).astype(np.float32)
        voxels[..., part] = values
        broken += values.size - int(np.isfinite(values).sum())
        low, high = np.fmin(low, np.fmin.reduce(values, None)), np.fmax(high, np.fmax.reduce(values, None))
    if broken:
        raise DataError(
            f"{where} holds {broken} voxels of {voxels.size} that are not finite", fix="replace them by numbers"
        )
    if low == high:
        raise DataError(f"{where} is {low:g} in all voxels: there is nothing to segment", fix="check how it was saved")
    return voxels


def reason(error: Exception) -> str:
    """What a library says of a file, on one line; of much text the end, where libraries name the cause."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= REASON_LENGTH else f"… {text[-REASON_LENGTH:].partition(' ')[2]}"
