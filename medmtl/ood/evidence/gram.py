"""GramMatrix: the Gram matrix of a feature map, accumulated window by window."""

import math

import torch
from torch import Tensor, float32, float64


class GramMatrix:
    """The Gram matrix and the channel sums of weighted voxels.

    With F the voxels by channels and w their weights, the Gram matrix is F^T diag(w) F. The square roots of the weights
    are an additional channel, whose products with the others are the channel sums: one product for all.

    Args:
        channels: of the feature map.
        exact: whether products are float64; otherwise they are float32, each over the voxels of one slab of a window.
            Sums over slabs are float64.
        device: of the feature map.
    """

    def __init__(self, channels: int, exact: bool, device: torch.device) -> None:
        self._channels = channels
        self._dtype = float64 if exact else float32
        self._sums = torch.zeros(channels + 1, channels + 1, dtype=float64, device=device)
        self._room = self._sums.new_empty(0)

    def add(self, features: Tensor, roots: Tensor) -> None:
        """Add voxels of some windows.

        Args:
            features: `(B, C, h, w, d)`.
            roots: square roots of the weight of each voxel, `(B, h, w, d)`.
        """
        windows, _, height, *rest = features.shape
        roots = roots.to(self._sums.device, self._dtype)[:, :, None]
        shape = (windows, height, self._channels + 1, *rest)
        if self._room.numel() < math.prod(shape):  # memory that was used before costs less than new memory
            self._room = roots.new_empty(math.prod(shape))
        columns = self._room[: math.prod(shape)].view(shape)
        torch.mul(features.transpose(1, 2), roots, out=columns[:, :, :-1])
        columns[:, :, -1:] = roots
        slabs = columns.flatten(3).flatten(0, 1)
        with torch.autocast(self._sums.device.type, enabled=False):  # whatever the network computes in
            self._sums += torch.bmm(slabs, slabs.mT).sum(0, dtype=float64)

    @property
    def gram(self) -> Tensor:
        """F^T diag(w) F, `(C, C)` float64."""
        return self._sums[:-1, :-1].clone()

    @property
    def total(self) -> Tensor:
        """The sum of each channel, `(C,)` float64."""
        return self._sums[:-1, -1].clone()

    @property
    def voxels(self) -> float:
        """The sum of the weights."""
        return float(self._sums[-1, -1])
