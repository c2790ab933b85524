"""Conformal decisions: an image is rejected when its score is extreme among in-distribution ones.

Several images of one patient are not independent observations, so every patient has weight 1, an image of a patient
with k images 1/k (Lee, Barber & Willett, arXiv 2306.06342). The guarantee then holds for any one image of a new
patient; with each patient's highest score it would hold too, but fewer OOD images would be found.

The guarantee is exact where calibration patients and new ones are exchangeable: from the same population, and with no
part in how the scores came about. Patients by whom a checkpoint was chosen had a part in it; what that costs is in the
docstring of `ConformalDetector`.
"""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

# 1 - 0.9 is not 0.1: levels that differ by less are equal.
ROUNDING = 1e-9
TAIL = 0.9  # quantile at which training scores are brought to held-out ones
LEAST_HELD_OUT = 10  # held-out images, from which the correction of training scores can be estimated
POOLED = "all tasks"


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
    group = Group(calibration, range(len(calibration)) if patients is None else patients)
    return group.p_value(score)


def cases_needed(alpha: float) -> int:
    """The minimum number of calibration patients for a p-value of alpha: ceil(1 / alpha) - 1 (19 for 5 %)."""
    return math.ceil(1 / alpha - ROUNDING) - 1


def can_decide(alpha: float, held_out: int, images: int, training: int) -> bool:
    """Whether there are enough patients to reject anything at alpha.

    Args:
        alpha: share of in-distribution images that may be rejected.
        held_out: held-out patients.
        images: their images.
        training: training patients, who count where there are enough held-out images to correct their scores.
    """
    return held_out + (training if images >= LEAST_HELD_OUT else 0) >= cases_needed(alpha)


def held_out_needed(alpha: float, training: int) -> int:
    """The fewest held-out patients with whom anything can be rejected, each of them with one image.

    Args:
        alpha: share of in-distribution images that may be rejected.
        training: training patients.
    """
    return min(cases_needed(alpha), max(LEAST_HELD_OUT, cases_needed(alpha) - training))


def correction(training: ArrayLike, held_out: ArrayLike) -> float:
    """What is added to the scores of left-out training images, so that they can join those of held-out images.

    The network has seen the training images, so that their scores may be too low, even where the detector was fitted to
    other patients. Their 90th percentile is raised to that of the held-out images. In simulations of five tasks
    (`tests/benchmarks/verdict_rules.py --repetitions 60`) false alarms at alpha = 0.05 were then .043 to .056 where
    training scores vary up to 15 % less, in place of .051 to .070.

    Args:
        training: scores of left-out training images of all tasks, `(n,)`.
        held_out: scores of held-out images, `(m,)`.

    Returns:
        The difference of the percentiles; 0 where the training scores are the higher ones.
    """
    ends = [float(np.quantile(np.asarray(part, dtype=np.float64), TAIL)) for part in (training, held_out)]
    return max(ends[1] - ends[0], 0.0)


