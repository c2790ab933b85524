"""Scores: detectors are fitted to the training images and score all others; each has its own conformal rule."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medmtl.errors import DataError, RunError
from medmtl.ood.conformal import ConformalRule
from medmtl.ood.detectors.base import Detector
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.signature import SignatureBank, signature
from medmtl.ood.verdict import recognised
from medmtl.ood_benchmark.cache import Observation
from medmtl.ood_benchmark.images import Image
from medmtl.results.benchmark import Record


@dataclass(frozen=True)
class Panel:
    """Fitted detectors.

    Attributes:
        detectors: those that could be fitted.
        bank: signatures of the training images, by which the preprocessing is chosen that fits an image best.
        preprocessings: of the tasks, as text.
        left_out: in words, which detectors could not be fitted, and what is missing.
    """

    detectors: list[Detector]
    bank: SignatureBank
    preprocessings: dict[str, str]
    left_out: list[str]

    @classmethod
    def fit(cls, detectors: Sequence[Detector], training: Sequence[Evidence], probe: Evidence) -> "Panel":
        """Fit every detector that has what it needs.

        Args:
            detectors: all of them.
            training: the training images, each with its own task's view.
            probe: an image with a view for every preprocessing, which shows what evidence there is.

        Raises:
            RunError: none can be used.
        """
        fitted, left_out = [], []
        for detector in detectors:
            missing = detector.missing(training[0]) or detector.missing(probe)
            try:
                reason = f"there is no {missing}" if missing else ""
                if not missing:
                    detector.fit(training)
            except DataError as error:  # too few images
                reason = str(error)
            if reason:
                left_out.append(f"detector {detector.name} is left out: {reason}")
            else:
                fitted.append(detector)
        if not fitted:
            raise RunError(f"no detector can be used ({'; '.join(left_out)})", fix="name others")
        bank = SignatureBank.fit([(case.dataset, case.case, signature(case.view.grams)) for case in training])
        return cls(fitted, bank, {case.dataset: case.view.preprocessing for case in training}, left_out)

    def choose(self, image: Evidence) -> Evidence:
        """The image with the view chosen of the task with the nearest signature."""
        if len(image.views) == 1:
            return image
        return image.choosing(recognised(image, self.bank, self.preprocessings).place)

    def score(self, image: Image, observation: Observation) -> list[Record]:
        """The score of every detector, without p-value and decision."""
        evidence = self.choose(observation.evidence)
        return [
            Record(
                detector=detector.name,
                group=image.group,
                condition=image.condition,
                severity=image.severity,
                task=image.task,
                case=image.case.name,
                patient=image.case.patient,
                score=detector.score(evidence),
                dice=observation.dice,
            )
            for detector in self.detectors
        ]


def with_decisions(records: Iterable[Record], alpha: float) -> list[Record]:
    """Records with p-values and decisions, each detector's from its own scores of the calibration cases.

    Args:
        records: scores of all detectors, calibration cases included; those stay as they are.
        alpha: share of in-distribution images that may be rejected.
    """
    records = list(records)
    calibration: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.group == "calibration":
            calibration[record.detector][record.task].append(record)
    rules = {
        detector: ConformalRule(
            {task: [record.score for record in found] for task, found in tasks.items()},
            alpha,
            {task: [record.patient for record in found] for task, found in tasks.items()},
        )
        for detector, tasks in calibration.items()
    }
    return [
        record
        if record.group == "calibration" or record.detector not in rules
        else replace(
            record,
            p_value=rules[record.detector].p_value(record.score),
            rejected=rules[record.detector].rejects(record.score),
        )
        for record in records
    ]
