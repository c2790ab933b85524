"""Reader: an input in, its volume out on its own grid, or one line that says why not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from medmtl.errors import DataError
from medmtl.io.dicom import read_dicom
from medmtl.io.input import Input
from medmtl.io.itk import read_itk
from medmtl.io.nifti import read_nifti
from medmtl.io.stacking import HOW, parts_of
from medmtl.io.stored import Stored, check_grid, gather, reason
from medmtl.io.volume import AFFINE_TOLERANCE_MM

RESAMPLE = "resample one to the other's grid"


@dataclass(frozen=True)
class Scan:
    """A volume on its own grid.

    Attributes:
        name: name of the input, of which the names of its outputs are made.
        input: where it came from; of several files the first that is stacked.
        image: `(C, H, W, D)` float32 in the file's storage order, with the affine from voxel indices to mm,
            right-anterior-superior.
        modality: CT, MR, PET or other, as the list or the file says; None if neither does.
        warnings: what a user should know about this volume.
        header: what the writer needs of the file; see the module of its kind.
    """

    name: str
    input: Input
    image: MetaTensor
    modality: str | None
    warnings: tuple[str, ...] = ()
    header: object = None


def read(source: Input, channels: Sequence[int] = ()) -> Scan:
    """Read a volume, or the channels of an image one after the other, so that one is held beside the result at most.

    Args:
        source: one of `find_inputs`.
        channels: numbers of those to stack, in their order; empty for a network that takes one.

    Raises:
        DataError: one line that names the file and what is wrong with it: it is missing, broken, no volume of real
            numbers, not finite, constant, or its grid has no size or no right angles; or a channel is missing, or lies
            on another grid than the first.
    """
    parts = parts_of(source, channels)
    first, grid = parts[0], _read(parts[0])
    if not channels:
        return _scan(source, grid, grid.voxels[None])
    voxels = np.empty((len(parts), *grid.voxels.shape), np.float32)
    voxels[0], grid = grid.voxels, grid._replace(voxels=voxels[0])
    for place, part in enumerate(parts[1:], start=1):
        grid = _joined(grid, first, _read(part), part, voxels[place])
    return _scan(replace(source, path=first.path, kind=first.kind, series=first.series), grid, voxels)


def _joined(grid: Stored, first: Input, other: Stored, part: Input, place: np.ndarray) -> Stored:
    """Put a channel into its place, and return what is known of all channels so far."""
    if other.voxels.shape != place.shape:
        size, own = (" x ".join(map(str, shape)) for shape in (other.voxels.shape, place.shape))
        raise DataError(f"{part.path} has {size} voxels, its channel {first.path.name} {own}", fix=RESAMPLE)
    if not np.allclose(other.affine, grid.affine, atol=AFFINE_TOLERANCE_MM):
        raise DataError(f"{part.path} has another affine than its channel {first.path.name}", fix=RESAMPLE)
    place[:] = other.voxels
    modality = grid.modality if grid.modality == other.modality else None
    return grid._replace(modality=modality, warnings=tuple(dict.fromkeys([*grid.warnings, *other.warnings])))


def _read(source: Input) -> Stored:
    try:
        return _stored(source)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{source.path} is missing", fix="correct the path") from None
    except PermissionError:
        raise DataError(f"{source.path} may not be read", fix="ask for permission to read it") from None
    except MemoryError:
        raise DataError(f"{source.path} does not fit into memory", fix="crop it") from None
    except Exception as error:  # nibabel, SimpleITK and pydicom raise a dozen kinds for a broken file
        raise DataError(f"{source.path} cannot be read ({reason(error)})", fix="replace the file") from error


def scan_of(image: np.ndarray | torch.Tensor, affine: np.ndarray | None = None, channels: Sequence[int] = ()) -> Scan:
    """A volume in memory as a scan, after the same checks as for a file.

    Args:
        image: `(H, W, D)` or `(1, H, W, D)`, or `(C, H, W, D)` with channels; real numbers; it is copied.
        affine: `(4, 4)` from voxel indices to mm, right-anterior-superior; by default that of a `MetaTensor`.
        channels: as of `read`.

    Raises:
        DataError: there is no affine, or see `read`.
    """
    where = "the image"
    if affine is None and isinstance(image, MetaTensor):
        affine = image.affine.numpy()
    if affine is None:
        raise DataError(f"{where} has no affine", fix="give the affine from voxel indices to mm")
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if channels and (array.ndim != 4 or len(array) <= max(channels)):
        wanted = ", ".join(map(str, channels))
        raise DataError(f"{where} has the shape {array.shape}, and the network stacks channels {wanted}", fix=HOW)
    if not channels and array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {array.dtype} and not real numbers", fix="give one number a voxel")
    grid = np.array(affine, np.float64)
    if grid.shape != (4, 4):
        raise DataError(f"{where} has an affine of shape {grid.shape}", fix="give one of shape (4, 4)")
    volumes = [array[channel] for channel in channels] or [array]
    voxels = np.empty((len(volumes), *volumes[0].shape), np.float32)
    for place, volume in enumerate(volumes):
        voxels[place] = gather(where, volume.shape, partial(_slab, volume))
    check_grid(where, grid, voxels.shape[1:])
    return _scan(Input("image", Path("image"), "array"), Stored(voxels[0], grid, None), voxels)


def _slab(volume: np.ndarray, part: slice) -> np.ndarray:
    return volume[..., part]


def _stored(source: Input) -> Stored:
    if source.kind == "nifti":
        return read_nifti(source.path, source.volume or 0)
    if source.kind == "dicom":
        return read_dicom(source.path, source.series)
    return read_itk(source.path, source.volume or 0)


def _scan(source: Input, stored: Stored, voxels: np.ndarray) -> Scan:
    """A scan of voxels `(C, H, W, D)` and of what was stored with them."""
    image = MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(stored.affine))
    modality, warnings = source.modality or stored.modality, stored.warnings
    if stored.modality not in (None, modality):
        warnings += (f"the list says {modality}, the file {stored.modality}: the list is believed",)
    return Scan(source.name, source, image, modality, warnings, stored.header)
