"""Shape: sixteen descriptors of a predicted mask, in its image's working space.

They are numbers that a reader of the image could check: volume, parts, position, brightness. Everything but the share
of the image and the position is computed within the mask's bounding box, so that large volumes cost little.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medmtl.quantity import CUBIC_MM, Quantity

SHELL = 2  # voxels around the mask that count as just outside
EVERY_SIDE = np.ones((3, 3, 3), dtype=bool)  # voxels that share a corner are connected
LOOSE, STRICT = 0.25, 0.75  # other thresholds of the probability

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Descriptor(Quantity):
    """A number that describes a predicted mask.

    Attributes:
        meaning: what it is, in a sentence.
        logarithmic: whether ratios of it matter, so that its logarithm is compared.
        least: smaller values are raised to it before the logarithm.
        least_spread: the smallest spread among images that is believed, after the logarithm.
        low: what a low value means, for messages: "smaller".
        high: the same of a high value: "larger".
    """

    meaning: str
    logarithmic: bool = False
    least: float = 1e-6
    least_spread: float = 0.05
    low: str
    high: str

    def scaled(self, value: float) -> float:
        """The value, or its logarithm."""
        return math.log(max(value, self.least)) if self.logarithmic else value

    def unscaled(self, value: float) -> float:
        """The inverse of `scaled`."""
        return math.exp(value) if self.logarithmic else value

    def text(self, value: float) -> str:
        """A value for readers, with its unit."""
        number = f"{value:.0f}" if self.digits == 0 else f"{value:.3g}"
        return f"{number} {self.unit}".rstrip()


def _by_key(*descriptors: Descriptor) -> Mapping[str, Descriptor]:
    return MappingProxyType({each.key: each for each in descriptors})


DESCRIPTORS = _by_key(
    Descriptor(
        key="volume_ml",
        label="volume",
        unit="ml",
        meaning="volume of the mask",
        logarithmic=True,
        least=1e-3,
        low="smaller",
        high="larger",
    ),
    Descriptor(
        key="image_share",
        label="share of the image",
        meaning="share of the image's voxels that are in the mask",
        logarithmic=True,
        low="a smaller share of the image",
        high="a larger share of the image",
    ),
    Descriptor(
        key="parts",
        label="parts",
        digits=0,
        meaning="number of connected parts of the mask, voxels that share a corner being connected",
        logarithmic=True,
        low="fewer parts",
        high="more parts",
    ),
    Descriptor(
        key="largest_share",
        label="share of the largest part",
        meaning="share of the mask's voxels in its largest part",
        low="more scattered",
        high="more in one part",
    ),
    Descriptor(
        key="elongation",
        label="elongation",
        meaning="longest principal axis of the mask over its shortest",
        logarithmic=True,
        low="less elongated",
        high="more elongated",
    ),
    Descriptor(
        key="flatness",
        label="flatness",
        meaning="middle principal axis of the mask over its shortest",
        logarithmic=True,
        low="less flat",
        high="flatter",
    ),
    Descriptor(
        key="sphericity",
        label="sphericity",
        meaning="surface of a ball of the mask's volume over the surface of the mask's voxels",
        low="more irregular",
        high="rounder",
    ),
    Descriptor(
        key="surface_per_mm",
        label="surface over volume",
        unit="1/mm",
        meaning="surface of the mask's voxels over its volume",
        logarithmic=True,
        low="less surface for its volume",
        high="more surface for its volume",
    ),
    Descriptor(
        key="border_share",
        label="share at the border",
        meaning="share of the mask's voxels in the outermost layer of the image",
        low="less at the border of the image",
        high="more at the border of the image",
    ),
    Descriptor(
        key="position_x",
        label="position, left to right",
        meaning="centre of the mask between the left (0) and the right end (1) of the image",
        low="farther left",
        high="farther right",
    ),
    Descriptor(
        key="position_y",
        label="position, back to front",
        meaning="centre of the mask between the back (0) and the front end (1) of the image",
        low="farther back",
        high="farther to the front",
    ),
    Descriptor(
        key="position_z",
        label="position, foot to head",
        meaning="centre of the mask between the foot (0) and the head end (1) of the image",
        low="lower",
        high="higher",
    ),
    Descriptor(
        key="brightness",
        label="brightness inside",
        meaning="mean intensity in the mask, as preprocessed",
        low="darker inside",
        high="brighter inside",
    ),
    Descriptor(
        key="texture",
        label="spread of brightness inside",
        meaning="standard deviation of the intensity in the mask, as preprocessed",
        low="more uniform inside",
        high="less uniform inside",
    ),
    Descriptor(
        key="contrast",
        label="contrast",
        meaning="mean intensity in the mask less that of the two voxels around it, as preprocessed",
        low="darker than its surroundings",
        high="brighter than its surroundings",
    ),
    Descriptor(
        key="softness",
        label="softness",
        meaning="volume of probability 0.25 and above over that of 0.75 and above",
        logarithmic=True,
        low="more clearly delineated",
        high="less clearly delineated",
    ),
)


def describe_mask(probability: Tensor, image: Tensor, spacing_mm: Sequence[float]) -> dict[str, float]:
    """The descriptors of a predicted mask.

    Args:
        probability: of foreground, in [0, 1], `(h, w, d)`, axes towards right, front and head.
        image: preprocessed intensities, `(h, w, d)`.
        spacing_mm: size of a voxel along each axis, mm.

    Returns:
        By the keys of `DESCRIPTORS`; empty for an empty mask, which has no shape.
    """
    p = probability.detach().cpu().float().numpy()
    mask = p >= 0.5
    if not mask.any():
        return {}
    box = tuple(
        slice(max(side.start - SHELL, 0), min(side.stop + SHELL, size))
        for side, size in zip(ndimage.find_objects(mask.astype(np.uint8))[0], mask.shape, strict=True)
    )
    inside, intensity = mask[box], image.detach().cpu()[box].double().numpy()
    voxels, spacing = int(inside.sum()), np.asarray(spacing_mm, dtype=np.float64)
    volume = voxels * float(spacing.prod())
    labelled, parts = ndimage.label(inside, EVERY_SIDE)
    surface = _surface(inside, spacing)
    axes = _axes(inside, spacing)
    places = np.argwhere(inside).mean(0) + [side.start for side in box]
    position = (places + 0.5) / mask.shape
    shell = ndimage.binary_dilation(inside, EVERY_SIDE, iterations=SHELL) & ~inside
    within = intensity[inside]
    border = sum(_layer(mask, axis, end) for axis in range(3) for end in (0, -1))
    return {
        "volume_ml": volume / CUBIC_MM,
        "image_share": voxels / mask.size,
        "parts": float(parts),
        "largest_share": float(np.bincount(labelled.ravel())[1:].max()) / voxels,
        "elongation": axes[2] / axes[0],
        "flatness": axes[1] / axes[0],
        "sphericity": math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface,
        "surface_per_mm": surface / volume,
        "border_share": border / voxels,
        "position_x": float(position[0]),
        "position_y": float(position[1]),
        "position_z": float(position[2]),
        "brightness": float(within.mean()),
        "texture": float(within.std()),
        "contrast": float(within.mean() - intensity[shell].mean()) if shell.any() else 0.0,
        "softness": int((p >= LOOSE).sum()) / max(int((p >= STRICT).sum()), 1),
    }


def _surface(inside: Mask, spacing: Floats) -> float:
    """Surface of the voxels' faces, mm2; the border of the image is a surface, too."""
    total = 0.0
    for axis in range(3):
        face = float(spacing.prod() / spacing[axis])
        steps = np.diff(np.pad(inside, [(int(other == axis),) * 2 for other in range(3)]).astype(np.int8), axis=axis)
        total += face * int(np.count_nonzero(steps))
    return total


def _axes(inside: Mask, spacing: Floats) -> Floats:
    """Standard deviations along the principal axes, mm, rising; at least those of a single voxel."""
    places = np.argwhere(inside) * spacing
    covariance = np.cov(places.T, bias=True) if len(places) > 1 else np.zeros((3, 3))
    found: Floats = np.sqrt(np.linalg.eigvalsh(covariance + np.diag(spacing**2) / 12).clip(min=0))
    return found


def _layer(mask: Mask, axis: int, end: int) -> int:
    return int(np.count_nonzero(np.take(mask, end, axis)))
