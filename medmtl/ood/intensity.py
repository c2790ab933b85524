"""Intensities of an image, as the detectors that need no network see them."""

import torch
from torch import Tensor

BINS = 150
WINDOW = (-1.0, 1.0)


def intensity_histogram(image: Tensor, window: bool) -> Tensor:
    """Intensity histogram feature (Vasiliuk et al., arXiv 2306.13528).

    Args:
        image: as a recipe prepares it, any shape.
        window: the recipe clips to a window, which it scales to [-1, 1]: the bins then cover that. Otherwise they run
            from the image's least value to its greatest.

    Returns:
        Share of voxels in 150 equal bins, `(150,)` float64 that sums to 1. A constant image fills the first bin.
    """
    values = image.detach().as_subclass(Tensor).reshape(-1).double().cpu()
    low, high = WINDOW if window else (float(values.min()), float(values.max()))
    if low == high:
        return torch.eye(1, BINS, dtype=torch.float64)[0]
    return torch.histc(values.clamp(low, high), BINS, low, high) / values.numel()
