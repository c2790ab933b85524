"""Volumes of any size as flat pieces on the CPU: deterministic results in a few MB of memory."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medmtl.errors import DataError

# Voxels processed at a time. Temporaries of this size stay in the processor's cache; and below 32,768 elements torch
# uses one thread, so that sums do not depend on the number of threads and no thread waits for a busy core.
PIECE = 32_000


def pieces(probabilities: Sequence[Tensor], label: Tensor, region: Tensor | None) -> Iterator[list[Tensor]]:
    """Corresponding flat pieces of volumes of one shape.

    Args:
        probabilities: one volume or one for each class, all of one shape, in [0, 1].
        label: of the same shape, any type.
        region: True for the voxels that count, of the same shape; None counts all.

    Yields:
        Probabilities and, last, the label of at most `PIECE` voxels in the region, each 1-D and on the CPU.

    Raises:
        DataError: shapes differ, or a probability in the region is not in [0, 1].
    """
    volumes = [*probabilities, label] if region is None else [*probabilities, label, region]
    if any(volume.shape != label.shape for volume in volumes):
        shapes = ", ".join(str(tuple(volume.shape)) for volume in volumes)
        raise DataError(f"probability, label and region differ in shape: {shapes}", fix="bring them to one grid")
    # MONAI's MetaTensor would carry its metadata through every operation.
    for parts in _split([volume.as_subclass(Tensor) for volume in volumes]):
        parts = [part.cpu() for part in parts]
        if region is not None:
            inside = parts.pop().bool()
            parts = [part.masked_select(inside) for part in parts]
        if len(parts[0]):
            for p in parts[:-1]:
                _check_probability(p)
            yield parts


def foreground_of(label: Tensor) -> Tensor:
    """A label of 0 and 1 as bool.

    Raises:
        DataError: it holds another value.
    """
    foreground = label.bool()
    if label.dtype == torch.bool or not len(label):
        return foreground
    low, high = torch.aminmax(label)
    if low < 0 or high > 1 or (label.is_floating_point() and not torch.equal(foreground.to(label.dtype), label)):
        wrong = label[foreground.to(label.dtype) != label][0].item()
        raise DataError(f"label value {wrong} is neither 0 nor 1", fix="pass label == value for the organ's value")
    return foreground


def class_of(label: Tensor, classes: int) -> Tensor:
    """A label of class numbers as int64.

    Raises:
        DataError: it holds something other than 0, 1, ..., classes - 1.
    """
    number = label.long()
    wrong = (number < 0) | (number >= classes) | (number != label)
    if wrong.any():
        raise DataError(
            f"label value {label[wrong][0].item()} is not a class of 0 to {classes - 1}",
            fix="leave voxels without a class out by the region",
        )
    return number


def _check_probability(p: Tensor) -> None:
    low, high = torch.aminmax(p)
    if not (low >= 0 and high <= 1):  # a NaN makes both NaN
        wrong = p[~((p >= 0) & (p <= 1))][0].item()
        raise DataError(f"probability {wrong} is not in [0, 1]", fix="bin softmax or sigmoid outputs, not logits")


def _split(volumes: list[Tensor]) -> Iterator[list[Tensor]]:
    """Flat pieces of at most `PIECE` voxels, copying no more than that even if the layouts in memory differ."""
    voxels = volumes[0].numel()
    if voxels <= PIECE:
        yield [volume.reshape(-1) for volume in volumes]
        return
    rows = PIECE * len(volumes[0]) // voxels
    for parts in zip(*(volume.split(rows) if rows > 1 else volume.unbind() for volume in volumes), strict=True):
        yield from _split(list(parts))
