"""Where training patches are centred: the foreground of a volume, found once, and the voxel that is drawn from it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.transforms.utils import correct_crop_centers

from medmtl.losses.masked import UNKNOWN


def find_foreground(image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    """Find what drawing a patch needs of a whole volume, so that a patch costs no more where the volume is large.

    Args:
        image: `(C, H, W, D)`.
        label: `(1, H, W, D)` uint8 as of `load_label`.

    Returns:
        `foreground` `(n,)`: the numbers of its voxels, in row-major order, those of the first class before those of the
        second; `classes` `(k, 2)`: value of each class that is there, and how many voxels it has; `minimum` `()`: of
        the image.
    """
    flat = label.numpy().ravel()
    where = np.flatnonzero((flat != 0) & (flat != UNKNOWN))
    values, counts = np.unique(flat[where], return_counts=True)
    if len(values) > 1:
        where = where[np.argsort(flat[where], kind="stable")]
    # Half the memory of int64, which only volumes of more than 2 billion voxels need.
    small = np.int32 if flat.size <= np.iinfo(np.int32).max else np.int64
    return {
        "foreground": torch.from_numpy(where.astype(small)),
        "classes": torch.from_numpy(np.stack([values, counts], 1).astype(np.int64)),
        "minimum": image.min(),
    }


class Centres:
    """The voxels of a volume in which patches are centred.

    A volume that is smaller than a patch counts as padded to its size, alike on both sides, and voxels are numbered
    there.

    Args:
        item: `label` `(1, H, W, D)`, and what `find_foreground` returns.
        patch_size: voxels a side.
    """

    def __init__(self, item: Mapping[str, Any], patch_size: Sequence[int]) -> None:
        self._own = tuple(item["label"].shape[1:])
        self.shape = tuple(max(have, want) for have, want in zip(self._own, patch_size, strict=True))
        self.before = tuple((padded - have) // 2 for padded, have in zip(self.shape, self._own, strict=True))
        self.minimum = float(item["minimum"])
        self._foreground, self._classes = item["foreground"].numpy(), item["classes"].tolist()

    @property
    def values(self) -> list[int]:
        """The classes that are in the volume."""
        return [value for value, _ in self._classes]

    @property
    def voxels(self) -> int:
        """Number of voxels, of the padding too."""
        return int(np.prod(self.shape))

    def inside(self, chosen: int | None = None) -> np.ndarray:
        """The foreground, or the voxels of one class, ascending; for `number`."""
        if chosen is None:
            return self._foreground if len(self._classes) < 2 else np.sort(self._foreground)
        start = sum(count for value, count in self._classes if value < chosen)
        return self._foreground[start : start + dict(self._classes)[chosen]]

    def number(self, voxel: int) -> int:
        """The number, in the padded volume, of a voxel that is numbered without padding."""
        if self.shape == self._own:
            return voxel
        _, height, depth = self._own
        index = (voxel // (height * depth), voxel // depth % height, voxel % depth)
        x, y, z = (at + before for at, before in zip(index, self.before, strict=True))
        return (x * self.shape[1] + y) * self.shape[2] + z


class DrawCentre(Randomizable, Transform):
    """Draw the voxel in which a patch is centred.

    Args:
        patch_size: voxels a side.
        foreground: probability that it lies in the foreground, in [0, 1].
        by_class: draw the class of such a centre first, each that is in the volume equally often. Drawn by voxels, a
            small class would hardly be seen beside a large one.
    """

    def __init__(self, patch_size: Sequence[int], foreground: float, by_class: bool = False) -> None:
        self.patch_size = patch_size
        self.foreground = foreground
        self.by_class = by_class

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item with `centre`, three voxel indices, moved so that the patch lies in the volume."""
        centres: Centres = item["centres"]
        by_class = self.by_class and centres.values
        inside = centres.inside(self.R.choice(centres.values) if by_class else None)
        outside = centres.voxels - len(inside)
        if len(inside) and (self.R.rand() < self.foreground or not outside):
            number = centres.number(int(inside[self.R.randint(len(inside))]))
        else:
            number = _number_outside(centres, inside, self.R.randint(outside))
        index = [int(axis) for axis in np.unravel_index(number, centres.shape)]
        return {**item, "centre": correct_crop_centers(index, self.patch_size, centres.shape)}


def _number_outside(centres: Centres, inside: np.ndarray, rank: int) -> int:
    """The voxel of the given rank among those that are not listed.

    Args:
        centres: of the volume.
        inside: the listed voxels, ascending.
        rank: from 0.
    """
    # Before the i-th listed voxel lie number(inside[i]) - i others.
    before = bisect_right(range(len(inside)), rank, key=lambda listed: centres.number(int(inside[listed])) - listed)
    return rank + before
