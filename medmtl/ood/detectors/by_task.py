"""ByTask: one detector per task, so that a task with varied images does not hide outliers of a uniform one."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.gaussian import MAD_TO_DEVIATION
from medmtl.ood.detectors.layers import require
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.reason import Compared, Reason


class ByTask(Detector):
    """Ours: one detector per task; the score of an image is the minimum over tasks.

    Tumours differ more from each other than brains do: a distance that is common among tumours is large among brains.
    Each task's detector is fitted to the task's images and scores an image under the task's preprocessing. Median and
    spread of the scores of the task's left-out training images bring the scores of all tasks to one scale, so that one
    threshold serves them all, and knowing the task of an image can only raise its score.

    Args:
        name: its key in tables and files.
        detector: fitted to each task separately; None takes `Fusion` with its default members.
    """

    label = "By task (ours)"
    meaning = "by task: deviation from left-out training patients in standard deviations, minimum over the tasks"
    reference = "medmtl; Mondrian conformal prediction (Vovk et al. 2005) compares within groups in the same way"

    def __init__(self, name: str = "by_task", detector: Detector | None = None) -> None:
        self.name = name
        self.detector = Fusion() if detector is None else detector
        self.needs_windows = self.detector.needs_windows
        self.needs_thumbnail = self.detector.needs_thumbnail
        self.tasks: dict[str, Detector] = {}
        self.preprocessings: dict[str, str] = {}
        self.scale: dict[str, tuple[float, float]] = {}
        self._left_out: dict[str, list[float]] = {}

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`.

        Raises:
            DataError: a task has too few patients, or an image does not have what the detector needs.
        """
        require(self, cases)
        self.tasks, self.preprocessings, self.scale, self._left_out = {}, {}, {}, {}
        for task in dict.fromkeys(case.dataset for case in cases):
            own = [case for case in cases if case.dataset == task]
            self.tasks[task] = deepcopy(self.detector)
            self.tasks[task].fit(own)
            self.preprocessings[task] = own[0].view.preprocessing
            scores = np.array(self.tasks[task].left_out_scores(own))
            centre, spread = centre_and_spread(scores)
            self.scale[task] = centre, spread
            self._left_out[task] = ((scores - centre) / spread).tolist()

    def score(self, image: Evidence) -> float:
        """See `Detector.score`; tasks under whose preprocessing the image was not prepared do not count.

        Raises:
            DataError: no task is left.
        """
        return min(self.task_scores(image).values())

    def score_as(self, image: Evidence, task: str) -> float:
        """See `Detector.score_as`: by the detector of the task alone.

        Raises:
            DataError: the image was not prepared with the preprocessing of the task.
        """
        return self._task_score(self._as_of(image, task), task)

    def task_scores(self, image: Evidence) -> dict[str, float]:
        """See `Detector.task_scores`: by the task's detector, for tasks under whose preprocessing there is a view."""
        views = {view.preprocessing: replace(image, views=(view,), chosen=0) for view in image.views}
        usable = [task for task in self.tasks if self.preprocessings[task] in views]
        if not usable:
            raise DataError(f"detector {self.name}: {image.case} was prepared with no preprocessing of a task")
        return {task: self._task_score(views[self.preprocessings[task]], task) for task in usable}

    def _task_score(self, image: Evidence, task: str) -> float:
        """The score by a task's detector of an image with the view of the task alone, on the scale of all tasks."""
        centre, spread = self.scale[task]
        return (self.tasks[task].score(image) - centre) / spread

    def left_out_scores(self, cases: Sequence[Evidence]) -> list[float]:
        """See `Detector.left_out_scores`: of the cross-fitting that `fit` did."""
        left = {task: iter(scores) for task, scores in self._left_out.items()}
        return [next(left[case.dataset]) for case in cases]

    def reasons(self, image: Evidence, task: str) -> list[Reason]:
        """See `Detector.reasons`: of the task's detector."""
        return self.tasks[task].reasons(self._as_of(image, task), task)

    def compared(self, image: Evidence, task: str) -> list[Compared]:
        """See `Detector.compared`: of the task's detector."""
        return self.tasks[task].compared(self._as_of(image, task), task)

    def _as_of(self, image: Evidence, task: str) -> Evidence:
        """The image with the view of a task alone.

        Raises:
            DataError: there is none.
        """
        views = tuple(view for view in image.views if view.preprocessing == self.preprocessings[task])
        if not views:
            raise DataError(f"detector {self.name}: {image.case} was not prepared with the preprocessing of {task}")
        return replace(image, views=views, chosen=0)

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        used = list(self.tasks.values()) or [self.detector]
        return next(filter(None, (detector.missing(image) for detector in used)), "")

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {
            "tasks": {task: detector.state_dict() for task, detector in self.tasks.items()},
            "preprocessings": self.preprocessings,
            "scale": {task: list(scale) for task, scale in self.scale.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.preprocessings = dict(state["preprocessings"])
        unscaled = {task: (0.0, 1.0) for task in state["tasks"]}  # an earlier version
        self.scale = {task: (float(c), float(s)) for task, (c, s) in state.get("scale", unscaled).items()}
        self.tasks = {task: deepcopy(self.detector) for task in state["tasks"]}
        for task, detector in self.tasks.items():
            detector.load_state_dict(state["tasks"][task])


def centre_and_spread(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Median and robust spread, the larger of the scaled MAD and half the standard deviation; 0 and 1 for NaN.

    In simulations the MAD of a dozen scores alone was often too small, and with it every score too large.
    """
    if np.isnan(scores).any():
        return 0.0, 1.0
    centre = float(np.median(scores))
    spread = max(MAD_TO_DEVIATION * float(np.median(np.abs(scores - centre))), float(scores.std()) / 2)
    return centre, spread or 1.0
