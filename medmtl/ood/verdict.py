"""Verdict: which task an image looks most like, how foreign it is, and whether that is too much."""

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from medmtl.errors import DataError
from medmtl.ood.conformal import ConformalRule, cases_needed
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.signature import Nearest, Signature, SignatureBank, signature

logger = logging.getLogger(__name__)

SPECTRAL = "spectral"  # the signature's distance, which is told beside every verdict
# Field of `HeldOutScore` for each kind of `Given`.
FIELDS = {"unconditional": "unconditional", "modality": "given_modality", "task": "given_task"}
OUTPUTS = ("entropy", "max_softmax")  # so are these scores of the network's output


@dataclass(frozen=True)
class Verdict:
    """What the scores of one image say.

    Attributes:
        task: the task that it looks most like, or that it was said to be of: that of the nearest training image by
            signature, where each task's images are compared under the task's own preprocessing.
        preprocessing: of that task, as text.
        signature: the image's signature under that preprocessing.
        nearest: that training image.
        detector: name of the score that decides.
        scores: that of the detector, and `spectral`, `entropy` and `max_softmax`; higher = more foreign.
        p_value: conformal p-value of the detector's score, in (0, 1].
        rejected: out of distribution at the rule's alpha; None if that cannot be decided.
    """

    task: str
    preprocessing: str
    signature: Signature
    nearest: Nearest
    detector: str
    scores: Mapping[str, float]
    p_value: float
    rejected: bool | None

    @property
    def score(self) -> float:
        """The score that decides."""
        return self.scores[self.detector]


class HeldOutScore(NamedTuple):
    """What a held-out familiar image scored.

    Attributes:
        task: its task.
        patient: whose image it is.
        unconditional: score where nobody told anything.
        given_modality: score where its modality was told, and so the preprocessings that it may be meant for.
        given_task: score as an image of its task, see `Detector.score_as`.
    """

    task: str
    patient: str
    unconditional: float
    given_modality: float
    given_task: float


class Given(NamedTuple):
    """What a user says of an image.

    Attributes:
        kind: nothing, its modality, or its task.
        tasks: those that it may be of then.
    """

    kind: Literal["unconditional", "modality", "task"]
    tasks: tuple[str, ...]


