"""Verdict: the nearest task of an image, its OOD score, and whether the score is above the threshold."""

import logging
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from medmtl.errors import DataError, RunError
from medmtl.ood.conformal import ConformalRule
from medmtl.ood.detector_options import options_of, same_options
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.spectral import PUBLISHED, Spectral
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.nearest import NearestTask, nearest_task, with_preprocessings
from medmtl.ood.reason import Compared, Reason
from medmtl.ood.signature import Nearest, Signature, SignatureBank, signature
from medmtl.renamed import state_with_new_names

logger = logging.getLogger(__name__)

SPECTRAL = "spectral"  # the distance to the nearest signature, reported with every verdict
OUTPUTS = ("entropy", "max_softmax")  # scores of the network's output, reported with every verdict


@dataclass(frozen=True)
class Verdict:
    """Nearest task, OOD scores and decision of one image.

    Attributes:
        task: the nearest task, see `nearest_task`, or the given one.
        preprocessing: of that task, as text.
        signature: the image's signature under that preprocessing.
        nearest: the nearest training image of that task by signature.
        detector: name of the detector, and key of its score.
        scores: that of the detector, and `spectral`, `spectral_published` (not of a checkpoint of an earlier version),
            `entropy` and `max_softmax`; higher = more out-of-distribution.
        p_value: conformal p-value of the detector's score, in (0, 1].
        rejected: out-of-distribution at the rule's alpha; None if that cannot be decided.
        reasons: what sets the image apart from the training images of the nearest task, the most unusual first; empty
            where nothing does, or the detector cannot say.
        compared: what describes the mask, each beside its range in that task; empty where the detector compares none.
    """

    task: str
    preprocessing: str
    signature: Signature
    nearest: Nearest
    detector: str
    scores: Mapping[str, float]
    p_value: float
    rejected: bool | None
    reasons: tuple[Reason, ...] = ()
    compared: tuple[Compared, ...] = ()

    @property
    def score(self) -> float:
        """The score of the detector."""
        return self.scores[self.detector]


class CalibrationScore(NamedTuple):
    """OOD score of an in-distribution image by a detector that was not fitted to its patient.

    Attributes:
        task: its task.
        patient: its patient; the same name in two tasks is the same person.
        case: name of the image within its task; empty in checkpoints of earlier versions.
        score: as an image of its task, see `Detector.score_as`.
    """

    task: str
    patient: str
    case: str
    score: float


class Given(NamedTuple):
    """What is given of an image.

    Attributes:
        kind: nothing, its modality, or its task.
        tasks: the possible tasks.
    """

    kind: Literal["unconditional", "modality", "task"]
    tasks: tuple[str, ...]


