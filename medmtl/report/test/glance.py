"""A test case at a glance: its three planes side by side, with the edges of truth and prediction, as pixels."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, zoom

from medmtl.report.orientation import on_page
from medmtl.report.outline import PREDICTION, TRUTH
from medmtl.report.slices import CaseSlices, Plane

HEIGHT = 128  # pixels
GAP = 4


def glance(slices: CaseSlices) -> NDArray[np.uint8]:
    """Draw a case without matplotlib, which takes milliseconds: for a table of all cases.

    Args:
        slices: its planes.

    Returns:
        `(128, W, 3)`, each plane as on a page, see `medmtl.report.orientation`.
    """
    low, high = slices.grey
    shown = [_pixels(plane, low, max(high, low + 1e-6)) for plane in slices.planes.values()]
    gap = np.zeros((HEIGHT, GAP, 3), np.uint8)
    return np.concatenate([part for each in shown for part in (each, gap)][:-1], axis=1)


def _pixels(plane: Plane, low: float, high: float) -> NDArray[np.uint8]:
    steps = np.divide(plane.spacing, plane.spacing[1] * plane.image.shape[1] / HEIGHT)
    grey = np.clip((_zoomed(plane.image, steps, 1) - low) / (high - low), 0, 1)
    pixels = np.repeat((grey * 255).astype(np.uint8)[..., None], 3, axis=2)
    for mask, colour in ((plane.label, TRUTH.colour), (plane.probability >= 0.5, PREDICTION.colour)):
        whole = _zoomed(mask.astype(np.float32), steps, 0) >= 0.5
        pixels[whole & ~binary_erosion(whole)] = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return np.stack([on_page(channel) for channel in np.moveaxis(pixels, 2, 0)], axis=2)


def _zoomed(values: NDArray[np.float32], steps: NDArray[np.float64], order: int) -> NDArray[np.float32]:
    """Values on pixels of one size, `(W, 128)`."""
    shape = max(round(values.shape[0] * steps[0]), 1), HEIGHT
    factors = np.divide(shape, values.shape)
    found: NDArray[np.float32] = zoom(values, factors, order=order, grid_mode=True, mode="nearest")
    return found
