"""Deterministic transforms: what the caches hold; see `medmtl.data.patches` for random ones."""

from collections.abc import Sequence
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
