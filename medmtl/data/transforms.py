"""Deterministic transforms (what the cache holds) and random ones (drawn for every patch)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CastToTyped,
    ClipIntensityPercentiles,
    Compose,
    Orientation,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    Randomizable,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ScaleIntensityRange,
    Spacing,
    SpatialPad,
    ToTensord,
    Transform,
)

from medmtl.data.case import Case
from medmtl.data.classes import Classes
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.reading import load_image, load_label
from medmtl.data.resample import to_grid, to_spacing
from medmtl.losses.masked import UNKNOWN

PERCENTILES = (0.5, 99.5)


def split_unknown(label: MetaTensor) -> tuple[MetaTensor, torch.Tensor | None]:
    """Separate the voxels without a ground truth.

    Args:
        label: what `load_label` returns.

    Returns:
        The label with 0 there, and where there is a ground truth, bool `(1, H, W, D)`; None if everywhere.
    """
    known = label.as_tensor() != UNKNOWN
    return (label, None) if known.all() else (label * known, known)


def prepare(image: MetaTensor, preprocessing: Preprocessing) -> MetaTensor:
    """Bring an image into a preprocessing's working space.

    Args:
        image: `(C, H, W, D)` on its own grid.
        preprocessing: spacing and intensity.

    Returns:
        `(C, h, w, d)` float32, right-anterior-superior, at the preprocessing's spacing. CT is clipped to the window and
        scaled to [-1, 1]; of everything else each channel is clipped to percentiles 0.5 and 99.5 and z-scored (a
        constant one becomes 0).
    """
    image = to_spacing(Orientation("RAS", labels=None)(image), preprocessing.spacing)
    if preprocessing.window is not None:
        return ScaleIntensityRange(*preprocessing.window, b_min=-1.0, b_max=1.0, clip=True)(image)
    return torch.cat([_z_score(channel) for channel in image.split(1)])


def prepare_each(image: MetaTensor, preprocessings: Iterable[Preprocessing]) -> dict[Preprocessing, MetaTensor]:
    """An image under several preprocessings; those that differ in their head alone share a volume."""
    wanted = list(preprocessings)
    prepared = {each: prepare(image, each) for each in dict.fromkeys(each.image for each in wanted)}
    return {each: prepared[each.image] for each in wanted}


def _z_score(channel: MetaTensor) -> MetaTensor:
    channel = ClipIntensityPercentiles(*PERCENTILES)(channel)
    if channel.max() == channel.min():
        return torch.zeros_like(channel)
    return (channel - channel.mean()) / channel.std()


def to_native(probability: MetaTensor, like: MetaTensor) -> torch.Tensor:
    """Bring a probability map back onto an image's own grid.

    Args:
        probability: `(1, h, w, d)` in a preprocessing's working space.
        like: a volume `(1, H, W, D)` on the grid to return to.

    Returns:
        `(H, W, D)` float32 in [0, 1], linearly interpolated.
    """
    return to_grid(probability, like.affine, like.shape[1:])[0].as_tensor().clamp_(0, 1)


class LoadPair(Transform):
    """Case -> its image and label in the working space; what the cache of a training task holds.

    Args:
        preprocessing: spacing and intensity.
        classes: what the label values mean.
        ignore: label value of voxels without a ground truth.
    """

    def __init__(self, preprocessing: Preprocessing, classes: Classes, ignore: int | None = None) -> None:
        self.preprocessing = preprocessing
        self.classes = classes
        self.ignore = ignore

    def __call__(self, case: Case) -> dict[str, Any]:
        """Return `{"image": (C, h, w, d) float32, "label": (1, h, w, d) uint8 as of `load_label`, "case": name}`."""
        image = load_image(case)
        label = Spacing(self.preprocessing.spacing, mode="nearest", padding_mode="border")(
            Orientation("RAS", labels=None)(load_label(case, self.classes, image, self.ignore))
        )
        prepared = prepare(image, self.preprocessing)
        return {"image": prepared.as_tensor(), "label": label.as_tensor().to(torch.uint8), "case": case.name}


class PadToPatch(Transform):
    """Pad a volume that is smaller than a patch: the image with its minimum, as sliding windows do, the label with 0.

    Args:
        patch_size: voxels a side.
    """

    def __init__(self, patch_size: Sequence[int]) -> None:
        self.patch_size = patch_size

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item with `image` and `label` at least as large as a patch."""
        fill = {"image": float(item["image"].min()), "label": 0.0}
        padded = {key: SpatialPad(self.patch_size, value=value)(item[key]) for key, value in fill.items()}
        return {**item, **padded}


