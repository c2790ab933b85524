"""Deterministic transforms: what the caches hold; see `medmtl.data.patches` for random ones."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import (
    ClipIntensityPercentiles,
    Orientation,
    ScaleIntensityRange,
    Spacing,
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
