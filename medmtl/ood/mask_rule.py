"""MaskRule: whether a predicted mask can be relied on, from how much the mask of the mirrored image differs.

Whether an image is like those of the training and whether its mask is right are two questions: of the images that a
network segments badly, many are in-distribution.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from medmtl.ood.conformal import ConformalRule
from medmtl.ood.reason import Reason
from medmtl.ood.verdict import Verdict

ACCEPTABLE = 0.6  # Dice of an acceptable mask; the task's median where that is lower
VOLUME_FACTOR = 2.0  # a volume beyond this times the largest, or below the smallest over this, is none of the organ
CERTAIN = 8.0  # deviation of a reason that needs no comparison


class LabelledMask(NamedTuple):
    """The mask of an in-distribution image beside its label.

    Attributes:
        task: its task.
        patient: its patient; the same name in two tasks is the same person.
        case: name of the image within its task.
        dice: of the mask, in [0, 1]; NaN for a label without foreground.
        disagreement: see `medmtl.ood.evidence.flip.flip_disagreement`, in [0, 1].
    """

    task: str
    patient: str
    case: str
    dice: float
    disagreement: float


@dataclass(frozen=True)
class MaskVerdict:
    """Whether a mask can be relied on.

    Attributes:
        disagreement: 1 - Dice of the mask and that of the mirrored image; None where it was not measured.
        p_value: conformal p-value of the disagreement among acceptable held-out masks, in (0, 1]; None without it.
        reliable: False where the p-value is at most alpha, the mask is empty, or its volume is none of the organ; None
            where that cannot be decided, and for an out-of-distribution image without such a finding.
        reasons: why it is not reliable.
    """

    disagreement: float | None
    p_value: float | None
    reliable: bool | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class MaskRule:
    """Accept or reject masks at level alpha.

    Calibrated on the images whose mask is acceptable: Dice at least 0.6, or at least the median of the task's held-out
    images where that is lower. Of the acceptable masks of new patients at most a share of alpha is rejected for their
    disagreement; `ConformalRule` says when that holds for each task, and how masks of training images, whose
    disagreement is lower because the network has seen them, join those of held-out images. With the OOD verdict at
    alpha as well, at most 2 alpha of in-distribution images with acceptable masks get a flag.

    A mask is also rejected where it is empty, or its volume is more than twice that of any training label of its task,
    or less than half.

    Args:
        held_out: the held-out images.
        volumes: task -> smallest and largest volume of its training labels, ml.
        alpha: share of acceptable masks that may be rejected, in (0, 1).
        training: the training images.
    """

    held_out: Sequence[LabelledMask]
    volumes: Mapping[str, tuple[float, float]]
    alpha: float
    training: Sequence[LabelledMask] = ()

    def bar(self, task: str) -> float:
        """The Dice from which on a mask of a task is acceptable."""
        known = [each.dice for each in self.held_out if each.task == task and not np.isnan(each.dice)]
        return min(ACCEPTABLE, float(np.median(known))) if known else ACCEPTABLE

    def acceptable(self, masks: Sequence[LabelledMask]) -> list[LabelledMask]:
        """Those of some masks that are acceptable."""
        bars = {task: self.bar(task) for task in {each.task for each in masks}}
        return [each for each in masks if each.dice >= bars[each.task]]

    @property
    def decides(self) -> bool:
        """Whether there are enough patients with acceptable masks to reject one for its disagreement."""
        return self.rule.decides

    @property
    def threshold(self) -> float:
        """Disagreements above it are rejected, whichever the task; infinite if that cannot be decided."""
        return self.rule.threshold

    def __call__(
        self, task: str, volume_ml: float, disagreement: float | None, rejected: bool | None = None
    ) -> MaskVerdict:
        """The verdict on a mask.

        Args:
            task: whose organ it is taken for.
            volume_ml: of the mask.
            disagreement: with the mask of the mirrored image; None where it was not measured.
            rejected: whether the image is out-of-distribution: no mask of one is called reliable, since held-out images
                say nothing about it.
        """
        reasons = []
        group = [task] if task in self.rule.groups else None
        p_value = None if disagreement is None else self.rule.p_value(disagreement, group)
        smallest, largest = self.volumes.get(task, (0.0, float("inf")))
        if volume_ml <= 0:
            reasons.append(Reason("empty", "the mask is empty", CERTAIN))
        elif not smallest / VOLUME_FACTOR <= volume_ml <= largest * VOLUME_FACTOR:
            text = f"volume {_ml(volume_ml)}; labels of {task} in training have {_ml(smallest)} to {_ml(largest)}"
            reasons.append(Reason("volume_ml", text, CERTAIN))
        if disagreement is not None and self.rule.rejects(disagreement, group):
            usual = self.rule.groups[task].threshold(self.alpha) if group else self.threshold
            text = (
                f"the mask of the mirrored image differs by {disagreement:.0%} (1 \N{MINUS SIGN} Dice); "
                f"at least {1 - self.alpha:.0%} of acceptable masks differ by at most {usual:.0%}"
            )
            reasons.append(Reason("flip_disagreement", text.replace("%", " %"), CERTAIN))
        undecided = disagreement is None or not self.decides or bool(rejected)
        return MaskVerdict(disagreement, p_value, False if reasons else None if undecided else True, tuple(reasons))

    def state_dict(self) -> dict[str, Any]:
        """Everything but alpha, as text and numbers."""
        return {
            "held_out": [tuple(each) for each in self.held_out],
            "training": [tuple(each) for each in self.training],
            "volumes": {task: list(ends) for task, ends in self.volumes.items()},
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], alpha: float) -> "MaskRule":
        """The inverse of `state_dict`."""
        volumes = {task: (float(low), float(high)) for task, (low, high) in state["volumes"].items()}
        held_out, training = (
            [LabelledMask(*each) for each in state.get(part, [])] for part in ("held_out", "training")
        )
        return cls(held_out, volumes, alpha, training)  # an earlier version kept no training images

    @cached_property
    def rule(self) -> ConformalRule:
        """The rule for disagreements, from those of acceptable masks."""
        scores: list[dict[str, list[float]]] = [{}, {}]
        patients: list[dict[str, list[str]]] = [{}, {}]
        for part, masks in enumerate((self.held_out, self.training)):
            for each in self.acceptable(masks):
                scores[part].setdefault(each.task, []).append(each.disagreement)
                patients[part].setdefault(each.task, []).append(each.patient)
        return ConformalRule(scores[0], self.alpha, patients[0], scores[1] or None, patients[1] or None)


def _ml(volume: float) -> str:
    """A volume for readers, with three digits below 100 ml."""
    return f"{volume:.3g} ml" if volume < 100 else f"{volume:.0f} ml"


def reason_texts(image: Verdict | None, mask: MaskVerdict | None) -> tuple[str, ...]:
    """What is unusual about an image that is OOD or whose mask is not reliable, a clause each, the mask first."""
    of_mask = () if mask is None else mask.reasons
    flagged = bool(of_mask) or (image is not None and image.rejected is True)
    of_image = image.reasons if image is not None and flagged else ()
    return tuple(dict.fromkeys(reason.text for reason in (*of_mask, *of_image)))
