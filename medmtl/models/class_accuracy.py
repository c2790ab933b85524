"""Accuracy of a segmentation of several classes: of each, of their mean, and of all as one."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from medmtl.accuracy import FOREGROUND, dice, surface_distances
from medmtl.data.classes import Classes


def class_accuracy(
    predicted: Tensor, label: Tensor, classes: Classes, missing: Collection[str], spacing_mm: Sequence[float] | None
) -> dict[str, float]:
    """Accuracy of a segmentation by class and as a whole.

    Args:
        predicted: numbers of parts, see `Classes`, `(H, W, D)`.
        label: the same of the ground truth.
        classes: what the parts mean.
        missing: the classes that the label does not mark, which are left out.
        spacing_mm: distance between voxels along each axis, mm, for surface distances; None: Dice alone.

    Returns:
        `dice` and, where wanted, `hd95_mm` and `asd_mm`. Of several classes these are the mean over those that have
        foreground in the label; beside them stand `CLASS/dice`, ... of each, and `foreground/dice` of all as one
        where the label marks all.
    """

    def measure(found: Tensor, truth: Tensor) -> dict[str, float]:
        values = {"dice": dice(found, truth)}
        if spacing_mm is not None:
            values["hd95_mm"], values["asd_mm"] = surface_distances(found, truth, spacing_mm)
        return values

    if len(classes.names) == 1:
        return measure(predicted > 0, label > 0)
    by_class = {}
    for name in (name for name in classes.names if name not in missing):
        by_class[name] = measure(*(classes.mask(volume, name) for volume in (predicted, label)))
    keys = next(iter(by_class.values()))
    means = {key: float(torch.tensor([own[key] for own in by_class.values()]).nanmean()) for key in keys}
    named = {f"{name}/{key}": value for name, own in by_class.items() for key, value in own.items()}
    together = {} if missing else {f"{FOREGROUND}/dice": dice(predicted > 0, label > 0)}
    return {**means, **named, **together}
