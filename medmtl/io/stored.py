"""Stored: an opened image file of any kind, whose voxels are read on demand, and the checks that all files pass."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import ConfigError, DataError

MAX_VOXELS = 2**30  # 4 GiB as float32; a CT of the whole body, 512 x 512 x 2000, has half of that
MAX_VOXELS_VARIABLE = "MEDMTL_MAX_VOXELS"  # environment variable with another number
MAX_VOLUMES = 2**15  # of a file; NIfTI-1 has no more
MAX_VALUE = 1e18  # of a voxel: its square is finite as float32, which spread and convolutions need
MAX_EXTENT_MM = 5000.0  # no patient is longer: micrometres taken for millimetres are
MIN_EXTENT_MM = 3.0  # no scan is smaller along its longest side: millimetres taken for micrometres are
MAX_SHEAR = 0.01  # cosine between two axes: 0.6 degrees off a right angle; resampling follows the affine below that
SLAB_VOXELS = 2**22  # converted at a time: 32 MB in float64
REASON_LENGTH = 160
NO_ORIENTATION = "the header holds no orientation: left and right may be swapped"  # a warning

# ITK counts millimetres to the patient's left and back, NIfTI to the right and the front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Headers store affines in float32; a thousandth of a millimetre is beyond any scanner.
AFFINE_TOLERANCE_MM = 1e-3

Part = Callable[[int, slice], NDArray[Any]]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Stored:
    """An image file that was opened.

    Attributes:
        where: the file, for messages.
        shape: `(H, W, D)` voxels, in the file's own storage order.
        volumes: how many volumes of this shape the file holds: channels or time points.
        affine: `(4, 4)` float64, from voxel indices to mm, right-anterior-superior.
        part: a volume and a range of its last axis -> `(H, W, d)`, of the file's type, rescaled by its header.
        header: what the writer needs to give a mask the same grid; what it is depends on the kind of file.
        modality: CT, MR, PET, other, or None where the file does not name it.
        warnings: what a user should know about this file.
        finish: reads a compressed stream to its end, after voxels were read; raises what that shows.
        close: closes the file.
    """

    where: str
    shape: tuple[int, ...]
    volumes: int
    affine: NDArray[np.float64]
    part: Part
    header: object = None
    modality: str | None = None
    warnings: tuple[str, ...] = ()
    finish: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing

    def check_volume(self, volume: int) -> None:
        """Check that there is a volume of this number.

        Raises:
            DataError: there is not.
        """
        if not 0 <= volume < self.volumes:
            raise DataError(
                f"{self.where} has no volume {volume}: it has {self.volumes}, counted from 0",
                fix="choose another (`channel` of a task, --volume of a prediction)",
            )

    def as_stored(self) -> NDArray[Any]:
        """All voxels of the file's own type: `(H, W, D)`, or `(H, W, D, C)` of several volumes.

        Raises:
            DataError: they are more than `most_voxels` together.
        """
        if self.volumes * int(np.prod(self.shape, dtype=object)) > most_voxels():
            raise DataError(
                f"{self.where} holds {self.volumes} volumes of {_size(self.shape)} voxels, too many to hold",
                fix=f"split it, or raise {MAX_VOXELS_VARIABLE}",
            )
        result: NDArray[Any] | None = None
        for volume in range(self.volumes):
            for place in slabs(self.shape):
                slab = np.asanyarray(self.part(volume, place))
                if result is None:
                    result = np.empty((*self.shape, self.volumes), slab.dtype.newbyteorder("="), order="F")
                result[..., place, volume] = slab
        assert result is not None  # there are two slices at least
        return result[..., 0] if self.volumes == 1 else result


def most_voxels() -> int:
    """The most voxels that a volume may have: `MAX_VOXELS`, or as the environment says.

    Raises:
        ConfigError: it does not say a number.
    """
    text = os.environ.get(MAX_VOXELS_VARIABLE) or str(MAX_VOXELS)
    if not text.isdigit():
        raise ConfigError(f"{MAX_VOXELS_VARIABLE}={text}", fix="use a number of voxels")
    return int(text)


def check_shape(where: str, shape: Sequence[int], volumes: int = 1) -> None:
    """Check that a shape is that of a volume that a computer can hold, before anything of its size is allocated.

    Args:
        where: the file, for the message.
        shape: voxels along each axis.
        volumes: of the file.

    Raises:
        DataError: it has not three axes, an axis has fewer than two voxels, there are more than `most_voxels`, or no
            volume or more than `MAX_VOLUMES`.
    """
    size = _size(shape)
    if len(shape) != 3:
        raise DataError(f"{where} has {len(shape)} dimensions ({size})", fix="use a volume of three or four")
    if min(shape) < 1:
        raise DataError(f"{where} has {size} voxels in its header", fix="repair its header")
    if min(shape) < 2:
        raise DataError(f"{where} is a single slice ({size} voxels)", fix="use a volume of several")
    if np.prod([int(side) for side in shape], dtype=object) > most_voxels():
        raise DataError(
            f"{where} claims {size} voxels, too many to hold",
            fix=f"correct its header, crop it, or raise {MAX_VOXELS_VARIABLE} above {most_voxels()}",
        )
    if not 1 <= volumes <= MAX_VOLUMES:
        raise DataError(f"{where} claims {volumes} volumes", fix="correct its header, or split it")


def check_bytes(where: str, needed: int, most: int) -> None:
    """Check that a file can hold what its header promises, before anything of that size is allocated.

    Args:
        where: the file, for the message.
        needed: bytes up to the last voxel.
        most: bytes that there are, at most.

    Raises:
        DataError: it cannot.
    """
    if needed > most:
        raise DataError(
            f"{where} cannot be read (it ends before its last voxel: its header promises {needed:,} bytes, it holds "
            f"{most:,} at most)",
            fix="replace the file",
        )


def check_grid(where: str, affine: np.ndarray, shape: Sequence[int]) -> None:
    """Check that an affine describes voxels with a size and right angles.

    Args:
        where: the file, for the message.
        affine: `(4, 4)`, from voxel indices to mm.
        shape: voxels along each of the three axes.

    Raises:
        DataError: the affine is not finite, a voxel has no size, the volume is larger or smaller than any scan, or two
            axes are off a right angle by a cosine of more than `MAX_SHEAR`.
    """
    fix = "repair its header"
    if not np.isfinite(affine).all():
        raise DataError(f"{where} has an affine or spacing that is not finite", fix=fix)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if min(spacing) < 1e-6:
        raise DataError(f"{where} has a voxel size of 0 mm along axis {int(np.argmin(spacing))}", fix=fix)
    extent = spacing * np.asarray(shape)
    if not MIN_EXTENT_MM <= max(extent) <= MAX_EXTENT_MM:
        length = f"{max(extent):.0f}" if max(extent) >= 1 else f"{max(extent):.3g}"
        raise DataError(
            f"{where} is {length} mm long with voxels of {' x '.join(f'{size:g}' for size in spacing)} mm",
            fix="correct the spacing or its unit in the header",
        )
    direction = affine[:3, :3] / spacing
    shear = np.abs(direction.T @ direction - np.eye(3)).max()
    if shear > MAX_SHEAR:
        raise DataError(
            f"{where} has a sheared affine (axes up to {np.degrees(np.arcsin(min(shear, 1))):.1f} degrees off a right "
            f"angle)",
            fix="resample it to a rectangular grid",
        )


def cause_of_shift(warnings: Collection[str], image: Collection[str]) -> str:
    """Why a file may have another affine than an image, for a message; empty where nothing tells.

    Args:
        warnings: of the file.
        image: of the image.
    """
    if (NO_ORIENTATION in warnings) == (NO_ORIENTATION in image):
        return ""
    return f"; the header of {'the image' if NO_ORIENTATION in image else 'the file'} holds no orientation"


def convert(where: str, slab: Callable[[slice], NDArray[Any]], result: NDArray[np.float32]) -> None:
    """Convert a volume to float32 a few slices at a time, so that no second copy of it is ever held.

    Args:
        where: the file, for the message.
        slab: a range of the last axis -> `(H, W, d)`, of any real type.
        result: `(H, W, D)`, filled in place.

    Raises:
        DataError: voxels are not finite as float32, or beyond `MAX_VALUE`.
    """
    broken, largest = 0, 0.0
    for part in slabs(result.shape):
        stored, values = np.asarray(slab(part)), result[..., part]
        with np.errstate(over="ignore", invalid="ignore"):
            values[...] = stored
        if stored.dtype.kind == "f":  # whole numbers of 64 bits are finite, and can be squared
            wrong = values.size - int(np.isfinite(values).sum())
            broken += wrong
            if not wrong:
                largest = max(largest, -float(values.min()), float(values.max()))
        del stored  # before the next slab is read
    if broken:
        raise DataError(
            f"{where} holds {broken} voxels of {result.size} that are not finite", fix="replace them by numbers"
        )
    check_largest(where, largest)


def check_largest(where: str, largest: float) -> None:
    """Check that arithmetic in float32 does not overflow.

    Args:
        where: the file, for the message.
        largest: of the absolute values of its voxels.

    Raises:
        DataError: it is beyond `MAX_VALUE`.
    """
    if largest > MAX_VALUE:
        raise DataError(f"{where} holds values up to {largest:.3g}, which are no intensities", fix="replace them")


def check_contrast(where: str, voxels: NDArray[np.float32]) -> None:
    """Check that the voxels of a volume are not all the same.

    Args:
        where: the file, for the message.
        voxels: `(H, W, D)`.

    Raises:
        DataError: they are.
    """
    low, high = voxels.min(), voxels.max()
    if low == high:
        raise DataError(f"{where} is {low:g} in all voxels: there is nothing to segment", fix="check how it was saved")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Ranges of the last axis of a volume that hold about `SLAB_VOXELS` voxels each."""
    thickness = max(SLAB_VOXELS // (shape[0] * shape[1]), 1)
    return (slice(start, min(start + thickness, shape[2])) for start in range(0, shape[2], thickness))


def reason(error: Exception) -> str:
    """The message of an error on one line; of a long one the end, where libraries name the cause.

    The system's own names the file once more, which is left out.
    """
    named = isinstance(error, OSError) and error.filename is not None and error.strerror
    text = " ".join((named or str(error)).split()) or type(error).__name__
    return text if len(text) <= REASON_LENGTH else f"… {text[-REASON_LENGTH:].partition(' ')[2]}"
