"""Shape: compares a predicted mask with those of the training images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medmtl.errors import DataError
from medmtl.ood.detectors.base import ViewDetector
from medmtl.ood.detectors.gaussian import MAD_TO_DEVIATION
from medmtl.ood.detectors.layers import require
from medmtl.ood.evidence.evidence import Evidence, View
from medmtl.ood.evidence.shape import DESCRIPTORS
from medmtl.ood.reason import Compared, Reason

LIMIT = 6.0  # deviations beyond it count as it, and so does an empty mask
UNUSUAL = 3.0  # deviations from which on a descriptor outside the training range is named as a reason


class Shape(ViewDetector):
    """Ours: how far the predicted mask is from those of the training images of the nearest task.

    Each descriptor of `DESCRIPTORS` becomes a robust z: its distance from the task's median, over the task's spread,
    clipped to [-6, 6]. The score is their root mean square, the minimum over the tasks with the view's preprocessing.
    The spread is the largest of the scaled median absolute deviation, half the standard deviation, and half the median
    over tasks of such spreads, since a descriptor that is the same in all few training images is not exact.

    Args:
        name: its key in tables and files.
    """

    label = "Shape of the mask (ours)"
    meaning = "root mean square deviation of the mask's descriptors from those of the nearest task"
    reference = "medmtl"
    logarithmic = False  # the root of a mean square is near 1 for all in-distribution images

    def __init__(self, name: str = "shape") -> None:
        self.name = name
        self.keys = list(DESCRIPTORS)
        self.preprocessings: dict[str, str] = {}
        self.fitted: dict[str, Tensor] = {}

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`; training images with an empty mask are left out.

        Raises:
            DataError: an image has no descriptors, or all masks of a task are empty.
        """
        require(self, cases)
        tasks = list(dict.fromkeys(case.dataset for case in cases))
        self.preprocessings = {case.dataset: case.view.preprocessing for case in cases}
        values = []
        for task in tasks:
            drawn = [self._scaled(case.view) for case in cases if case.dataset == task and case.view.shape]
            if not drawn:
                raise DataError(f"detector {self.name}: all masks of {task} in training are empty", fix="train longer")
            values.append(torch.stack(drawn))
        centre = torch.stack([own.median(0).values for own in values])
        robust = [MAD_TO_DEVIATION * (own - own.median(0).values).abs().median(0).values for own in values]
        deviation = [own.std(0, correction=0) for own in values]
        spread = torch.stack([one.maximum(other / 2) for one, other in zip(robust, deviation, strict=True)])
        self.fitted = {
            "centre": centre,
            "spread": spread.maximum(spread.median(0).values / 2).maximum(self._least_spread()),
            "low": torch.stack([own.min(0).values for own in values]),
            "high": torch.stack([own.max(0).values for own in values]),
        }

    def score_view(self, view: View) -> float:
        """See `ViewDetector.score_view`."""
        return LIMIT if not view.shape else float(self._deviations(view).square().mean(1).sqrt().min())

    def score_as(self, image: Evidence, task: str) -> float:
        """See `Detector.score_as`."""
        if not image.view.shape:
            return LIMIT
        return float(self._deviations(image.view, task).square().mean(1).sqrt().min())

    def reasons(self, image: Evidence, task: str) -> list[Reason]:
        """See `Detector.reasons`: descriptors outside the range of the training masks, and far from their median."""
        if not image.view.shape:
            return [Reason("empty", "the mask is empty", LIMIT)]
        found = []
        for each in self.compared(image, task):
            descriptor, z = DESCRIPTORS[each.key], each.deviation or 0.0
            if each.outside and abs(z) >= UNUSUAL:
                ends = " to ".join(dict.fromkeys((each.low, each.high)))
                text = f"{descriptor.high if z > 0 else descriptor.low}: {each.label} {each.value}"
                found.append(Reason(each.key, f"{text}; masks of {task} in training have {ends}", min(abs(z), LIMIT)))
        return found

    def compared(self, image: Evidence, task: str) -> list[Compared]:
        """See `Detector.compared`: every descriptor."""
        row, shape = list(self.preprocessings).index(task), image.view.shape or {}
        low, high, centre, spread = (self.fitted[name][row].tolist() for name in ("low", "high", "centre", "spread"))
        found = []
        for place, key in enumerate(self.keys):
            descriptor = DESCRIPTORS[key]
            value = descriptor.scaled(shape[key]) if shape else None
            middle, width = centre[place], spread[place]
            found.append(
                Compared(
                    key,
                    descriptor.label,
                    descriptor.text(shape[key]) if shape else "",
                    descriptor.text(descriptor.unscaled(low[place])),
                    descriptor.text(descriptor.unscaled(high[place])),
                    None if value is None else (value - middle) / width,
                    (low[place] - middle) / width,
                    (high[place] - middle) / width,
                )
            )
        return found

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        return "description of the mask" if any(view.shape is None for view in image.views) else ""

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {"keys": self.keys, "preprocessings": self.preprocessings, "fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.keys = list(state["keys"])
        self.preprocessings = dict(state["preprocessings"])
        self.fitted = dict(state["fitted"])

    def _deviations(self, view: View, task: str | None = None) -> Tensor:
        """Clipped z of the mask for one task, or for those with the view's preprocessing, `(tasks, descriptors)`."""
        z = (self._scaled(view) - self.fitted["centre"]) / self.fitted["spread"]
        if task in self.preprocessings:
            chosen = [name == task for name in self.preprocessings]
        else:
            chosen = [preprocessing == view.preprocessing for preprocessing in self.preprocessings.values()]
        return (z[chosen] if any(chosen) else z).clamp(-LIMIT, LIMIT)

    def _scaled(self, view: View) -> Tensor:
        shape = view.shape or {}
        return torch.tensor([DESCRIPTORS[key].scaled(shape[key]) for key in self.keys], dtype=torch.float64)

    def _least_spread(self) -> Tensor:
        return torch.tensor([DESCRIPTORS[key].least_spread for key in self.keys], dtype=torch.float64)
