"""WindowWeights: weights of the voxels of sliding windows at the sizes of a network's layers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Size, Tensor
from torch.nn import functional


class Box(NamedTuple):
    """Weights of the voxels of a layer in some windows.

    Attributes:
        part: along each axis, those whose weight is above 0 in one of the windows.
        roots: square roots of their weights, `(B, h, w, d)`.
    """

    part: tuple[slice, ...]
    roots: Tensor


class WindowWeights:
    """Weights of the windows of one batch.

    Layers share sizes, windows share places along an axis, and the mean of a product over a box is the product of the
    means: factors are cached, and nothing is computed at the size of the input.

    Args:
        weights: see `FeatureTap.weighing`.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.axes = [axis.cpu() for axis in weights]
        self._keys = [(axis.numpy().tobytes(), axis.dtype, axis.shape) for axis in self.axes]
        self._boxes: dict[Size, Box] = {}

    def box(self, size: Size) -> Box:
        """Weights of the voxels of a layer of size `(h, w, d)`."""
        if size not in self._boxes:
            found = [_along(*key, length) for key, length in zip(self._keys, size, strict=True)]
            h, w, d = (roots for _, roots in found)
            roots = h[:, :, None, None] * w[:, None, :, None] * d[:, None, None, :]
            self._boxes[size] = Box(tuple(part for part, _ in found), roots)
        return self._boxes[size]


@lru_cache(maxsize=1000)
def _along(weights: bytes, dtype: torch.dtype, shape: Size, length: int) -> tuple[slice, Tensor]:
    """Along one axis the voxels of a layer with a weight, and the square roots of their weights, `(B, part)`.

    Args:
        weights: of the input voxels, `(B, side)`, as bytes.
        dtype: of it.
        shape: of it.
        length: voxels of the layer along the axis.
    """
    pooled = functional.adaptive_avg_pool1d(
        torch.frombuffer(bytearray(weights), dtype=dtype).view(shape)[:, None], length
    )
    counted = pooled.any(0).any(0).nonzero().flatten().tolist() or [0]
    part = slice(counted[0], counted[-1] + 1)
    return part, pooled[:, 0, part].sqrt()
