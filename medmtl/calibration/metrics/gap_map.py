"""Local calibration: the signed gap between probability and label, smoothed by a Gaussian, as a map."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter, gaussian_filter1d

SIGMA_MM = 3.0


def local_gap(
    probability: NDArray[np.floating],
    label: NDArray[np.bool_],
    region: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    axis: int,
    index: int,
) -> NDArray[np.float32]:
    """Mean of p - y around each voxel of one plane: the signed gap (`metrics.gap`) of its neighbourhood.

    With G a Gaussian of 3 mm in three dimensions, never less than one voxel, cut off at four times that, and m = 1 in
    the region: (G * m (p - y)) / (G * m). Voxels outside the region are excluded, instead of counted as gaps of 0.

    Args:
        probability: of foreground, `(H, W, D)`, in [0, 1].
        label: ground truth, `(H, W, D)`.
        region: the voxels that count, `(H, W, D)`.
        spacing_mm: voxel size along H, W and D, mm.
        axis: to which the plane is orthogonal.
        index: where it cuts that axis.

    Returns:
        float32, the volume's shape without `axis`, in [-1, 1]: above 0 the organ is over-estimated, below 0
        under-estimated. NaN outside the region.
    """
    sigma = [max(SIGMA_MM / step, 1.0) for step in spacing_mm]
    impulse = np.zeros(probability.shape[axis])
    impulse[index] = 1
    near = gaussian_filter1d(impulse, sigma[axis], mode="constant")  # weight of each plane in this one
    within: list[slice] = [slice(None)] * 3
    (within[axis],) = find_objects((near > 0).astype(np.int8))[0]
    gap = np.full(np.delete(probability.shape, axis), np.nan, dtype=np.float32)
    found = find_objects(region[tuple(within)].astype(np.int8))
    if not found:
        return gap
    # Only the box of the region and of that the planes nearby are smoothed; G is separable.
    start = within[axis].start
    box = tuple(slice(s.start + start, s.stop + start) if at == axis else s for at, s in enumerate(found[0]))
    inside = region[box].astype(np.float64)
    others = [at for at in range(3) if at != axis]
    mass, excess = (
        gaussian_filter(np.tensordot(near[box[axis]], volume, (0, axis)), [sigma[at] for at in others], mode="constant")
        for volume in (inside, inside * (probability[box] - label[box].astype(np.float64)))
    )
    plane = tuple(box[at] for at in others)
    np.divide(excess, mass, out=gap[plane], where=np.take(region, index, axis)[plane], casting="same_kind")
    return gap
