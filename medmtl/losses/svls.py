"""Spatially varying label smoothing: cross-entropy with soft labels at boundaries (Islam & Glocker, 2021)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from medmtl.errors import ConfigError
from medmtl.losses.labels import targets


class SVLS(nn.Module):
    """Cross-entropy, mean over voxels, against labels blurred over their neighbours (arXiv 2104.05788), in nats.

    The label of a voxel is the mean of those of its 3 x 3 x 3 neighbourhood, weighted by a Gaussian whose centre is
    replaced by the sum of the other weights: a voxel's own label has a weight of at least one half. Labels change at
    boundaries only. At the border of a patch the outermost voxels are repeated.

    Args:
        sigma: standard deviation of the Gaussian in voxels.

    Example:
        >>> label = torch.tensor([0, 0, 1, 1]).view(1, 1, 1, 1, 4)
        >>> round(SVLS()(torch.zeros(1, 1, 1, 1, 4), label).item(), 4)  # log 2 for any label
        0.6931
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        if not sigma > 0:
            raise ConfigError(f"sigma={sigma}: the Gaussian needs a width", fix="use 1, say")
        self.sigma = sigma

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of a batch of patches.

        Args:
            logits: `(B, 1, *spatial)` of a sigmoid, or `(B, C, *spatial)` of a softmax.
            label: `(B, 1, *spatial)`, any type: 0 and 1, or numbers of classes.

        Returns:
            A number, float32 also for half-precision logits.

        Raises:
            DataError: shapes differ, or a label value is not a class.
        """
        target = smooth(targets(logits, label), self.sigma)
        logits = logits.to(target.dtype)
        if logits.shape[1] == 1:
            return binary_cross_entropy_with_logits(logits, target)
        return cross_entropy(logits, target)


def smooth(target: Tensor, sigma: float) -> Tensor:
    """Blur labels over the neighbouring voxels.

    Args:
        target: share of each class, `(B, C, *spatial)`, floating point.
        sigma: standard deviation of the Gaussian in voxels.

    Returns:
        Share of each class, of the same shape; its sum over the classes is unchanged.

    Example:
        >>> step = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64).view(1, 1, 1, 1, 4)
        >>> smooth(step, sigma=1.0).flatten().round(decimals=3).tolist()
        [0.0, 0.151, 0.849, 1.0]

    """
    beside = math.exp(-0.5 / sigma**2)
    centre, beside = 1 / (1 + 2 * beside), beside / (1 + 2 * beside)
    blurred = target
    for axis in range(2, target.ndim):
        voxels = target.shape[axis]
        first, last = blurred.narrow(axis, 0, 1), blurred.narrow(axis, voxels - 1, 1)
        wide = torch.cat([first, blurred, last], axis)
        blurred = centre * blurred + beside * (wide.narrow(axis, 0, voxels) + wide.narrow(axis, 2, voxels))
    # With w0 the weight of the centre, n = 1 - w0 that of the neighbours: (blurred - w0 y + n y) / (2 n).
    neighbours = 1 - centre ** (target.ndim - 2)
    return (blurred + (2 * neighbours - 1) * target) / (2 * neighbours)
