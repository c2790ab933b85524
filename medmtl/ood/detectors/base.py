"""Detector: the interface of every out-of-distribution detector."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from medmtl.ood.evidence.evidence import Evidence, View
from medmtl.ood.score import OODScore, Role, in_words


class Detector(ABC):
    """Scores how far an image is from the training data, from the evidence that one forward pass left.

    One of your own needs a `name` and the abstract methods; `check_detector` checks it. A detector is fitted to the
    training images alone. Its state is text, numbers and tensors, so that a checkpoint or
    file that holds it loads without running code.

    Attributes:
        name: its key in tables and files, unique among those in use.
        label: how pages and figures call it; the name in words where it is empty.
        meaning: what its score is, for an axis; empty: the label says it.
        unit: of its score; empty for a number without one.
        reference: where it is described.
        role: see `OODScore`.
        needs_network: whether it needs more of the network than its segmentation.
        needs_windows: whether it needs the feature maps of each sliding window.
        needs_thumbnail: whether it needs the downsampled image.
    """

    name: str
    label: str = ""
    meaning: str = ""
    unit: str = ""
    reference: ClassVar[str] = ""
    role: Role = ""
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
