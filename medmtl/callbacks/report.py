"""ReportCallback: assembles the record of every test case and writes the report."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from medmtl.accuracy import ACCURACY, FOREGROUND, RECOGNISED
from medmtl.callbacks.calibration import CalibrationCallback, MeasuredCase
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.data.facts import data_facts
from medmtl.data.working_space import to_native
from medmtl.distributed import gather
from medmtl.errors import RunError
from medmtl.files import read_json
from medmtl.models.scored import ScoredScan, Segmentation
from medmtl.ood.detectors import SCORES
from medmtl.ood.mask_rule import reason_texts
from medmtl.ood.verdict import Verdict
from medmtl.report.orientation import to_ras
from medmtl.report.slices import CaseSlices
from medmtl.report.stack import Stack
from medmtl.report.test.glance import glance
from medmtl.report.test.write import write_report
from medmtl.results.case import CaseResult
from medmtl.results.test import EvaluationResult, cases_table, logged_detection
from medmtl.runs.folder import RunFolder
from medmtl.runs.loggers import show_figures, show_table
from medmtl.version import __version__

logger = logging.getLogger(__name__)

CASES = "test/cases"  # name of the table


class ReportCallback(pl.Callback):
    """Writes `report/` into the run folder at the end of a test.

    Bins of calibration are taken from `calibration` when all cases are done, so that it does not matter in which order
    the callbacks are called.

    Args:
        run: the run folder.
        checkpoint: the checkpoint that is tested.
        calibration: measures the calibration of the cases.
        spectral: holds the OOD detector.
        scaling: holds the post-hoc scaling.
    """

    def __init__(
        self,
        run: RunFolder,
        checkpoint: Path,
        calibration: CalibrationCallback,
        spectral: SpectralCallback,
        scaling: ScalingCallback,
    ) -> None:
        self.run = run
        self.checkpoint = checkpoint
        self.calibration = calibration
        self.spectral = spectral
        self.scaling = scaling
        self.page = run.report / "report.html"
        self._found: dict[int, tuple[CaseResult, CaseSlices | None, Verdict | None]] = {}

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Keep the result of a case without its calibration, and slices of it."""
        found: ScoredScan | None = outputs
        if found is None:
            return
        own, verdict = found.segmentation, found.verdict
        slices = _slices(batch, own) if own is not None else _slices_of_missed(batch, found)
        self._found[index] = _case_result(batch, found), slices, verdict

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring together the results of all processes, and write the report in the first.

        Raises:
            RunError: there was no case to test.
        """
        measured = self.calibration.measured
        found = gather(
            {
                index: (_with_calibration(result, measured.get(index)), slices, verdict)
                for index, (result, slices, verdict) in self._found.items()
            }
        )
        if not found:
            raise RunError("there is no case to test", fix="give data.test a share above 0")
        if not trainer.is_global_zero:
            return
        verdicts: dict[str, list[Verdict]] = defaultdict(list)
        for result, _, verdict in found:
            if verdict is not None:
                verdicts[result.dataset].append(verdict)
        signatures = {
            layer: {
                dataset: np.stack([verdict.signature[layer].numpy() for verdict in own])
                for dataset, own in verdicts.items()
            }
            for layer in (self.spectral.layers if verdicts else [])
        }
        evaluation = self._evaluation(trainer, [result for result, _, _ in found])
        slices = {(result.dataset, result.case): planes for result, planes, _ in found if planes is not None}
        facts = self._facts(trainer, evaluation, layers=list(signatures))
        self._say_what_is_replaced(f"{self.checkpoint.name} {facts.get('ensemble', '')}".strip())
        write_report(self.run.report, evaluation, signatures, slices, facts)
        figures = sorted((self.run.report / "figures").glob("*.png"))
        show_figures(trainer, {f"test/{path.stem}": path for path in figures})
        self._log(trainer, evaluation, slices)

    def _log(
        self, trainer: pl.Trainer, evaluation: EvaluationResult, slices: Mapping[tuple[str, str], CaseSlices]
    ) -> None:
        """Log what the report has of OOD detection, and a table of the cases with a picture of each with a label."""
        cases = evaluation.cases
        seen = {number: slices.get((case.dataset, case.case)) for number, case in enumerate(cases)}
        pictures = {number: glance(planes) for number, planes in seen.items() if planes is not None}
        show_table(trainer, CASES, cases_table(cases, evaluation.metrics), pictures)
        found = logged_detection(read_json(self.run.report / "report.json")["ood"])
        for each in trainer.loggers:
            each.log_metrics(found, trainer.global_step)

    def _say_what_is_replaced(self, tested: str) -> None:
        """Say whose report is replaced, if it is another's; `run.json` holds what was tested last."""
        earlier = self.run.read_manifest().get("report")
        if self.page.is_file() and earlier is not None and earlier != tested:
            logger.warning("%s: the report of %s is replaced by that of %s", self.page, earlier, tested)
        self.run.update_manifest(report=tested)

    def _evaluation(self, trainer: pl.Trainer, cases: list[CaseResult]) -> EvaluationResult:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        fitted = self.spectral.ood_detector
        masks = self.spectral.mask_rule
        threshold = math.inf if fitted is None else fitted.rule.threshold
        return EvaluationResult(
            run=self.run.path.name,
            cases=cases,
            alpha=self.spectral.alpha,
            ood_score=None if fitted is None else fitted.detector.name,
            calibration_patients=[] if fitted is None else [each.patient_count for each in fitted.rule.groups.values()],
            threshold=threshold if math.isfinite(threshold) else None,
            promise=None if fitted is None else fitted.rule.stated,
            mask_threshold=masks.threshold if masks is not None and masks.decides else None,
            scaling=self.scaling.summary(),
            preprocessings=[str(preprocessing) for preprocessing in data.preprocessings],
            metrics=self.calibration.metrics,
            scores=SCORES if fitted is None else {**SCORES, fitted.detector.name: fitted.detector.quantity},
            data=data_facts(data.trained, data.splits, {name: data.patients(name) for name in data.trained}),
        )

    def _facts(self, trainer: pl.Trainer, evaluation: EvaluationResult, layers: list[str]) -> dict[str, str]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        steps, seconds = self.run.facts_of("fit").get("steps"), self.run.seconds_of("fit")
        score = evaluation.ood_score
        facts = {
            "medmtl": __version__,
            "checkpoint": self.checkpoint.name,
            "ensemble": str(trainer.lightning_module.ensemble or ""),
            "trained": f"{steps} steps in {seconds / 60:.1f} min" if seconds is not None else "",
            "device": str(trainer.strategy.root_device),
            "preprocessing": "; ".join(evaluation.preprocessings),
            "held-out tasks": ", ".join(data.held_out),
            "signature layers": ", ".join(layers),
            "OOD detector": "" if score is None else evaluation.score(score).label,
        }
        facts["data_note"] = data.note
        return {key: value for key, value in facts.items() if value}


