"""Detector: the interface of every out-of-distribution detector."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

from medmtl.errors import DataError
from medmtl.ood.evidence.evidence import Evidence, View
from medmtl.ood.reason import Compared, Reason
from medmtl.ood.score import OODScore, Role, in_words

FOLDS = 5  # of the training patients, where each is scored by a detector that was fitted to the others


class Detector(ABC):
    """Scores how far an image is from the training data, from the evidence that one forward pass left.

    One of your own needs a `name` and the abstract methods; `check_detector` checks it. A detector is fitted to the
    training images alone. Its state is text, numbers and tensors, so that a checkpoint or
    file that holds it loads without running code.

    Attributes:
        name: its key in tables and files, unique among those in use.
        label: how pages and figures call it; the name in words where it is empty.
        meaning: what its score is, for an axis; empty: the label
        compares: what of an image it compares with the training images, for messages; empty: not a distance.
        unit: of its score; empty for a number without one.
        reference: where it is described.
        role: see `OODScore`.
        logarithmic: whether `Fusion` compares logarithms of its scores, which must be positive then.
        needs_network: whether it needs more of the network than its segmentation.
        needs_windows: whether it needs the feature maps of each sliding window.
        needs_thumbnail: whether it needs the downsampled image.
    """

    name: str
    label: str = ""
    meaning: str = ""
    compares: str = ""
    unit: str = ""
    reference: ClassVar[str] = ""
    role: Role = ""
    logarithmic: bool = True
    needs_network: bool = True
    needs_windows: bool = False
    needs_thumbnail: bool = False

    @property
    def quantity(self) -> OODScore:
        """The score, as tables, pages and figures describe it."""
        return OODScore(
            key=self.name,
            label=self.label or in_words(self.name),
            unit=self.unit,
            meaning=self.meaning,
            needs_network=self.needs_network,
            role=self.role,
            reference=self.reference,
        )

    @abstractmethod
    def fit(self, cases: Sequence[Evidence]) -> None:
        """Fit to the training images.

        Args:
            cases: the training images, each with its own task's view.
        """

    @abstractmethod
    def score(self, image: Evidence) -> float:
        """The OOD score of an image; higher = more out-of-distribution."""

    def score_as(self, image: Evidence, task: str) -> float:
        """The score of an image that is known to be of a task, with that task's view alone."""
        return self.score(image)

    def task_scores(self, image: Evidence) -> dict[str, float]:
        """Task -> the score of an image as one of that task, in standard deviations of scores of its training images.

        Empty where the detector does not compare tasks apart.
        """
        return {}

    def left_out_scores(self, cases: Sequence[Evidence]) -> list[float]:
        """Score each training image as of its task by a detector that was fitted to other patients (cross-fitting).

        Args:
            cases: what the detector was fitted to.

        Returns:
            One score an image; NaN where there are no other patients, or it cannot be fitted to these alone.
        """
        parts = folds_of(cases, FOLDS)
        found = dict.fromkeys(range(len(cases)), math.nan)
        for left_out in sorted(set(parts)) if len(set(parts)) > 1 else []:
            fitted = deepcopy(self)
            try:
                fitted.fit([case for case, part in zip(cases, parts, strict=True) if part != left_out])
            except DataError:
                continue
            for index, (case, part) in enumerate(zip(cases, parts, strict=True)):
                if part == left_out:
                    found[index] = fitted.score_as(case, case.dataset)
        return list(found.values())

    def reasons(self, image: Evidence, task: str) -> list[Reason]:
        """What sets an image apart from the training images of a task; nothing where the detector cannot say."""
        return []

    def compared(self, image: Evidence, task: str) -> list[Compared]:
        """What describes the mask, each beside its range in a task; nothing where the detector does not compare it."""
        return []

    def missing(self, image: Evidence) -> str:
        """What this detector needs and the evidence does not have, in one line; empty where nothing is missing."""
        return ""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What was fitted, as text, numbers and tensors."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""


class ViewDetector(Detector):
    """A detector that compares each view with the training images; the score is the minimum over the views.

    The preprocessing of the image's own task is among the views, and which one it is is not given.
    """

    @abstractmethod
    def score_view(self, view: View) -> float:
        """The score of an image under one preprocessing; higher = more out-of-distribution."""

    def score(self, image: Evidence) -> float:
        """See `Detector.score`."""
        return min(self.score_view(view) for view in image.views)


def folds_of(cases: Sequence[Evidence], folds: int) -> list[int]:
    """Which fold each image belongs to: those of a patient to one, and those of a task spread over all."""
    patients = list(dict.fromkeys(case.patient for case in cases))
    return [patients.index(case.patient) % folds for case in cases]
