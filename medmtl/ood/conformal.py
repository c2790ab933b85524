"""Conformal decisions: an image is rejected when its score is extreme among held-out familiar images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# 1 - 0.9 is not 0.1: what differs by less is the same level.
ROUNDING = 1e-9


def p_value(score: float, calibration: Sequence[float]) -> float:
    """Conformal p-value, (1 + number of calibration scores >= score) / (n + 1), in (0, 1].

    If the image is exchangeable with the calibration images, P(p <= alpha) <= alpha (Vovk et al. 2005).

    Args:
        score: of the image, higher = more foreign.
        calibration: scores of familiar images that neither the network nor the bank was fitted on.
    """
    return (1 + int(np.sum(np.asarray(calibration, dtype=np.float64) >= score))) / (len(calibration) + 1)


def cases_needed(alpha: float) -> int:
    """The fewest calibration images with which a p-value can reach alpha: ceil(1 / alpha) - 1 (19 for 5 %)."""
    return math.ceil(1 / alpha - ROUNDING) - 1


@dataclass(frozen=True)
class ConformalRule:
    """Accept or reject at level alpha.

    Where every task has enough calibration images, each task judges with its own and an image that any task accepts
    is accepted (the p-value is the largest of theirs); otherwise the images of all tasks are pooled.

    Args:
        scores: task -> scores of its calibration images.
        alpha: share of familiar images that may be rejected, in (0, 1).
    """

    scores: Mapping[str, Sequence[float]]
    alpha: float

    @property
    def groups(self) -> dict[str, list[float]]:
        """The calibration scores that judge together: a group a task, or one of all."""
        if self.scores and min(len(scores) for scores in self.scores.values()) >= cases_needed(self.alpha):
            return {task: list(scores) for task, scores in self.scores.items()}
        return {"all tasks": [score for scores in self.scores.values() for score in scores]}

    @property
    def decides(self) -> bool:
        """Whether there are enough calibration images to reject anything."""
        return min(len(scores) for scores in self.groups.values()) >= cases_needed(self.alpha)

    @property
    def threshold(self) -> float:
        """Scores above it are rejected: the ceil((n + 1)(1 - alpha))-th smallest; infinite if it cannot decide."""
        if not self.decides:
            return math.inf
        ranks = {name: math.ceil((len(group) + 1) * (1 - self.alpha) - ROUNDING) for name, group in self.groups.items()}
        return max(sorted(group)[ranks[name] - 1] for name, group in self.groups.items())

    def p_value(self, score: float) -> float:
        """The p-value of an image, the largest over the groups."""
        return max(p_value(score, group) for group in self.groups.values())

    def rejects(self, score: float) -> bool | None:
        """Whether the image is rejected; None if there are too few calibration images to say."""
        return self.p_value(score) <= self.alpha + ROUNDING if self.decides else None