def _case_result(scan: Mapping[str, Any], found: ScoredScan) -> CaseResult:
    """The result of a case, to which its calibration is still to be added."""
    own, verdict, mask = found.segmentation, found.verdict, found.mask
    accuracy = {} if own is None else own.accuracy
    preprocessing = scan["own"] if verdict is None else verdict.preprocessing
    return CaseResult(
        case=scan["case"],
        dataset=scan["dataset"],
        expected="out" if scan["own"] is None else "in",
        dice=accuracy.get("dice"),
        hd95_mm=accuracy.get("hd95_mm"),
        asd_mm=accuracy.get("asd_mm"),
        calibration={},
        scores={} if verdict is None else verdict.scores,
        p_value=None if verdict is None else verdict.p_value,
        rejected=None if verdict is None else verdict.rejected,
        nearest_task=None if verdict is None else verdict.task,
        preprocessing=None if preprocessing is None else str(preprocessing),
        patient=scan["patient"],
        mask_reliable=None if mask is None else mask.reliable,
        mask_disagreement=None if mask is None else mask.disagreement,
        reasons=reason_texts(verdict, mask),
        classes=_by_class(accuracy),
        foreground_dice=accuracy.get(f"{FOREGROUND}/dice"),
        dice_recognised=accuracy.get(RECOGNISED),
    )


def _by_class(accuracy: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Class -> metric -> value, of what `class_accuracy` gives."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for key, value in accuracy.items():
        name, _, metric = key.rpartition("/")
        if name and name != FOREGROUND and metric in ACCURACY:
            found[name][metric] = value
    return dict(found)


def _with_calibration(result: CaseResult, measured: MeasuredCase | None) -> CaseResult:
    if measured is None:
        return result
    return replace(
        result,
        calibration=measured.calibration,
        calibration_scaled=measured.calibration_scaled,
        class_calibration=measured.classes,
        class_calibration_scaled=measured.classes_scaled,
    )


def _slices(scan: Mapping[str, Any], own: Segmentation) -> CaseSlices:
    """Cut the volume on its own grid, turned to right-anterior-superior."""
    image, label = (scan[key].as_tensor()[0].cpu().numpy() for key in ("native", "label"))
    predicted = [own.probability if own.parts is None else own.parts[0], own.probability]
    volumes = [image, label, *(volume.cpu().numpy() for volume in predicted)]
    (image, label, parts, probability), spacing = to_ras(scan["native"].affine.cpu().numpy(), *volumes)
    classes = {} if own.classes is None else own.classes.parts
    shown = None if own.parts is None else (label, parts)
    cut = CaseSlices.cut(image, label.astype(bool), probability, spacing, shown, classes)
    return replace(cut, stack=Stack.of(image, spacing, cut.grey, None, label > 0, probability))


def _slices_of_missed(scan: Mapping[str, Any], found: ScoredScan) -> CaseSlices | None:
    """Slices of an image without a label that was accepted, with the mask of the task that it was taken for."""
    if found.verdict is None or found.verdict.rejected is not False:
        return None
    own = next(each for name, each in found.probabilities.items() if str(name) == found.verdict.preprocessing)
    volumes = [scan["native"].as_tensor()[0].cpu().numpy(), to_native(own.cpu(), scan["native"]).numpy()]
    (image, probability), spacing = to_ras(scan["native"].affine.cpu().numpy(), *volumes)
    cut = CaseSlices.cut(image, None, probability, spacing)
    return replace(cut, stack=Stack.of(image, spacing, cut.grey, probability=probability))
