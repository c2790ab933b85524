"""Scores: detectors are fitted to the training images and score all others; each has its own conformal rule."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medmtl.errors import DataError, RunError
from medmtl.ood.detectors.base import Detector
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.nearest import nearest_task, with_preprocessings
from medmtl.ood.signature import SignatureBank, signature
from medmtl.ood.verdict import ConformalDetector
from medmtl.ood_benchmark.cache import Observation
from medmtl.ood_benchmark.images import Image
from medmtl.results.benchmark import THRESHOLD, Record, rule_of


@dataclass(frozen=True)
class Panel:
    """Fitted detectors.

    Attributes:
        detectors: those that could be fitted.
        bank: signatures of the training images.
        preprocessings: of the tasks, as text.
        verdict: of the run, which names the nearest task; None: the nearest signature does.
        left_out: in words, which detectors could not be fitted, and what is missing.
    """

    detectors: list[Detector]
    bank: SignatureBank
    preprocessings: dict[str, str]
    verdict: ConformalDetector | None
    left_out: list[str]

    @classmethod
    def fit(
        cls,
        detectors: Sequence[Detector],
        training: Sequence[Evidence],
        probe: Evidence,
        verdict: ConformalDetector | None = None,
    ) -> "Panel":
        """Fit every detector that has what it needs.

        Args:
            detectors: all of them.
            training: the training images, each with its own task's view.
            probe: an image with a view for every preprocessing, which shows what evidence there is.
            verdict: of the run, if its detector compares the layers that were observed.

        Raises:
            RunError: none can be used.
        """
        bank = SignatureBank.fit([(case.dataset, case.case, signature(case.view.grams)) for case in training])
        preprocessings = {case.dataset: case.view.preprocessing for case in training}
        panel = cls([], bank, preprocessings, verdict, [])
        probe, _ = panel.choose(probe)
        for detector in detectors:
            missing = detector.missing(training[0]) or detector.missing(probe)
            try:
                reason = f"there is no {missing}" if missing else ""
                if not missing:
                    detector.fit(training)
            except DataError as error:  # too few images
                reason = str(error)
            if reason:
                panel.left_out.append(f"detector {detector.name} is left out: {reason}")
            else:
                panel.detectors.append(detector)
        if not panel.detectors:
            raise RunError(f"no detector can be used ({'; '.join(panel.left_out)})", fix="name others")
        return panel

    def choose(self, image: Evidence) -> tuple[Evidence, str]:
        """The image with the view chosen of the nearest task, and that task."""
        if self.verdict is None:
            found = nearest_task(image, self.bank, self.preprocessings)
        else:
            found = self.verdict.nearest(image)
        return image.choosing(found.view), found.nearest.task

    def score(self, image: Image, observation: Observation) -> list[Record]:
        """The score of every detector, without p-value and decision; a calibration image as one of its task."""
        evidence, _ = self.choose(observation.evidence)
        if image.group == "calibration":
            evidence = with_preprocessings(evidence, {self.preprocessings[image.task]})
        return [
            Record(
                detector=detector.name,
                group=image.group,
                condition=image.condition,
                severity=image.severity,
                task=image.task,
                case=image.case.name,
                patient=image.case.patient,
                score=detector.score_as(evidence, image.task)
                if image.group == "calibration"
                else detector.score(evidence),
                dice=observation.dice,
            )
            for detector in self.detectors
        ]

    def score_training(self, images: Sequence[Image], observations: Sequence[Observation]) -> list[Record]:
        """The score of every training image by each detector as fitted to other patients, if there are others."""
        evidence = [observation.evidence for observation in observations]
        return [
            Record(
                detector=detector.name,
                group=image.group,
                condition=image.condition,
                severity=0,
                task=image.task,
                case=image.case.name,
                patient=image.case.patient,
                score=score,
                dice=observation.dice,
            )
            for detector in self.detectors
            for image, observation, score in zip(images, observations, detector.left_out_scores(evidence), strict=True)
            if math.isfinite(score)
        ]


def with_decisions(records: Iterable[Record], alpha: float) -> list[Record]:
    """Records with p-values and decisions, by the rule of each detector; those that set its threshold as they are.

    Args:
        records: scores of all detectors, of calibration and training images, too.
        alpha: share of in-distribution images that may be rejected.
    """
    records = list(records)
    rules = {name: rule_of(records, name, alpha) for name in dict.fromkeys(record.detector for record in records)}
    return [
        record
        if record.group in THRESHOLD or not rules[record.detector].scores
        else replace(
            record,
            p_value=rules[record.detector].p_value(record.score),
            rejected=rules[record.detector].rejects(record.score),
        )
        for record in records
    ]