@dataclass(frozen=True)
class Group:
    """Calibration images that share a threshold.

    Attributes:
        scores: of the images.
        patients: whose image each is.
    """

    scores: Sequence[float]
    patients: Sequence[Hashable]

    @cached_property
    def patient_count(self) -> int:
        """The number of patients."""
        return len(set(self.patients))

    def p_value(self, score: float) -> float:
        """The p-value of an image among them, see `p_value`."""
        scores, weights = self._weighted
        return float((1 + weights[scores >= score].sum()) / (weights.sum() + 1))

    def threshold(self, alpha: float) -> float:
        """The highest score that is not rejected: the maximum whose p-value is above alpha."""
        scores, which = np.unique(self.scores, return_inverse=True)
        reached = np.bincount(which, self._weighted[1])[::-1].cumsum()[::-1]
        return float(scores[(1 + reached) / (self.patient_count + 1) > alpha + ROUNDING].max())

    @cached_property
    def _weighted(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The scores, and of each image 1 / number of its patient's, `(images,)`: their sum is that of the patients."""
        counts = Counter(self.patients)
        weights = np.array([1 / counts[patient] for patient in self.patients], dtype=np.float64)
        return np.asarray(self.scores, dtype=np.float64), weights


@dataclass(frozen=True)
class ConformalRule:
    """Accept or reject at level alpha.

    It makes one of two promises, see `promise`:

    - Where every task has enough held-out patients, each task has its own threshold, and an image that any possible
      task accepts is accepted (the p-value is the maximum over those tasks). Of the images of *each task* at most a
      share of alpha is rejected. This is exact for patients who are exchangeable with the held-out ones.
    - Otherwise the images of all tasks are pooled, and with them, where there are at least 10 held-out images, the
      scores of training images by detectors that were fitted to other patients, corrected by `correction`. At most a
      share of alpha of the images in *this mix of tasks* is rejected. With held-out images alone that is exact. With
      training images it is approximate: cross-fitted scores alone would promise 2 alpha (CV+; Barber, Candes, Ramdas &
      Tibshirani, Ann. Stat. 49(1) 2021), and the correction is estimated.

    A patient who appears in several tasks counts once in a pool.

    Args:
        scores: task -> scores of its held-out images, each as an image of its task.
        alpha: share of in-distribution images that may be rejected, in (0, 1).
        patients: task -> whose image each is, the same name in two tasks being the same person; None: every image is
            of another patient.
        training: task -> scores of its left-out training images; None: none.
        training_patients: task -> whose image each of them is.
        reused: whether the checkpoint was chosen by the held-out patients; the promise is approximate then.

    Example:
        >>> rule = ConformalRule({"Liver": [0.1, 0.2, 0.3, 0.4]}, alpha=0.2)
        >>> rule.threshold, rule.p_value(0.5), rule.rejects(0.5), rule.rejects(0.4)
        (0.4, 0.2, True, False)
    """

    scores: Mapping[str, Sequence[float]]
    alpha: float
    patients: Mapping[str, Sequence[str]] | None = None
    training: Mapping[str, Sequence[float]] | None = None
    training_patients: Mapping[str, Sequence[str]] | None = None
    reused: bool = False

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The groups of calibration images: one a task, or one of all."""
        tasks = {task: Group(scores, self._patients(task)) for task, scores in self.scores.items()}
        if tasks and min(group.patient_count for group in tasks.values()) >= cases_needed(self.alpha):
            return tasks
        pooled = [*tasks.values(), *self._training]
        scores = [score for group in pooled for score in group.scores]
        return {POOLED: Group(scores, [patient for group in pooled for patient in group.patients])}

    @property
    def promise(self) -> str:
        """Of which images at most a share of alpha is rejected: `each task` or `the mix of tasks`."""
        return "the mix of tasks" if POOLED in self.groups else "each task"

    @property
    def exact(self) -> bool:
        """Whether the promise is exact for exchangeable patients.

        Neither was the checkpoint chosen by the held-out patients, nor is a training image among the groups.
        """
        return not self.reused and (POOLED not in self.groups or not self._training)

    @property
    def stated(self) -> str | None:
        """The promise in words, and whether it is exact; None where the rule cannot decide."""
        if not self.decides:
            return None
        cause = " (the held-out patients chose the checkpoint, too)" if self.reused else ""
        return f"{self.promise}, {'exactly' if self.exact else 'approximately'}{cause}"

    @cached_property
    def correction(self) -> float | None:
        """What is added to training scores, see `correction`; None where they are not used."""
        held_out = [score for scores in self.scores.values() for score in scores]
        if not self.training or len(held_out) < LEAST_HELD_OUT:
            return None
        return correction([score for scores in self.training.values() for score in scores], held_out)

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

    def p_value(self, score: float, tasks: Collection[str] | None = None) -> float:
        """The p-value of an image, the maximum over the groups.

        Args:
            score: of the image; where its tasks are known, as an image of those.
            tasks: the possible tasks; all if None.
        """
        chosen = [group for task, group in self.groups.items() if tasks is None or task in tasks or task == POOLED]
        return max(group.p_value(score) for group in chosen)

    def rejects(self, score: float, tasks: Collection[str] | None = None) -> bool | None:
        """Whether the image is rejected, see `p_value`; None if there are too few calibration patients."""
        return self.p_value(score, tasks) <= self.alpha + ROUNDING if self.decides else None

    @cached_property
    def _training(self) -> list[Group]:
        """The corrected training images, by task; none where they are not used."""
        shift, training = self.correction, self.training
        if shift is None or training is None:
            return []
        return [
            Group([score + shift for score in scores], _owners(task, len(scores), self.training_patients, "training"))
            for task, scores in training.items()
        ]

    def _patients(self, task: str) -> Sequence[str]:
        return _owners(task, len(self.scores[task]), self.patients, "held out")


def _owners(task: str, images: int, patients: Mapping[str, Sequence[str]] | None, part: str) -> Sequence[str]:
    return [f"{task}, {part} {number}" for number in range(images)] if patients is None else patients[task]
