"""Shares: what the voxels of a sliding window count at the sizes of a network's layers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Size, Tensor
from torch.nn import functional


class Box(NamedTuple):
    """What the voxels of a layer count in one window.

    Attributes:
        part: along each axis, those that count at all.
        roots: square roots of what they count, `(h, w, d)`; None where each of them counts as one.
        total: the sum of what they count.
    """

    part: tuple[slice, ...]
    roots: Tensor | None
    total: float


class _Along(NamedTuple):
    """What the voxels of a layer count along one axis; `whole` where each of them counts as one."""

    part: slice
    roots: Tensor
    total: float
    whole: bool


class Window:
    """One window: the shares of its voxels along the axes, and what they are at the sizes that were asked for."""

    def __init__(self, shares: Sequence[Tensor], keys: tuple[bytes, ...]) -> None:
        self.shares = shares
        self.keys = keys
        self.boxes: dict[Size, Box] = {}


class Shares:
    """What voxels count in the windows of one volume.

    Layers share sizes, windows share places along an axis, and the mean of a product over a box is the product of the
    means: no weight is computed twice, nor at the size of the input.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[bytes, ...], Window] = {}
        self._axes: dict[tuple[bytes, int], _Along] = {}

    def windows(self, shares: Sequence[Tensor]) -> list[Window]:
        """Windows by what their voxels count along the axes, see `FeatureTap.weighing`."""
        found = []
        for own in zip(*(axis.cpu() for axis in shares), strict=True):
            keys = tuple(axis.numpy().tobytes() for axis in own)
            if keys not in self._windows:
                self._windows[keys] = Window(own, keys)
            found.append(self._windows[keys])
        return found

    def box(self, window: Window, size: Size) -> Box:
        """What the voxels of a layer of some size `(h, w, d)` count in a window."""
        if size not in window.boxes:
            axes = [self._along(*of_axis) for of_axis in zip(window.shares, window.keys, size, strict=True)]
            h, w, d = (along.roots for along in axes)
            whole = all(along.whole for along in axes)
            window.boxes[size] = Box(
                part=tuple(along.part for along in axes),
                roots=None if whole else h[:, None, None] * w[:, None] * d,
                total=math.prod(along.total for along in axes),
            )
        return window.boxes[size]

    def _along(self, share: Tensor, key: bytes, length: int) -> _Along:
        if (key, length) not in self._axes:
            pooled = functional.adaptive_avg_pool1d(share[None, None], length)[0, 0]
            counted = pooled.nonzero().flatten().tolist() or [0]
            part = slice(counted[0], counted[-1] + 1)
            total, whole = float(pooled.double().sum()), bool((pooled[part] == 1).all())
            self._axes[key, length] = _Along(part, pooled[part].sqrt(), total, whole)
        return self._axes[key, length]
