"""Shares: what the voxels of sliding windows count at the sizes of a network's layers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Size, Tensor
from torch.nn import functional


class Box(NamedTuple):
    """What the voxels of a layer count in some windows.

    Attributes:
        part: along each axis, those that count at all in one of the windows.
        roots: square roots of what they count, `(B, h, w, d)`.
    """

    part: tuple[slice, ...]
    roots: Tensor


class WindowWeights:
    """Some windows, which the network sees together.

    Layers share sizes, windows share places along an axis, and the mean of a product over a box is the product of the
    means: little is computed twice, and nothing at the size of the input.

    Args:
        weights: see `FeatureTap.weighing`.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.axes = [axis.cpu() for axis in weights]
        self._keys = [(axis.numpy().tobytes(), axis.dtype, axis.shape) for axis in self.axes]
        self._boxes: dict[Size, Box] = {}

    def box(self, size: Size) -> Box:
        """What the voxels of a layer of some size `(h, w, d)` count."""
        if size not in self._boxes:
            found = [_along(*key, length) for key, length in zip(self._keys, size, strict=True)]
            h, w, d = (roots for _, roots in found)
            roots = h[:, :, None, None] * w[:, None, :, None] * d[:, None, None, :]
            self._boxes[size] = Box(tuple(part for part, _ in found), roots)
        return self._boxes[size]


@lru_cache(maxsize=1000)
def _along(share: bytes, dtype: torch.dtype, shape: Size, length: int) -> tuple[slice, Tensor]:
    """Along one axis the voxels of a layer that count, and the square roots of what they count, `(B, part)`.

    Args:
        share: what input voxels count, `(B, side)`, as bytes.
        dtype: of it.
        shape: of it.
        length: voxels of the layer along the axis.
    """
    pooled = functional.adaptive_avg_pool1d(
        torch.frombuffer(bytearray(share), dtype=dtype).view(shape)[:, None], length
    )
    counted = pooled.any(0).any(0).nonzero().flatten().tolist() or [0]
    part = slice(counted[0], counted[-1] + 1)
    return part, pooled[:, 0, part].sqrt()