class LoadScan(Transform):
    """Case -> its image under some preprocessings and its label on the image's own grid; what is scored.

    Args:
        preprocessings: preprocessings to prepare the image with.
        classes: what the label values mean; None where there is no label.
        ignore: label value of voxels without a ground truth.
    """

    def __init__(
        self, preprocessings: Sequence[Preprocessing], classes: Classes | None, ignore: int | None = None
    ) -> None:
        self.preprocessings = preprocessings
        self.classes = classes
        self.ignore = ignore

    def __call__(self, case: Case) -> dict[str, Any]:
        """Return `{"images": {preprocessing: (C, h, w, d)}, "native": (C, H, W, D), "label": (1, H, W, D), ...}`.

        `label` holds numbers of parts, see `Classes`, and is None without a ground truth. `known`, bool
        `(1, H, W, D)`, is where there is one; None if everywhere.
        """
        native = load_image(case)
        label, known = None, None
        if self.classes is not None:
            label, known = split_unknown(load_label(case, self.classes, native, self.ignore))
        return {
            "images": prepare_each(native, self.preprocessings),
            "native": native,
            "label": label,
            "known": known,
            "case": case.name,
            "patient": case.patient,
        }


class DrawClass(Randomizable, Transform):
    """Choose the class in which a foreground patch is centred: each that is in the volume equally often.

    Drawn by voxels, a small class would hardly be seen beside a large one.
    """

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item with `foreground`, bool, where the centre may lie."""
        label = item["label"]
        count = torch.bincount(label.as_subclass(torch.Tensor).flatten(), minlength=UNKNOWN + 1)[1:UNKNOWN]
        present = (count.nonzero()[:, 0] + 1).tolist()
        chosen = label == self.R.choice(present) if present else torch.zeros_like(label, dtype=torch.bool)
        return {**item, "foreground": chosen}


def random_patch(patch_size: Sequence[int], foreground: float, by_class: bool = False, mirror: bool = True) -> Compose:
    """Draw one augmented patch from what `LoadPair` returns.

    Patches are not centred in voxels without a ground truth, and these stay marked as such.

    Args:
        patch_size: voxels a side in the working space.
        foreground: probability that the patch's centre lies in the foreground, in [0, 1].
        by_class: draw the class of such a centre first, see `DrawClass`.
        mirror: mirror half of the patches left to right.
    """
    keys = ("image", "label")
    return Compose(
        [
            PadToPatch(patch_size),
            DrawClass() if by_class else _foreground,
            RandCropByPosNegLabeld(keys, "foreground", spatial_size=patch_size, pos=foreground, neg=1 - foreground),
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
            ToTensord(keys, track_meta=False),
        ]
    )


def _foreground(item: Mapping[str, Any]) -> dict[str, Any]:
    """The foreground as bool: MONAI finds the background of another type everywhere."""
    return {**item, "foreground": (item["label"] > 0) & (item["label"] != UNKNOWN)}


def seeded_patch(draw: Compose, item: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Apply a random transform with a state of its own, so that a patch depends on its seed alone.

    Neither the number of workers nor where a run was interrupted then changes the training data.
    """
    draw.set_random_state(seed=seed)
    (patch,) = draw(item)
    return patch
