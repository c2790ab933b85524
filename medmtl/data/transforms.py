"""Deterministic transforms: what the caches hold; see `medmtl.data.patches` for random ones."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import (
    Orientation,
    Spacing,
    Transform,
)

from medmtl.data.case import Case
from medmtl.data.centres import find_foreground
from medmtl.data.classes import Classes
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.reading import load_image, load_label
from medmtl.data.working_space import prepare, prepare_each
from medmtl.losses.masked import UNKNOWN

FLOAT = 4  # bytes of a float32


def split_unknown(label: MetaTensor) -> tuple[MetaTensor, torch.Tensor | None]:
    """Separate the voxels without a ground truth.

    Args:
        label: what `load_label` returns.

    Returns:
        The label with 0 there, and where there is a ground truth, bool `(1, H, W, D)`; None if everywhere.
    """
    known = label.as_tensor() != UNKNOWN
    return (label, None) if known.all() else (label * known, known)


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

    @property
    def facts(self) -> list[Any]:
        """All that decides what comes of a case beside its files, for JSON."""
        return ["pair", *self.preprocessing.image, _values(self.classes), self.ignore]

    def bytes_of(self, voxels: int, cubic_mm: float, channels: int) -> int:
        """What an image of so many voxels and such a volume takes, without the indices of the foreground."""
        return int(cubic_mm / math.prod(self.preprocessing.spacing)) * (channels * FLOAT + 1)

    def tensors(self, item: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What is kept of an item."""
        return {key: value for key, value in item.items() if key != "case"}

    def item(self, tensors: Mapping[str, torch.Tensor], case: Case) -> dict[str, Any]:
        """The item of which these tensors were kept."""
        return {**tensors, "case": case.name}

    def __call__(self, case: Case) -> dict[str, Any]:
        """Return `image` `(C, h, w, d)` float32, `label` `(1, h, w, d)` uint8 as of `load_label`, and name of `case`.

        With them comes what `find_foreground` returns.
        """
        image = load_image(case)
        label = Spacing(self.preprocessing.spacing, mode="nearest", padding_mode="border")(
            Orientation("RAS", labels=None)(load_label(case, self.classes, image, self.ignore))
        )
        pair = prepare(image, self.preprocessing).as_tensor(), label.as_tensor().to(torch.uint8)
        return {"image": pair[0], "label": pair[1], **find_foreground(*pair), "case": case.name}


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

    @property
    def facts(self) -> list[Any]:
        """All that decides what comes of a case beside its files, for JSON."""
        return ["scan", self._images, None if self.classes is None else _values(self.classes), self.ignore]

    def bytes_of(self, voxels: int, cubic_mm: float, channels: int) -> int:
        """What an image of so many voxels and such a volume takes with its label."""
        prepared = sum(int(cubic_mm / math.prod(each.spacing)) for each in self._images)
        return (prepared + voxels) * channels * FLOAT + (0 if self.classes is None else voxels)

    def tensors(self, item: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What is kept of an item."""
        images = {each.image: image for each, image in item["images"].items()}
        numbered = {f"image {number}": images[each] for number, each in enumerate(self._images)}
        others = {key: item[key] for key in ("native", "label", "known")}
        return {key: value for key, value in (numbered | others).items() if value is not None}

    def item(self, tensors: Mapping[str, torch.Tensor], case: Case) -> dict[str, Any]:
        """The item of which these tensors were kept."""
        images = {each: tensors[f"image {number}"] for number, each in enumerate(self._images)}
        return {
            "images": {each: images[each.image] for each in self.preprocessings},
            **{key: tensors.get(key) for key in ("native", "label", "known")},
            "case": case.name,
            "patient": case.patient,
        }

    @property
    def _images(self) -> list[Preprocessing]:
        """The preprocessings that differ in more than their head."""
        return list(dict.fromkeys(each.image for each in self.preprocessings))

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


def _values(classes: Classes) -> list[list[int]]:
    return [sorted(part) for part in classes.parts]
