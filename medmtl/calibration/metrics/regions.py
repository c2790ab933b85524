"""Regions: the subsets of voxels over which calibration is computed.

Regions for the comparison of models derive from the ground truth or the image. One that derives from the prediction
covers different voxels for different models (`Region.follows_prediction`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from medmtl.errors import DataError

# Spacings come from float32 headers: their rounding must not exclude a voxel exactly at the margin.
ROUNDING = 1e-5


def whole(label: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """All voxels.

    Args:
        label: ground truth of the organ, bool `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.

    Returns:
        The region, bool `(H, W, D)`, on the label's device.
    """
    return torch.ones_like(label, dtype=torch.bool)


def band(label: Tensor, spacing_mm: Sequence[float], margin_mm: float = 5.0) -> Tensor:
    """The organ and the voxels within a margin around it.

    Args:
        label: ground truth of the organ, bool `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.
        margin_mm: how far from the organ the band reaches, mm between voxel centres.

    Returns:
        The region, bool `(H, W, D)`, on the label's device; without an organ it is empty.

    Example:
        >>> organ = torch.zeros(1, 1, 8, dtype=torch.bool)
        >>> organ[..., 3] = True
        >>> band(organ, spacing_mm=(1, 1, 2.5))[0, 0].int().tolist()  # 5 mm are two voxels
        [0, 1, 1, 1, 1, 1, 0, 0]
    """
    organ = label.cpu().bool().numpy()
    region = np.zeros_like(organ)
    if organ.any():
        near = _bounding_box(organ, [math.ceil(margin_mm / step) for step in spacing_mm])
        region[near] = distance_transform_edt(~organ[near], sampling=spacing_mm) <= margin_mm * (1 + ROUNDING)
    return torch.from_numpy(region).to(label.device)


def box(label: Tensor, spacing_mm: Sequence[float], margin_mm: float = 10.0) -> Tensor:
    """The bounding box of the organ, extended by a margin on each side.

    Args:
        label: ground truth of the organ, bool `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.
        margin_mm: how far beyond the organ the box reaches, mm between voxel centres.

    Returns:
        The region, bool `(H, W, D)`, on the label's device; without an organ it is empty.
    """
    organ = label.cpu().bool().numpy()
    region = np.zeros_like(organ)
    if organ.any():
        region[_bounding_box(organ, [math.floor(margin_mm / step * (1 + ROUNDING)) for step in spacing_mm])] = True
    return torch.from_numpy(region).to(label.device)


def shell(label: Tensor, spacing_mm: Sequence[float], radius_mm: float = 5.0) -> Tensor:
    """The voxels within a radius of the organ's surface, on both sides.

    Args:
        label: ground truth of the organ, bool `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.
        radius_mm: largest distance to the nearest voxel of the other side, mm between voxel centres. Below the voxel
            size the shell is empty.

    Returns:
        The region, bool `(H, W, D)`, on the label's device; empty if all voxels are organ or none is. The border of the
        volume is no surface.
    """
    organ = label.cpu().bool().numpy()
    region = np.zeros_like(organ)
    if organ.any() and not organ.all():
        near = _bounding_box(organ, [math.ceil(radius_mm / step) for step in spacing_mm])
        inside = organ[near]
        for side in (inside, ~inside) if not inside.all() else ():
            distance = distance_transform_edt(side, sampling=spacing_mm)
            region[near] |= side & (distance <= radius_mm * (1 + ROUNDING))
    return torch.from_numpy(region).to(label.device)


def body(image: Tensor) -> Tensor:
    """The body: the largest object of the image brighter than air, with holes filled.

    Two thresholds divide the intensities into three classes (Otsu, IEEE Trans. SMC 1979, section V), clipped to their
    0.5th and 99.5th percentile: air, tissue, and brighter. Of the voxels above the lower threshold the largest
    connected component is kept, and holes in any plane along the axes are filled. It derives from the image alone. It
    is meant for CT and MR with air around the body; in PET, and in a crop within the body, it excludes dark voxels.

    Args:
        image: intensities as stored, `(H, W, D)` or `(H, W)`.

    Returns:
        The region, bool, of the image's shape and on its device; an image of one value is all body.
    """
    voxels = image.detach().cpu().double().numpy()
    inside = voxels > _above_air(voxels) if voxels.min() < voxels.max() else np.ones_like(voxels, dtype=bool)
    parts, found = ndimage.label(inside)
    if found > 1:
        inside = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    for axis in range(inside.ndim) if inside.ndim > 2 else ():
        plane = np.zeros((3,) * inside.ndim, dtype=bool)
        middle = (slice(None),) * axis + (1,)
        plane[middle] = ndimage.generate_binary_structure(inside.ndim - 1, 1)
        inside = ndimage.binary_fill_holes(inside, plane)
    return torch.from_numpy(ndimage.binary_fill_holes(inside)).to(image.device)


def likely(label: Tensor, probability: Tensor, at_least: float = 0.05) -> Tensor:
    """The organ and all voxels to which the model gives some probability; other voxels for every model.

    Args:
        label: ground truth of the organ, bool `(H, W, D)`.
        probability: of foreground, in [0, 1], of the same shape.
        at_least: the least probability.

    Returns:
        The region, bool `(H, W, D)`, on the label's device.
    """
    return (probability >= at_least).to(label.device) | label.bool()


@dataclass(frozen=True)
class Region:
    """A region with its names. Called with everything known of a case, it uses what it needs.

    Attributes:
        key: its name in configurations, files and metric keys.
        label: its name in the label of a metric: "ACE in the band".
        description: which voxels it holds, for headings and legends.
        select: computes the region.
        needs: arguments of `select`, in order, out of "label", "spacing_mm", "image" and "probability".
    """

    key: str
    label: str
    description: str
    select: Callable[..., Tensor]
    needs: tuple[str, ...] = ("label", "spacing_mm")

    @property
    def follows_prediction(self) -> bool:
        """Whether it covers different voxels for different models, and so is unfit for comparing them."""
        return "probability" in self.needs

    def __call__(
        self,
        label: Tensor,
        spacing_mm: Sequence[float],
        image: Tensor | None = None,
        probability: Tensor | None = None,
    ) -> Tensor:
        """The region of a case.

        Args:
            label: ground truth of the organ, bool `(H, W, D)`.
            spacing_mm: distance between voxels along each axis, mm.
            image: intensities as stored, `(H, W, D)`.
            probability: of foreground, in [0, 1], `(H, W, D)`.

        Returns:
            bool `(H, W, D)`.

        Raises:
            DataError: the image or the probability is needed and not given.
        """
        given = {"label": label, "spacing_mm": spacing_mm, "image": image, "probability": probability}
        for name in self.needs:
            if given[name] is None:
                raise DataError(f"a region derives from the {name}, which is not given", fix=f"pass {name}")
        return self.select(*(given[name] for name in self.needs))


REGIONS: Mapping[str, Region] = MappingProxyType(
    {
        region.key: region
        for region in (
            Region("whole", "whole volume", "whole volume", whole),
            Region("body", "body", "body", body, ("image",)),
            Region("box", "box", "box of the organ and 10 mm around it", box),
            Region("band", "band", "band of 5 mm around the organ", band),
            Region("shell", "shell", "shell of 5 mm on both sides of the organ's surface", shell),
            Region(
                *("likely", "likely voxels", "organ and voxels of probability 0.05 or more"),
                *(likely, ("label", "probability")),
            ),
        )
    }
)


def description_of(region: str) -> str:
    """The description of a region by its key; the key itself where it is not one of `REGIONS`."""
    return REGIONS[region].description if region in REGIONS else region


def _bounding_box(organ: NDArray[np.bool_], margin: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box around the organ, widened by `margin` voxels along each axis."""
    box = []
    for axis, more in enumerate(margin):
        others = tuple(other for other in range(organ.ndim) if other != axis)
        inside = np.flatnonzero(organ.any(axis=others))
        box.append(slice(max(int(inside[0]) - more, 0), int(inside[-1]) + more + 1))
    return tuple(box)


def _above_air(voxels: NDArray[np.float64], bins: int = 128) -> float:
    """The lower of the two thresholds between three classes of intensities with the largest variance between them."""
    low, high = np.percentile(voxels, (0.5, 99.5))
    if low == high:  # nearly all voxels have one value: take the full range
        low, high = voxels.min(), voxels.max()
    count, edge = np.histogram(voxels.clip(low, high), bins=bins, range=(low, high))
    mass = np.concatenate([[0], np.cumsum(count)])
    moment = np.concatenate([[0], np.cumsum(count * (edge[1:] + edge[:-1]) / 2)])
    # What the class of bins i (row) to j (column) adds to the variance between classes: its squared sum over its mass.
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.nan_to_num((moment[None] - moment[:, None]) ** 2 / (mass[None] - mass[:, None]))
    between = part[0, :, None] + part + part[None, :, -1]
    between[np.tril_indices(bins + 1)] = -np.inf
    return float(edge[np.argmax(between) // (bins + 1)])
