"""Training patches: how they are cut out, and how they are augmented; `centres` has where."""

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

from medmtl.data.centres import Centres, DrawCentre


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
