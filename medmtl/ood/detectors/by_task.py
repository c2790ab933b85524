"""ByTask: one detector per task, so that a task with varied images does not hide outliers of a uniform one."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from medmtl.errors import DataError
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.layers import require
from medmtl.ood.evidence.evidence import Evidence


class ByTask(Detector):
    """Ours: one detector per task; the score of an image is the minimum over tasks.

    Tumours differ more from each other than brains do: a distance that is common among tumours is large among brains.
    Each task's detector is fitted to the task's images and scores an image under the task's preprocessing. Scores of
    different tasks must be on one scale, as those of `Fusion` are.

    Args:
        name: its key in tables and files.
        detector: fitted to each task separately; None takes `Fusion` with its default members.
    """

    label = "By task (ours)"
    meaning = "by task: mean -log p among left-out training patients, minimum over the tasks"
    reference = "medmtl; Mondrian conformal prediction (Vovk et al. 2005) compares within groups in the same way"

    def __init__(self, name: str = "by_task", detector: Detector | None = None) -> None:
        self.name = name
        self.detector = Fusion() if detector is None else detector
        self.needs_windows = self.detector.needs_windows
        self.needs_thumbnail = self.detector.needs_thumbnail
        self.tasks: dict[str, Detector] = {}
        self.preprocessings: dict[str, str] = {}

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`.

        Raises:
            DataError: a task has too few patients, or an image does not have what the detector needs.
        """
        require(self, cases)
        self.tasks, self.preprocessings = {}, {}
        for task in dict.fromkeys(case.dataset for case in cases):
            own = [case for case in cases if case.dataset == task]
            self.tasks[task] = deepcopy(self.detector)
            self.tasks[task].fit(own)
            self.preprocessings[task] = own[0].view.preprocessing

    def score(self, image: Evidence) -> float:
        """See `Detector.score`; tasks under whose preprocessing the image was not prepared do not count.

        Raises:
            DataError: no task is left.
        """
        return min(self._scores(image).values())

    def score_as(self, image: Evidence, task: str) -> float:
        """See `Detector.score_as`."""
        return self._scores(image)[task]

    def _scores(self, image: Evidence) -> dict[str, float]:
        """Task -> score of the image by the task's detector."""
        views = {view.preprocessing: replace(image, views=(view,), chosen=0) for view in image.views}
        usable = [task for task in self.tasks if self.preprocessings[task] in views]
        if not usable:
            raise DataError(f"detector {self.name}: {image.case} was prepared with no preprocessing of a task")
        return {task: self.tasks[task].score(views[self.preprocessings[task]]) for task in usable}

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        used = list(self.tasks.values()) or [self.detector]
        return next(filter(None, (detector.missing(image) for detector in used)), "")

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {
            "tasks": {task: detector.state_dict() for task, detector in self.tasks.items()},
            "preprocessings": self.preprocessings,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.preprocessings = dict(state["preprocessings"])
        self.tasks = {task: deepcopy(self.detector) for task in state["tasks"]}
        for task, detector in self.tasks.items():
            detector.load_state_dict(state["tasks"][task])
