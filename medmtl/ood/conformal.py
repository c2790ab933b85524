"""Conformal decisions: an image is rejected when its score is extreme among held-out in-distribution ones.

Several images of one patient are not independent observations, so every patient has weight 1, an image of a patient
with k images 1/k (Lee, Barber & Willett, arXiv 2306.06342). The guarantee then holds for any one image of a new
patient; with each patient's highest score it would hold too, but fewer OOD images would be found.

The guarantee is exact where calibration patients and new ones are exchangeable: from the same population, and with no
part in how the scores came about. Patients by whom a checkpoint was chosen had a part in it; what that costs is in the
docstring of `ConformalDetector`.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# 1 - 0.9 is not 0.1: levels that differ by less are equal.
ROUNDING = 1e-9


def p_value(score: float, calibration: Sequence[float], patients: Sequence[str] | None = None) -> float:
    """Conformal p-value, (1 + number of calibration patients whose score >= score) / (patients + 1), in (0, 1].

    A patient with several images counts with the share of them that reach the score. If the image's patient is
    exchangeable with the calibration patients, P(p <= alpha) <= alpha (Vovk et al. 2005): over all draws of both, not
    for one set of calibration patients, and not within a group of them such as a task.

    Args:
        score: of the image, higher = more out-of-distribution.
        calibration: scores of in-distribution images that neither the network nor the bank was fitted to.
        patients: whose image each is; None: every image is of another patient.
    """
    weights = _patient_weights(patients if patients is not None else range(len(calibration)))
    reached = weights[np.asarray(calibration, dtype=np.float64) >= score]
    return float((1 + reached.sum()) / (weights.sum() + 1))


def cases_needed(alpha: float) -> int:
    """The minimum number of calibration patients for a p-value of alpha: ceil(1 / alpha) - 1 (19 for 5 %)."""
    return math.ceil(1 / alpha - ROUNDING) - 1


@dataclass(frozen=True)
class Group:
    """Calibration images that share a threshold.

    Attributes:
        scores: of the images.
        patients: whose image each is.
    """

    scores: Sequence[float]
    patients: Sequence[str]

    @property
    def patient_count(self) -> int:
        """The number of patients."""
        return len(set(self.patients))

    def p_value(self, score: float) -> float:
        """The p-value of an image among them."""
        return p_value(score, self.scores, self.patients)

    def threshold(self, alpha: float) -> float:
        """The highest score that is not rejected: the maximum whose p-value is above alpha."""
        scores, which = np.unique(self.scores, return_inverse=True)
        reached = np.bincount(which, _patient_weights(self.patients))[::-1].cumsum()[::-1]
        return float(scores[(1 + reached) / (self.patient_count + 1) > alpha + ROUNDING].max())


@dataclass(frozen=True)
class ConformalRule:
    """Accept or reject at level alpha.

    Where every task has enough calibration patients, each task has its own threshold and an image that any task accepts
    is accepted (the p-value is the maximum over tasks); otherwise the images of all tasks are pooled, where a patient
    who appears in several tasks still counts once.

    Args:
        scores: task -> scores of its calibration images.
        alpha: share of in-distribution images that may be rejected, in (0, 1).
        patients: task -> whose image each is, the same name in two tasks being the same person; None: every image is
            of another patient.

    Example:
        >>> rule = ConformalRule({"Liver": [0.1, 0.2, 0.3, 0.4]}, alpha=0.2)
        >>> rule.threshold, rule.p_value(0.5), rule.rejects(0.5), rule.rejects(0.4)
        (0.4, 0.2, True, False)
    """

    scores: Mapping[str, Sequence[float]]
    alpha: float
    patients: Mapping[str, Sequence[str]] | None = None

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The groups of calibration images: one a task, or one of all."""
        tasks = {task: Group(scores, self._patients(task)) for task, scores in self.scores.items()}
        if tasks and min(group.patient_count for group in tasks.values()) >= cases_needed(self.alpha):
            return tasks
        scores = [score for group in tasks.values() for score in group.scores]
        return {"all tasks": Group(scores, [patient for group in tasks.values() for patient in group.patients])}

    @property
    def decides(self) -> bool:
        """Whether there are enough calibration patients to reject anything."""
        return min(group.patient_count for group in self.groups.values()) >= cases_needed(self.alpha)

    @property
    def threshold(self) -> float:
        """Scores above it are rejected; infinite if the rule cannot decide.

        With one image a patient it is the ceil((n + 1)(1 - alpha))-th smallest of n, the maximum over the groups.
        """
        return max(group.threshold(self.alpha) for group in self.groups.values()) if self.decides else math.inf

    def p_value(self, score: float) -> float:
        """The p-value of an image, the maximum over the groups."""
        return max(group.p_value(score) for group in self.groups.values())

    def rejects(self, score: float) -> bool | None:
        """Whether the image is rejected; None if there are too few calibration patients."""
        return self.p_value(score) <= self.alpha + ROUNDING if self.decides else None

    def _patients(self, task: str) -> Sequence[str]:
        if self.patients is not None:
            return self.patients[task]
        return [f"{task} {number}" for number in range(len(self.scores[task]))]


def _patient_weights(patients: Sequence[Hashable]) -> NDArray[np.float64]:
    """1 / number of the patient's images, `(images,)`; the sum is the number of patients."""
    counts = Counter(patients)
    return np.array([1 / counts[patient] for patient in patients], dtype=np.float64)
