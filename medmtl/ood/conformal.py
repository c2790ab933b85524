"""Conformal decisions: an image is rejected when its score is extreme among held-out familiar images.

Several images of one patient are no independent observations, so that every patient counts once, an image of a patient
who has k of them 1/k (Lee, Barber & Willett, arXiv 2306.06342). The promise then holds for any one image of a new
patient; with each patient's highest score it would hold too, but fewer foreign images would be found.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# 1 - 0.9 is not 0.1: what differs by less is the same level.
ROUNDING = 1e-9


def p_value(score: float, calibration: Sequence[float], patients: Sequence[str] | None = None) -> float:
    """Conformal p-value, (1 + number of calibration patients whose score >= score) / (patients + 1), in (0, 1].

    A patient with several images counts with the share of them that reach the score. If the image's patient is
    exchangeable with the calibration patients, P(p <= alpha) <= alpha (Vovk et al. 2005).

    Args:
        score: of the image, higher = more foreign.
        calibration: scores of familiar images that neither the network nor the bank was fitted on.
        patients: whose image each is; None: every image is of another patient.
    """
    weights = _patient_shares(patients if patients is not None else range(len(calibration)))
    reached = weights[np.asarray(calibration, dtype=np.float64) >= score]
    return float((1 + reached.sum()) / (weights.sum() + 1))


def cases_needed(alpha: float) -> int:
    """The fewest calibration patients with whom a p-value can reach alpha: ceil(1 / alpha) - 1 (19 for 5 %)."""
    return math.ceil(1 / alpha - ROUNDING) - 1


@dataclass(frozen=True)
class Group:
    """Calibration images that ood_detector together.

    Attributes:
        scores: of the images.
        patients: whose image each is.
    """

    scores: Sequence[float]
    patients: Sequence[str]

    @property
    def people(self) -> int:
        """The number of patients."""
        return len(set(self.patients))

    def p_value(self, score: float) -> float:
        """The p-value of an image among them."""
        return p_value(score, self.scores, self.patients)

    def threshold(self, alpha: float) -> float:
        """The highest score that is not rejected: the greatest whose p-value is above alpha."""
        scores, which = np.unique(self.scores, return_inverse=True)
        reached = np.bincount(which, _patient_shares(self.patients))[::-1].cumsum()[::-1]
        return float(scores[(1 + reached) / (self.people + 1) > alpha + ROUNDING].max())


@dataclass(frozen=True)
class ConformalRule:
    """Accept or reject at level alpha.

    Where every task has enough calibration patients, each task judges with its own and an image that any task accepts
    is accepted (the p-value is the largest of theirs); otherwise the images of all tasks are pooled, where a patient
    who appears in several tasks still counts once.

    Args:
        scores: task -> scores of its calibration images.
        alpha: share of familiar images that may be rejected, in (0, 1).
        patients: task -> whose image each is, the same name in two tasks being the same person; None: every image is
            of another patient.
    """

    scores: Mapping[str, Sequence[float]]
    alpha: float
    patients: Mapping[str, Sequence[str]] | None = None

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The calibration images that ood_detector together: a group a task, or one of all."""
        tasks = {task: Group(scores, self._patients(task)) for task, scores in self.scores.items()}
        if tasks and min(group.people for group in tasks.values()) >= cases_needed(self.alpha):
            return tasks
        scores = [score for group in tasks.values() for score in group.scores]
        return {"all tasks": Group(scores, [patient for group in tasks.values() for patient in group.patients])}

    @property
    def decides(self) -> bool:
        """Whether there are enough calibration patients to reject anything."""
        return min(group.people for group in self.groups.values()) >= cases_needed(self.alpha)

    @property
    def threshold(self) -> float:
        """Scores above it are rejected; infinite if the rule cannot decide.

        With one image a patient it is the ceil((n + 1)(1 - alpha))-th smallest of n, the greatest over the groups.
        """
        return max(group.threshold(self.alpha) for group in self.groups.values()) if self.decides else math.inf

    def p_value(self, score: float) -> float:
        """The p-value of an image, the largest over the groups."""
        return max(group.p_value(score) for group in self.groups.values())

    def rejects(self, score: float) -> bool | None:
        """Whether the image is rejected; None if there are too few calibration patients to say."""
        return self.p_value(score) <= self.alpha + ROUNDING if self.decides else None

    def _patients(self, task: str) -> Sequence[str]:
        if self.patients is not None:
            return self.patients[task]
        return [f"{task} {number}" for number in range(len(self.scores[task]))]


def _patient_shares(patients: Sequence[Hashable]) -> NDArray[np.float64]:
    """1 / number of the patient's images, `(images,)`; the sum is the number of patients."""
    counts = Counter(patients)
    return np.array([1 / counts[patient] for patient in patients], dtype=np.float64)
