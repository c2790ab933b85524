"""Moments: sums over the voxels of a feature map that come window by window."""

import torch
from torch import Tensor, float32, float64, zeros

# Sums in float32 are over pieces of so many voxels; those over pieces are float64.
PIECE = 256
ROOM = 2**17  # numbers that wait to be multiplied, half a megabyte: what stays in a processor's cache


class Moments:
    """The Gram matrix and the channel sums of weighted voxels.

    With F the voxels by channels and w what each counts, the Gram matrix is F^T diag(w) F. Voxels wait until there are
    many, since one product of many takes less time than many products of few.

    Args:
        like: a feature map `(C, ...)`: how many channels there are, and on which device.
        exact: whether products are float64; otherwise those of the Gram matrix are float32 within pieces of 256
            voxels, and channel sums within those that wait.
    """

    def __init__(self, like: Tensor, exact: bool) -> None:
        channels = len(like)
        self.voxels = 0.0
        self._gram = zeros(channels, channels, dtype=float64, device=like.device)
        self._total = zeros(channels, dtype=float64, device=like.device)
        self._dtype = float64 if exact else float32
        self._room(ROOM // channels)

    def add(self, features: Tensor, roots: Tensor | None, voxels: float) -> None:
        """Add voxels.

        Args:
            features: `(C, h, w, d)`.
            roots: square roots of what they count, `(h, w, d)`; None where each counts as one.
            voxels: the sum of what they count.
        """
        count = features[0].numel()
        if self._used + count > len(self._roots):
            self._multiply()
            if count > len(self._roots):
                self._room(count)
        place = self._columns.narrow(1, self._used, count).view(features.shape).copy_(features)
        counted = self._roots.narrow(0, self._used, count)
        if roots is None:
            counted.fill_(1)
        else:
            place.mul_(roots)
            counted.copy_(roots.view(-1))
        self._used += count
        self.voxels += voxels

    def gram(self) -> Tensor:
        """F^T diag(w) F, `(C, C)` float64."""
        self._multiply()
        return self._gram.clone()

    def total(self) -> Tensor:
        """The sum of each channel, `(C,)` float64."""
        self._multiply()
        return self._total.clone()

    def _room(self, voxels: int) -> None:
        whole = -(-voxels // PIECE) * PIECE
        self._columns = self._gram.new_zeros(len(self._gram), whole, dtype=self._dtype)
        self._roots = self._gram.new_zeros(whole, dtype=self._dtype)
        self._used = 0

    def _multiply(self) -> None:
        """Add up the voxels that wait, in their own precision wherever the network computes in another."""
        columns, roots = self._columns[:, : self._used], self._roots[: self._used]
        with torch.autocast(self._gram.device.type, enabled=False):
            self._total += columns @ roots
            if self._dtype == float64:
                self._gram.addmm_(columns, columns.mT)
            else:
                whole = -(-self._used // PIECE) * PIECE
                self._columns[:, self._used : whole] = 0
                pieces = self._columns[:, :whole].unflatten(1, (-1, PIECE)).transpose(0, 1)
                self._gram += torch.bmm(pieces, pieces.mT).sum(0, dtype=float64)
        self._used = 0
