"""Which task an image belongs to, asked of a small image classifier: what the journal version compares with."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SIDE = 32
PERCENTILES = (0.5, 99.5)


def thumbnail(image: Tensor) -> Tensor:
    """An image shrunk to what a small classifier can see.

    Args:
        image: `(1, H, W, D)` or `(H, W, D)`, with its axes in one orientation for all images.

    Returns:
        `(32, 32, 32)` float32 in [0, 1]: clipped to percentiles 0.5 and 99.5, scaled, averaged over blocks. A constant
        image becomes 0.
    """
    volume = image.detach().as_subclass(Tensor).float().cpu()
    low, high = (float(value) for value in np.percentile(volume.numpy(), PERCENTILES))
    if low == high:
        return torch.zeros(SIDE, SIDE, SIDE)
    scaled = (volume.clamp(low, high) - low) / (high - low)
    return functional.adaptive_avg_pool3d(scaled.reshape(1, *volume.shape[-3:]), SIDE)[0]
