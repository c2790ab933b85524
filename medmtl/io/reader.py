"""Reader: images as float32 on their own grid, for training and prediction alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from monai.data import MetaTensor

from medmtl.errors import DataError
from medmtl.io.input import Input
from medmtl.io.stacking import HOW, parts_of
from medmtl.io.stored import (
    AFFINE_TOLERANCE_MM,
    Stored,
    cause_of_shift,
    check_contrast,
    check_grid,
    check_shape,
    convert,
)
from medmtl.io.volume import opened


@dataclass(frozen=True)
class Scan:
    """A volume on its own grid.

    Attributes:
        name: name of the input, of which the names of its outputs are made.
        input: where it came from; of several files the first that is stacked.
        image: `(C, H, W, D)` float32 in the file's storage order, with the affine from voxel indices to mm,
            right-anterior-superior.
        modality: CT, MR, PET or other, from the list or the file; None if neither names it.
        warnings: what a user should know about this volume.
        header: what the writer needs of the file; see the module of its kind.
    """

    name: str
    input: Input
    image: MetaTensor
    modality: str | None
    warnings: tuple[str, ...] = ()
    header: object = None


class Stack(NamedTuple):
    """Volumes of one grid that are the channels of an image.

    Attributes:
        voxels: `(C, H, W, D)` float32, in the first file's storage order.
        affine: `(4, 4)` float64, from voxel indices to mm, right-anterior-superior.
        modality: CT, MR, PET or other where all files agree; None otherwise.
        warnings: what a user should know about the files.
        header: of the first file, see `Stored`.
        volumes: that the first file holds.
    """

    voxels: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    warnings: tuple[str, ...] = ()
    header: object = None
    volumes: int = 1


def read(source: Input, channels: Sequence[int] = ()) -> Scan:
    """Read a volume, or the channels of an image, to predict from.

    Args:
        source: one of `find_inputs`.
        channels: numbers of those to stack, in their order; empty for a network that takes one.

    Raises:
        DataError: see `read_stack`; or a channel is missing.
    """
    parts = parts_of(source, channels)
    stack = read_stack(parts)
    if not channels and stack.volumes > 1:
        chosen = f"volume {source.volume or 0} of {stack.volumes} in the file, counted from 0, was used"
        stack = stack._replace(warnings=(*stack.warnings, chosen))
    if channels:
        source = replace(source, path=parts[0].path, kind=parts[0].kind, series=parts[0].series)
    return _scan(source, stack)


def read_stack(parts: Sequence[Input], constant: bool = False) -> Stack:
    """Read the channels of an image, each straight into its place: no second copy of a volume is ever held.

    Args:
        parts: an input a channel, one at least.
        constant: whether a channel may hold one value in all voxels.

    Raises:
        DataError: names the file and the reason in one line: it is missing, broken, no volume of real
            numbers, not finite, constant, or its grid has no size or no right angles; or channels are on several grids.
    """
    result: Stack | None = None
    place = 0
    for (path, kind, series), group in groupby(parts, key=lambda part: (part.path, part.kind, part.series)):
        with opened(path, kind, series) as stored:
            numbers = [part.volume for part in group]
            if len(parts) > 1 and None in numbers and stored.volumes > 1:
                raise DataError(f"{path} holds {stored.volumes} volumes, where each channel is a file", fix="split it")
            volumes = [number or 0 for number in numbers]
            for volume in volumes:
                stored.check_volume(volume)
            check_grid(stored.where, stored.affine, stored.shape)
            if result is None:
                voxels = np.empty((len(parts), *stored.shape), np.float32)
                result = Stack(voxels, stored.affine, stored.modality, stored.warnings, stored.header, stored.volumes)
            else:
                check_same_grid(stored, result, f"channel {parts[0].path.name}")
                modality = result.modality if result.modality == stored.modality else None
                warnings = tuple(dict.fromkeys([*result.warnings, *stored.warnings]))
                result = result._replace(modality=modality, warnings=warnings)
            for volume in volumes:
                convert(stored.where, partial(stored.part, volume), result.voxels[place])
                if not constant:
                    check_contrast(stored.where, result.voxels[place])
                place += 1
    return cast("Stack", result)


def check_same_grid(stored: Stored, image: Stack, other: str) -> None:
    """Check that a file has the grid of an image.

    Args:
        stored: the file, a further channel or the label of the image.
        image: what was read of the image.
        other: what the image is to the file, for the message: "image".

    Raises:
        DataError: another shape, or an affine that differs by more than `AFFINE_TOLERANCE_MM`.
    """
    if tuple(stored.shape) != image.voxels.shape[1:]:
        size, own = (" x ".join(map(str, each)) for each in (stored.shape, image.voxels.shape[1:]))
        raise DataError(f"{stored.where} has {size} voxels, its {other} {own}", fix="resample one to the other's grid")
    if not np.allclose(stored.affine, image.affine, atol=AFFINE_TOLERANCE_MM):
        cause = cause_of_shift(stored.warnings, image.warnings)
        raise DataError(
            f"{stored.where} has another affine than its {other}{cause}",
            fix="correct the header of one, or resample one",
        )


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
    check_shape(where, volumes[0].shape)
    check_grid(where, grid, volumes[0].shape)
    voxels = np.empty((len(volumes), *volumes[0].shape), np.float32)
    for place, volume in zip(voxels, volumes, strict=True):
        convert(where, partial(_slab, volume), place)
        check_contrast(where, place)
    return _scan(Input("image", Path("image"), "array"), Stack(voxels, grid))


def _slab(volume: np.ndarray, place: slice) -> np.ndarray:
    return volume[..., place]


def _scan(source: Input, stack: Stack) -> Scan:
    image = MetaTensor(torch.from_numpy(stack.voxels), affine=torch.from_numpy(stack.affine))
    modality, warnings = source.modality or stack.modality, stack.warnings
    if stack.modality not in (None, modality):
        warnings += (f"the list gives the modality {modality}, the file {stack.modality}: that of the list is used",)
    return Scan(source.name, source, image, modality, warnings, stack.header)
