"""The segmentation of a volume that has a task: on the image's own grid, beside its label."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from monai.data import MetaTensor

from medmtl.accuracy import dice
from medmtl.calibration.scaling.parametric import Scaling
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.data.working_space import to_native
from medmtl.models.class_accuracy import class_accuracy
from medmtl.models.class_volumes import ClassVolumes
from medmtl.models.ensemble import Pooled
from medmtl.models.outputs import Head
from medmtl.models.scored import Segmentation


def segment(
    scan: Mapping[str, Any], working: MetaTensor, logits: MetaTensor, head: Head, testing: bool
) -> Segmentation:
    """Bring a prediction to the image's own grid, and compare it with the label.

    Args:
        scan: what `data.loaders.Scans` gives, of a task.
        working: probability of foreground, `(1, h, w, d)` under the task's preprocessing.
        logits: of the task's head, `(channels, h, w, d)`.
        head: the output that was read.
        testing: measure surface distances, too.
    """
    image, native, label = scan["images"][scan["own"]], scan["native"], scan["label"]
    probability = to_native(working, native)
    volume = WorkingVolume.of(image[0], working[0], image.affine, native.affine)
    known = None if scan["known"] is None else scan["known"][0]
    predicted = head.parts(logits, probability, native)
    truth, spacing_mm = label[0].as_tensor(), label.pixdim.tolist()
    parts = classes = None
    if len(head.classes.names) > 1:
        parts = predicted, truth
        classes = ClassVolumes(head, logits, probability, native, truth, known, scan["missing"])
    if known is not None:  # none where the truth is unknown, as in the label
        predicted *= known.to(predicted.device)
    accuracy = class_accuracy(predicted, truth, head.classes, scan["missing"], spacing_mm if testing else None)
    if scan["missing"]:  # what is no marked class may be one that is not marked: of all as one nothing is known
        known = torch.zeros_like(truth, dtype=torch.bool)
    compared = (truth > 0, known, native[0], spacing_mm, volume, accuracy, parts, classes)
    return Segmentation(probability, None, *compared)


def with_scaled(
    segmentation: Segmentation, scale: Scaling, shares: VectorScaling | None, pooled: Pooled | None
) -> Segmentation:
    """The same with its probability scaled, and those of its classes where these exclude each other.

    Args:
        segmentation: as the network gives it.
        scale: of the task.
        shares: of its classes' shares in the foreground; None leaves them as they are.
        pooled: of an ensemble; where its members were scaled before pooling, that is taken.
    """
    if pooled is not None and pooled.scaled is not None:
        scaled, logits, shares = pooled.scaled, pooled.scaled_logits, None
    else:
        scaled, logits = scale(segmentation.probability, segmentation.working, segmentation.spacing_mm), None
    classes = segmentation.classes
    if classes is not None:
        own = classes.logits if logits is None else logits
        classes = replace(classes, logits=own, foreground=scaled, shares=shares) if classes.head.background else None
    return replace(segmentation, scaled=scaled, scaled_classes=classes)


def recognised_dice(
    scan: Mapping[str, Any], own: Segmentation, told: Head, read: Head, logits: MetaTensor, probability: MetaTensor
) -> float:
    """Dice where the head of another task was read: of its classes of the same names, and 0 for those that it lacks.

    Args:
        scan: as in `segment`.
        own: the segmentation with the task told.
        told: the head of the task.
        read: the head that was read.
        logits: of its channels, `(channels, h, w, d)` in its working space.
        probability: of its foreground, `(1, h, w, d)`.
    """
    native, truth = scan["native"], scan["label"][0].as_tensor()
    predicted = read.parts(logits, to_native(probability, native), native)
    if scan["known"] is not None:
        predicted *= scan["known"][0].to(predicted.device)
    if told.classes.merged and read.classes.merged:
        return dice(predicted > 0, truth > 0)
    nothing = torch.zeros_like(predicted, dtype=torch.bool)
    values = [
        dice(
            read.classes.mask(predicted, name) if name in read.classes.names else nothing,
            told.classes.mask(truth, name),
        )
        for name in told.classes.names
        if name not in scan["missing"]
    ]
    return float(torch.tensor(values).nanmean())
