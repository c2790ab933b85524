"""Several detectors as one: scores are standardised by the cross-fitted scores of the training images."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from medmtl.errors import ConfigError, DataError
from medmtl.ood.detectors.base import FOLDS, Detector, ViewDetector, folds_of
from medmtl.ood.detectors.distances import KNN, Contrast
from medmtl.ood.detectors.gaussian import MAD_TO_DEVIATION
from medmtl.ood.detectors.intensity import IntensityHistogram
from medmtl.ood.detectors.layers import require
from medmtl.ood.detectors.shape import Shape
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.reason import Compared, Reason

# The logistic distribution with this slope is within 0.01 of the normal one.
LOGISTIC = 1.702
UNUSUAL = 3.0  # standard deviations from which on a member's score is named as a reason
LEAST_SHARE = 1e-3  # of the minimum in-distribution score: lower scores are raised to it before the logarithm


def _mean(z: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, None] * z).sum(0)


def _max(z: Tensor, weights: Tensor) -> Tensor:
    return z[weights > 0].max(0).values


def _fisher(z: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, None] * functional.softplus(LOGISTIC * z)).sum(0)


Combine = Literal["mean", "max", "fisher"]
COMBINE: dict[Combine, Callable[[Tensor, Tensor], Tensor]] = {"mean": _mean, "max": _max, "fisher": _fisher}


class Fusion(Detector):
    """Ours: signatures, feature means, feature contrasts, intensities and the shape of the mask together.

    Scores of images that a member was fitted to are too low, so members are fitted to some patients and score the
    others (cross-fitting). Median and spread of these scores, on the scale of logarithms where all are positive
    (and the member does not say otherwise), standardise each member's score to a z. The score of an
    image is the combination of its z, the minimum over the preprocessings.

    The evidence has two groups of equal weight: features and intensities, and the shape of the mask. The members of the
    first were chosen by leaving out one training task at a time, without any OOD image: over the training images of the
    five real tasks of `multitask-open.yaml`, after 600 steps, the mean AUROC was .991 with it, .976 with whitened
    histograms, .952 with signatures, .940 with `Contrast`, .894 with `KNN` and .689 with entropy. That figure is nearly
    saturated, and `Shape` with its weight was chosen on far images of one training, so both choices are optimistic.

    Args:
        name: its key in tables and files.
        members: detectors with different names; None takes `Spectral`, `KNN`, `Contrast`, `IntensityHistogram`, as it
            is and whitened, and `Shape`.
        combine: `mean` of the z, their `max`, or `fisher`, the mean of - log p with the p-values of the z as if they
            were normal (logistic approximation), where a low score of one member cannot cancel a high one of another.
        folds: parts of the patients; each is scored by members fitted to the others.
        weights: of members by name in `mean` and `fisher`, 1 where not named; None gives a `Shape` among the
            members the weight of all others together.

    Raises:
        ConfigError: members share a name, or there are fewer than two folds.
    """

    label = "Fusion"
    meaning = "combination of the members' standardised scores"
    reference = "medmtl; Fisher's combination of p-values"

    def __init__(
        self,
        name: str = "fusion",
        members: list[Detector] | None = None,
        combine: Combine = "fisher",
        folds: int = FOLDS,
        weights: dict[str, float] | None = None,
    ) -> None:
        self.name = name
        self.members = _default_members() if members is None else members
        self.combine: Combine = combine
        self.folds = folds
        self.weights = weights
        self.needs_windows = any(member.needs_windows for member in self.members)
        self.needs_thumbnail = any(member.needs_thumbnail for member in self.members)
        self.centre = torch.empty(0)
        self.spread = torch.empty(0)
        self.floor = torch.empty(0)
        self._left_out: list[float] = []
        names = [member.name for member in self.members]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"detector {name}: members {names}", fix="give some, each a name of its own")
        if folds < 2:
            raise ConfigError(f"detector {name}: folds {folds}", fix="use at least 2")

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`.

        Raises:
            DataError: there are fewer than two patients, or an image does not have what a member needs.
        """
        require(self, cases)
        parts = folds_of(cases, self.folds)
        if len(set(parts)) < 2:
            raise DataError(f"detector {self.name}: needs two training patients", fix="add cases")
        crossed: dict[int, Tensor] = {}
        for left_out in sorted(set(parts)):
            members = deepcopy(self.members)
            for member in members:
                member.fit([case for case, part in zip(cases, parts, strict=True) if part != left_out])
            scored = [index for index, part in enumerate(parts) if part == left_out]
            crossed |= {index: _scores(members, cases[index])[:, 0] for index in scored}
        for member in self.members:
            member.fit(cases)
        scores = torch.stack([crossed[index] for index in range(len(cases))], dim=1)
        least = scores.min(1).values
        logarithmic = torch.tensor([member.logarithmic for member in self.members])
        self.floor = torch.where(logarithmic & (least > 0), LEAST_SHARE * least, 0.0)
        scores = self._scaled(scores)
        self.centre = scores.median(1).values
        absolute = (scores - self.centre[:, None]).abs()
        # The median is 0 where most scores are the same, such as those of empty predictions; the mean is not.
        robust = MAD_TO_DEVIATION * absolute.median(1).values
        self.spread = torch.where(robust > 0, robust, absolute.mean(1)).clamp_min(torch.finfo(scores.dtype).eps)
        self._left_out = self._combined((scores - self.centre[:, None]) / self.spread[:, None]).tolist()

    def score(self, image: Evidence) -> float:
        """See `Detector.score`."""
        z = (self._scaled(_scores(self.members, image)) - self.centre[:, None]) / self.spread[:, None]
        return float(self._combined(z).min())

    def left_out_scores(self, cases: Sequence[Evidence]) -> list[float]:
        """See `Detector.left_out_scores`: of the cross-fitting that `fit` did."""
        return list(self._left_out)

    def reasons(self, image: Evidence, task: str) -> list[Reason]:
        """See `Detector.reasons`: of the members, and members whose score is far above those of left-out images."""
        found = [reason for member in self.members for reason in member.reasons(image, task)]
        scaled = self._scaled(_scores(self.members, image)).min(1).values
        z = ((scaled - self.centre) / self.spread).tolist()
        for member, deviation, above, floor in zip(self.members, z, scaled - self.centre, self.floor, strict=True):
            if deviation >= UNUSUAL and floor > 0 and member.compares:
                times = math.exp(float(above))
                text = f"{member.compares} {times:.1f} times as far from those of {task} in training as usual"
                found.append(Reason(member.name, text, deviation))
        return found

    def compared(self, image: Evidence, task: str) -> list[Compared]:
        """See `Detector.compared`: of the members."""
        return [each for member in self.members for each in member.compared(image, task)]

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`: of the first member for which something is missing."""
        return next(filter(None, (member.missing(image) for member in self.members)), "")

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        members = {member.name: member.state_dict() for member in self.members}
        return {"members": members, "centre": self.centre, "spread": self.spread, "floor": self.floor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        unknown = sorted(set(state["members"]) - {member.name for member in self.members})
        if unknown:
            raise KeyError(unknown[0])
        # An earlier version had fewer members by default.
        self.members = [member for member in self.members if member.name in state["members"]]
        for member in self.members:
            member.load_state_dict(state["members"][member.name])
        self.centre, self.spread, self.floor = state["centre"], state["spread"], state["floor"]

    def _combined(self, z: Tensor) -> Tensor:
        """The combination of `z`, `(members, any)` -> `(any,)`."""
        alone = max(len(self.members) - 1, 1)
        group = {member.name: alone for member in self.members if isinstance(member, Shape)}
        given = group if self.weights is None else self.weights
        weights = torch.tensor([given.get(member.name, 1.0) for member in self.members], dtype=z.dtype)
        return COMBINE[self.combine](z, weights / weights.sum())

    def _scaled(self, scores: Tensor) -> Tensor:
        """Scores `(members, any)`, as logarithms for members whose in-distribution scores are all above 0."""
        floor = self.floor[:, None]
        return torch.where(floor > 0, scores.maximum(floor.clamp_min(torch.finfo(scores.dtype).tiny)).log(), scores)


def _default_members() -> list[Detector]:
    return [
        Spectral(),
        KNN(),
        Contrast(),
        IntensityHistogram(),
        IntensityHistogram("ihf_whitened", whitening=True),
        Shape(),
    ]


def _scores(members: Sequence[Detector], image: Evidence) -> Tensor:
    """Score of each member under each view, `(members, views)` float64; one that is no `ViewDetector` has one."""
    rows = []
    for member in members:
        if isinstance(member, ViewDetector):
            rows.append([member.score_view(view) for view in image.views])
        else:
            rows.append([member.score(image)] * len(image.views))
    return torch.tensor(rows, dtype=torch.float64)
