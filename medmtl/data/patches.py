"""Training patches: where they are centred, how they are cut out, and how they are augmented.

What needs the whole volume is found once (`Centres`), so that a patch costs no more where the volume is large.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    CastToTyped,
    Compose,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    Randomizable,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Transform,
)
from monai.transforms.utils import correct_crop_centers

from medmtl.losses.masked import UNKNOWN


class Centres:
    """The foreground of a volume, in whose voxels patches are centred.

    A volume that is smaller than a patch counts as padded to its size, alike on both sides, and voxels are numbered
    there.

    Args:
        item: `image` `(C, H, W, D)`, and `label` `(1, H, W, D)` uint8 as of `load_label`.
        patch_size: voxels a side.
    """

    def __init__(self, item: Mapping[str, Any], patch_size: Sequence[int]) -> None:
        label = item["label"][0].numpy()
        self.shape = tuple(max(have, want) for have, want in zip(label.shape, patch_size, strict=True))
        self.before = tuple((padded - have) // 2 for padded, have in zip(self.shape, label.shape, strict=True))
        self.minimum = float(item["image"].min())
        where = np.nonzero((label != 0) & (label != UNKNOWN))
        padded = tuple(axis + before for axis, before in zip(where, self.before, strict=True))
        # Half the memory of int64, which only volumes of more than 2 billion voxels need.
        small = np.int32 if self.voxels <= np.iinfo(np.int32).max else np.int64
        self.foreground = np.ravel_multi_index(padded, self.shape).astype(small)
        values = label[where]
        self.of_class = {int(value): self.foreground[values == value] for value in np.unique(values)}

    @property
    def voxels(self) -> int:
        """Number of voxels, of the padding too."""
        return int(np.prod(self.shape))


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
        inside = centres.foreground
        if self.by_class and centres.of_class:
            inside = centres.of_class[self.R.choice(list(centres.of_class))]
        outside = centres.voxels - len(inside)
        if len(inside) and (self.R.rand() < self.foreground or not outside):
            number = int(inside[self.R.randint(len(inside))])
        else:
            number = _number_outside(inside, self.R.randint(outside))
        index = [int(axis) for axis in np.unravel_index(number, centres.shape)]
        return {**item, "centre": correct_crop_centers(index, self.patch_size, centres.shape)}


def _number_outside(inside: np.ndarray, rank: int) -> int:
    """The voxel of the given rank among those that are not listed.

    Args:
        inside: numbers of the listed voxels, ascending.
        rank: from 0.
    """
    # Before the i-th listed voxel lie inside[i] - i others.
    return rank + bisect_right(range(len(inside)), rank, key=lambda listed: int(inside[listed]) - listed)


class CutOut(Transform):
    """Cut a patch out of a volume; beyond its border the image has its minimum, as sliding windows have, the label 0.

    Args:
        patch_size: voxels a side.
    """

    def __init__(self, patch_size: Sequence[int]) -> None:
        self.patch_size = patch_size

    def __call__(self, item: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return `image` and `label` of the patch around `centre`."""
        centres: Centres = item["centres"]
        size = tuple(self.patch_size)
        within = [at - side // 2 for at, side in zip(item["centre"], size, strict=True)]
        first = [at - before for at, before in zip(within, centres.before, strict=True)]
        patches = {}
        for key, fill in (("image", centres.minimum), ("label", 0)):
            volume = item[key].as_subclass(torch.Tensor)
            ends = [(max(0, at), at + side) for at, side in zip(first, size, strict=True)]
            found = volume[(slice(None), *(slice(*each) for each in ends))]
            if found.shape[1:] == size:
                patches[key] = found.clone()
                continue
            patches[key] = volume.new_full((len(volume), *size), fill)
            starts = [start - at for (start, _), at in zip(ends, first, strict=True)]
            place = [slice(start, start + side) for start, side in zip(starts, found.shape[1:], strict=True)]
            patches[key][(slice(None), *place)] = found
        return patches


def random_patch(patch_size: Sequence[int], foreground: float, by_class: bool = False, mirror: bool = True) -> Compose:
    """Draw one augmented patch from a volume, see `seeded_patch`.

    Voxels without a ground truth stay marked as such.

    Args:
        patch_size: voxels a side in the working space.
        foreground: probability that the patch's centre lies in the foreground, in [0, 1].
        by_class: draw the class of such a centre first, see `DrawCentre`.
        mirror: mirror half of the patches left to right.
    """
    keys = ("image", "label")
    return Compose(
        [
            DrawCentre(patch_size, foreground, by_class),
            CutOut(patch_size),
            *([RandFlipd(keys, prob=0.5, spatial_axis=0)] if mirror else []),
            RandAffined(
                keys,
                prob=0.3,
                rotate_range=(np.pi / 12,) * 3,
                scale_range=(0.15,) * 3,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandScaleIntensityd("image", factors=0.1, prob=0.3),
            RandShiftIntensityd("image", offsets=0.1, prob=0.3),
            RandGaussianNoised("image", prob=0.15, std=0.1),
            CastToTyped("label", dtype=torch.uint8),
        ]
    )


def seeded_patch(draw: Compose, item: Mapping[str, Any], centres: Centres, seed: int) -> dict[str, Any]:
    """Apply a random transform with a state of its own, so that a patch depends on its seed alone.

    Neither the number of workers nor where a run was interrupted then changes the training data.

    Args:
        draw: what `random_patch` returns.
        item: `image` and `label` of `LoadPair`.
        centres: of its foreground.
        seed: of the patch.
    """
    state = np.random.RandomState(seed)  # one for all: to seed one takes 0.1 ms, and there would be a dozen
    for each in draw.transforms:
        if isinstance(each, Randomizable):
            each.set_random_state(state=state)
    with _without_metadata():
        patch: dict[str, Any] = draw({"image": item["image"], "label": item["label"], "centres": centres})
    return patch


@contextmanager
def _without_metadata() -> Iterator[None]:
    """Let MONAI's transforms return plain tensors: keeping affine and history took a third of the time of a patch."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
