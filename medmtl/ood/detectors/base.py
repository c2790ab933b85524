"""Detector: what every out-of-distribution detector promises."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from medmtl.ood.evidence.evidence import Evidence, View


class Detector(ABC):
    """Tells how foreign an image is, from what one pass of the network left of it.

    A detector is fitted to the training images alone. Its state is text, numbers and tensors, so that a checkpoint or
    file that holds it loads without running code.

    Attributes:
        name: how tables and files call it, unique among those in use.
        reference: where it is described.
        needs_windows: whether it looks at feature maps window by window.
        needs_thumbnail: whether it looks at the image itself, shrunk.
    """

    name: str
    reference: ClassVar[str]
    needs_windows: bool = False
    needs_thumbnail: bool = False

    @abstractmethod
    def fit(self, cases: Sequence[Evidence]) -> None:
        """Learn what is familiar.

        Args:
            cases: the training images, each with its own task's view.
        """

    @abstractmethod
    def score(self, image: Evidence) -> float:
        """How foreign an image is; higher = more foreign."""

    def score_as(self, image: Evidence, task: str) -> float:
        """How foreign an image is that is known to be of a task, with that task's view alone."""
        return self.score(image)

    def missing(self, image: Evidence) -> str:
        """What this detector needs and the evidence lacks, in words; empty where nothing is missing."""
        return ""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What was fitted, as text, numbers and tensors."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""


class ViewDetector(Detector):
    """A detector that compares each view with the training images; the lowest score counts.

    The preprocessing of the image's own task is among the views, and which one it is nobody tells.
    """

    @abstractmethod
    def score_view(self, view: View) -> float:
        """How foreign an image is under one preprocessing; higher = more foreign."""

    def score(self, image: Evidence) -> float:
        """See `Detector.score`."""
        return min(self.score_view(view) for view in image.views)