class ConformalDetector:
    """Judges images by a detector that has learnt what is familiar, with a threshold from held-out familiar images.

    In-distribution and OOD images, and those that set the threshold, are judged in the same way: nothing here knows
    which task an image comes from, unless the user tells.

    Args:
        detector: fitted to the training images.
        bank: their signatures.
        preprocessings: of the tasks, as text.
        alpha: share of familiar images that may be rejected.
        held_out: what held-out familiar images scored.
    """

    def __init__(
        self,
        detector: Detector,
        bank: SignatureBank,
        preprocessings: Mapping[str, str],
        alpha: float,
        held_out: Sequence[HeldOutScore],
    ) -> None:
        self.detector = detector
        self.bank = bank
        self.preprocessings = dict(preprocessings)
        self.alpha = alpha
        self.held_out = list(held_out)

    @classmethod
    def fit(
        cls,
        detector: Detector,
        training: Sequence[Evidence],
        held_out: Iterable[Evidence],
        alpha: float,
        modalities: Mapping[str, str],
    ) -> "ConformalDetector":
        """Learn what is familiar.

        Args:
            detector: what is to ood_detector; where it cannot, the spectral signature judges in its place, and that is
                said.
            training: the training images, each with its own task's view.
            held_out: familiar images that neither network nor detector has learnt from, with a view a preprocessing.
            alpha: share of familiar images that may be rejected.
            modalities: of each task.
        """
        bank = SignatureBank.fit([(case.dataset, case.case, signature(case.view.grams)) for case in training])
        preprocessings = {case.dataset: case.view.preprocessing for case in training}
        able = deepcopy(detector)
        try:
            able.fit(training)
        except DataError as error:
            logger.warning("%s; the spectral signature judges instead", error)
            able = Spectral(SPECTRAL)
            able.fit(training)
        fitted = cls(able, bank, preprocessings, alpha, [])
        for image in held_out:
            task = image.dataset
            kin = {preprocessings[other] for other in preprocessings if modalities[other] == modalities[task]}
            views = (image, seen_as(image, kin))
            unconditional, given_modality = (
                able.score(seen.choosing(recognised(seen, bank, preprocessings).place)) for seen in views
            )
            given_task = able.score_as(seen_as(image, {preprocessings[task]}), task)
            fitted.held_out.append(HeldOutScore(task, image.patient, unconditional, given_modality, given_task))
        return fitted

    def rule(self, known: Given | None = None) -> ConformalRule:
        """How scores become decisions.

        Args:
            known: what is said of the images. Tasks with enough held-out patients then ood_detector without the others.
        """
        kind = "unconditional" if known is None else known.kind
        tasks = list(dict.fromkeys(each.task for each in self.held_out))
        if known is not None:
            own = {each.patient for each in self.held_out if each.task in known.tasks}
            tasks = list(known.tasks) if len(own) >= cases_needed(self.alpha) else tasks
        scores: dict[str, list[float]] = {task: [] for task in tasks}
        patients: dict[str, list[str]] = {task: [] for task in tasks}
        for each in self.held_out:
            if each.task in scores:
                scores[each.task].append(getattr(each, FIELDS[kind]))
                patients[each.task].append(each.patient)
        return ConformalRule(scores, self.alpha, patients)

    def __call__(self, image: Evidence, known: Given | None = None) -> Verdict:
        """Judge an image.

        Args:
            image: with a view for every preprocessing that it may have been meant for.
            known: what is said of it; it then has the views of those tasks alone.
        """
        told = known.tasks[0] if known is not None and known.kind == "task" else None
        index, found, nearest = recognised(
            image, self.bank, self.preprocessings, None if known is None else known.tasks
        )
        image = image.choosing(index)
        score = self.detector.score(image) if told is None else self.detector.score_as(image, told)
        rule = self.rule(known)
        return Verdict(
            task=nearest.task,
            preprocessing=image.view.preprocessing,
            signature=found,
            nearest=nearest,
            detector=self.detector.name,
            scores={
                self.detector.name: score,
                SPECTRAL: min(self.bank.nearest(signature(view.grams)).oodm for view in image.views),
                **{name: image.view.outputs[name] for name in OUTPUTS},
            },
            p_value=rule.p_value(score),
            rejected=rule.rejects(score),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything but alpha, as text, numbers and tensors."""
        return {
            "detector": self.detector.name,
            "fitted": self.detector.state_dict(),
            "bank": self.bank.state_dict(),
            "preprocessings": self.preprocessings,
            "in_distribution": [tuple(each) for each in self.held_out],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], detector: Detector, alpha: float) -> "ConformalDetector":
        """Take what `state_dict` gave.

        Args:
            state: that.
            detector: as the configuration names it.
            alpha: share of familiar images that may be rejected.
        """
        able = deepcopy(detector) if state["detector"] == detector.name else Spectral(SPECTRAL)
        able.load_state_dict(state["fitted"])
        bank = SignatureBank.from_state_dict(state["bank"])
        familiar = [HeldOutScore(*each) for each in state["in_distribution"]]
        return cls(able, bank, state["preprocessings"], alpha, familiar)


class Recognised(NamedTuple):
    """What an image looks most like.

    Attributes:
        place: of the view under which it does, from 0.
        signature: the image's under it.
        nearest: the nearest training image of a task with that preprocessing.
    """

    place: int
    signature: Signature
    nearest: Nearest


def recognised(
    image: Evidence, bank: SignatureBank, preprocessings: Mapping[str, str], tasks: Container[str] | None = None
) -> Recognised:
    """What an image looks most like, each task's training images being compared under the task's own preprocessing.

    Of 66 held-out images of the five real tasks of `multitask-open.yaml` this names the task of 63; the nearest
    signature under any preprocessing names 60.

    Args:
        image: with a view a preprocessing.
        bank: signatures of the training images.
        preprocessings: of the tasks, as text.
        tasks: those that it may be of; all if None.

    Raises:
        DataError: the image was prepared with no preprocessing of a task.
    """
    found = []
    for index, view in enumerate(image.views):
        kin = [
            task
            for task, preprocessing in preprocessings.items()
            if preprocessing == view.preprocessing and (tasks is None or task in tasks)
        ]
        if kin:
            own = signature(view.grams)
            found.append(Recognised(index, own, bank.nearest(own, tasks=kin)))
    if not found:
        raise DataError(f"{image.case} was prepared with no preprocessing of a task")
    return min(found, key=lambda each: each.nearest.oodm)


def seen_as(image: Evidence, preprocessings: Container[str]) -> Evidence:
    """An image with the views of some preprocessings alone."""
    return replace(image, views=tuple(view for view in image.views if view.preprocessing in preprocessings), chosen=0)
