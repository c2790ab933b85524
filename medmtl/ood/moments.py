"""Moments: sums over the voxels of a feature map that come window by window."""

import torch
from torch import Tensor, float32, float64, zeros

ROOM = 2**17  # numbers that wait to be multiplied, half a megabyte: what stays in a processor's cache


class Moments:
    """The Gram matrix and the channel sums of weighted voxels.

    With F the voxels by channels and w what each counts, the Gram matrix is F^T diag(w) F. Voxels wait until there are
    many, since one product of many takes less time than many products of few.

    Args:
        like: a feature map `(C, ...)`: how many channels there are, and on which device.
        exact: whether products of the voxels that wait are float64; otherwise they are float32. Sums of these products
            are float64.
    """

    def __init__(self, like: Tensor, exact: bool) -> None:
        channels = len(like)
        self.voxels = 0.0
        self._gram = zeros(channels, channels, dtype=float64, device=like.device)
        self._total = zeros(channels, dtype=float64, device=like.device)
        self._dtype = float64 if exact else float32
        self._columns = self._gram.new_empty(channels, ROOM // channels, dtype=self._dtype)
        self._roots = self._gram.new_empty(ROOM // channels, dtype=self._dtype)
        self._used = 0

    def add(self, features: Tensor, roots: Tensor | None, voxels: float) -> None:
        """Add voxels.

        Args:
            features: `(C, h, w, d)`.
            roots: square roots of what they count, `(h, w, d)`; None where each counts as one.
            voxels: the sum of what they count.
        """
        self.voxels += voxels
        room = len(self._roots)
        if features[0].numel() <= room:
            self._wait(features, roots)
            return
        flat, weights = features.flatten(1), None if roots is None else roots.flatten()
        for start in range(0, flat.shape[1], room):
            part = slice(start, start + room)
            self._wait(flat[:, part], None if weights is None else weights[part])

    def gram(self) -> Tensor:
        """F^T diag(w) F, `(C, C)` float64."""
        self._multiply()
        return self._gram.clone()

    def total(self) -> Tensor:
        """The sum of each channel, `(C,)` float64."""
        self._multiply()
        return self._total.clone()

    def _wait(self, features: Tensor, roots: Tensor | None) -> None:
        """Keep voxels `(C, ...)` until there are many; there is room for them."""
        count = features[0].numel()
        if self._used + count > len(self._roots):
            self._multiply()
        place = self._columns.narrow(1, self._used, count).view(features.shape).copy_(features)
        counted = self._roots.narrow(0, self._used, count)
        if roots is None:
            counted.fill_(1)
        else:
            place.mul_(roots)
            counted.copy_(roots.view(-1))
        self._used += count

    def _multiply(self) -> None:
        """Add up the voxels that wait, in their own precision wherever the network computes in another."""
        columns, roots = self._columns.narrow(1, 0, self._used), self._roots.narrow(0, 0, self._used)
        with torch.autocast(self._gram.device.type, enabled=False):
            self._gram += columns @ columns.mT
            self._total += columns @ roots
        self._used = 0