class ConformalDetector:
    """A fitted detector with a conformal threshold from in-distribution images that it was not fitted to.

    These are the held-out images, and the training images, each scored by a detector that was fitted to other
    patients; see `ConformalRule` for what is promised. Each is scored as an image of its task. An image whose task is
    not given has the minimum over all tasks, which is at most that: the promise holds for it, too, and giving the task
    of an image can only raise its score.

    The network and the detector are not fitted to the held-out images, but where these are the validation images of a
    training, its checkpoint was chosen by them, so that the bound of alpha is approximate (`reused`). In a simulation,
    the best of 10 checkpoints being chosen by the same 20 patients, 5.3 % of new patients were rejected at 5 % if
    scores of checkpoints are correlated at .9, and 6.0 % at .5 (5.8 % and 7.3 % in the worst case, where the checkpoint
    of the lowest scores is chosen), and 4.8 % if other patients set the threshold: `tests/benchmarks/reuse.py`.

    Args:
        detector: fitted to the training images.
        bank: their signatures.
        preprocessings: of the tasks, as text.
        alpha: share of in-distribution images that may be rejected.
        held_out: scores of held-out in-distribution images.
        training: scores of training images by detectors that were fitted to other patients.
        configured: class and options of the detector that was asked for, see `options_of`; those of `detector` if None.
        published: the paper's detector, for its score beside that of `detector`.
        reused: whether the network's checkpoint was chosen by the held-out images.
    """

    def __init__(
        self,
        detector: Detector,
        bank: SignatureBank,
        preprocessings: Mapping[str, str],
        alpha: float,
        held_out: Sequence[CalibrationScore],
        training: Sequence[CalibrationScore] = (),
        configured: Mapping[str, Any] | None = None,
        published: Spectral | None = None,
        reused: bool = False,
    ) -> None:
        self.detector = detector
        self.bank = bank
        self.preprocessings = dict(preprocessings)
        self.alpha = alpha
        self.held_out = list(held_out)
        self.training = list(training)
        self.configured = options_of(detector) if configured is None else dict(configured)
        self.published = published
        self.reused = reused
        self._rule: ConformalRule | None = None

    @classmethod
    def fit(
        cls,
        detector: Detector,
        training: Sequence[Evidence],
        held_out: Iterable[Evidence],
        alpha: float,
        reused: bool = False,
    ) -> "ConformalDetector":
        """Fit a detector to the training images, and score in-distribution images that it was not fitted to.

        Args:
            detector: the detector; if it cannot be fitted to these images, `Spectral` takes its place, with a warning.
            training: the training images, each with its own task's view.
            held_out: in-distribution images that neither network nor detector was trained on; only the view of its own
                task counts.
            alpha: share of in-distribution images that may be rejected.
            reused: whether the network's checkpoint was chosen by the held-out images.
        """
        bank = SignatureBank.fit([(case.dataset, case.case, signature(case.view.grams)) for case in training])
        preprocessings = {case.dataset: case.view.preprocessing for case in training}
        used = deepcopy(detector)
        try:
            used.fit(training)
        except DataError as error:
            logger.warning("%s; the spectral signature is used instead", error)
            used = Spectral(SPECTRAL)
            used.fit(training)
        left_out = [
            CalibrationScore(case.dataset, case.patient, case.case, score)
            for case, score in zip(training, used.left_out_scores(training), strict=True)
            if math.isfinite(score)
        ]
        scored = []
        for case in held_out:
            own = with_preprocessings(case, {preprocessings[case.dataset]})
            scored.append(CalibrationScore(case.dataset, case.patient, case.case, used.score_as(own, case.dataset)))
        published = Spectral.published()
        published.fit(training)
        return cls(used, bank, preprocessings, alpha, scored, left_out, options_of(detector), published, reused)

    @property
    def rule(self) -> ConformalRule:
        """The rule that turns scores into p-values and decisions."""
        if self._rule is None or self._rule.alpha != self.alpha:
            (scores, patients), (training, owners) = map(_by_task, (self.held_out, self.training))
            self._rule = ConformalRule(scores, self.alpha, patients, training or None, owners or None, self.reused)
        return self._rule

    def above_threshold(self) -> list[CalibrationScore]:
        """The held-out images that the rule itself rejects, which are in-distribution: those that set the threshold."""
        return sorted((each for each in self.held_out if self.rule.rejects(each.score)), key=lambda each: -each.score)

    def nearest(self, image: Evidence, tasks: Container[str] | None = None) -> NearestTask:
        """The nearest task of an image among the given ones, see `nearest_task`."""
        return nearest_task(image, self.bank, self.preprocessings, tasks, self.detector)

    def __call__(self, image: Evidence, given: Given | None = None) -> Verdict:
        """The verdict of an image.

        Args:
            image: with a view for every preprocessing that is possible.
            given: what is given of it; it then has the views of those tasks alone.
        """
        task = given.tasks[0] if given is not None and given.kind == "task" else None
        tasks = None if given is None else given.tasks
        index, found, nearest = self.nearest(image, tasks)
        image = image.choosing(index)
        score = self.detector.score(image) if task is None else self.detector.score_as(image, task)
        rule = self.rule
        return Verdict(
            task=nearest.task,
            preprocessing=image.view.preprocessing,
            signature=found,
            nearest=nearest,
            detector=self.detector.name,
            scores={
                self.detector.name: score,
                SPECTRAL: min(self.bank.nearest(signature(view.grams, self.bank.floor)).oodm for view in image.views),
                **({} if self.published is None else {PUBLISHED: self.published.score(image)}),
                **{name: image.view.outputs[name] for name in OUTPUTS},
            },
            p_value=rule.p_value(score, tasks),
            rejected=rule.rejects(score, tasks),
            reasons=tuple(sorted(self.detector.reasons(image, nearest.task), key=lambda each: -each.deviation)),
            compared=tuple(self.detector.compared(image, nearest.task)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything but alpha, as text, numbers and tensors."""
        return {
            "detector": self.detector.name,
            "configured": self.configured,
            "fitted": self.detector.state_dict(),
            "bank": self.bank.state_dict(),
            **({} if self.published is None else {PUBLISHED: self.published.state_dict()}),
            "preprocessings": self.preprocessings,
            "held_out": [tuple(each) for each in self.held_out],
            "training": [tuple(each) for each in self.training],
            "reused": self.reused,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], detector: Detector, alpha: float) -> "ConformalDetector":
        """The detector that `state_dict` describes.

        Args:
            state: what `state_dict` gave, also in an earlier version.
            detector: as the configuration has it.
            alpha: share of in-distribution images that may be rejected.

        Raises:
            RunError: another detector was fitted.
        """
        state = state_with_new_names(state)
        wanted = options_of(detector)
        configured = state.get("configured", wanted)  # an earlier version kept the name alone
        name = state["detector"]
        used = deepcopy(detector) if name == detector.name else Spectral(SPECTRAL)
        try:
            if not same_options(configured, wanted) or name != used.name:
                raise KeyError(name)
            used.load_state_dict(state["fitted"])
        except (KeyError, TypeError, ValueError, AttributeError):  # the state of a class with other options
            there = state["configured"]["class"] if "configured" in state else name
            here = type(detector).__name__
            raise RunError(
                f"the checkpoint was fitted with the OOD detector {there}, and spectral.detector is {here}"
                + (" with other options" if here == there else ""),
                fix="leave out spectral.detector, or fit this one with `medmtl calibrate`",
            ) from None
        bank = SignatureBank.from_state_dict(state["bank"])
        held_out = [_calibration_score(each) for each in state["held_out"]]
        training = [CalibrationScore(*each) for each in state.get("training", [])]
        published = Spectral.published() if PUBLISHED in state else None
        if published is not None:
            published.load_state_dict(state[PUBLISHED])
        reused = state.get("reused", True)  # an earlier version may have had no other images
        return cls(used, bank, state["preprocessings"], alpha, held_out, training, configured, published, reused)


def _by_task(scored: Sequence[CalibrationScore]) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Scores and patients by task."""
    scores: dict[str, list[float]] = {}
    patients: dict[str, list[str]] = {}
    for each in scored:
        scores.setdefault(each.task, []).append(each.score)
        patients.setdefault(each.task, []).append(each.patient)
    return scores, patients


def _calibration_score(kept: Sequence[Any]) -> CalibrationScore:
    """As a checkpoint keeps it; in version 0.1 task, patient, and the score with nothing, modality or task given."""
    task, patient, third, fourth = kept[:4]
    return (
        CalibrationScore(task, patient, third, fourth) if len(kept) == 4 else CalibrationScore(task, patient, "", third)
    )
