"""ReportCallback: collects what a test finds for each case and writes the report."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from monai.data import MetaTensor
from monai.transforms import Orientation

from medmtl.callbacks.scaling import ScalingCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.distributed import gather
from medmtl.errors import RunError
from medmtl.ood.verdict import Verdict
from medmtl.report.slices import CaseSlices
from medmtl.report.test.write import write_report
from medmtl.results.test import CaseResult
from medmtl.runs.folder import RunFolder
from medmtl.runs.wandb import show_figures
from medmtl.version import __version__


class ReportCallback(pl.Callback):
    """Writes `report/` into the run folder at the end of a test.

    It reads what the other callbacks left in the outputs of each test step, so it comes after them.

    Args:
        run: the run folder.
        checkpoint: the checkpoint that is tested.
        spectral: knows who judges.
        scaling: knows what was fitted after the training.
    """

    def __init__(self, run: RunFolder, checkpoint: Path, spectral: SpectralCallback, scaling: ScalingCallback) -> None:
        self.run = run
        self.checkpoint = checkpoint
        self.spectral = spectral
        self.scaling = scaling
        self.page = run.report / "report.html"
        self._found: dict[int, tuple[CaseResult, CaseSlices | None, Verdict | None]] = {}

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Keep the figures of a case, and three slices of it."""
        if outputs is None:
            return
        verdict: Verdict | None = outputs.get("verdict")
        result = CaseResult(
            case=batch["case"],
            dataset=batch["dataset"],
            expected="out" if batch["own"] is None else "in",
            dice=outputs["dice"],
            hd95_mm=outputs["hd95_mm"],
            asd_mm=outputs["asd_mm"],
            calibration=outputs.get("calibration", {}),
            calibration_scaled=outputs.get("calibration_scaled", {}),
            scores={} if verdict is None else {**verdict.scores, **outputs.get("disagreement", {})},
            p_value=None if verdict is None else verdict.p_value,
            rejected=None if verdict is None else verdict.rejected,
            nearest_task=None if verdict is None else verdict.task,
            preprocessing=str(batch["own"] if verdict is None else verdict.preprocessing),
            patient=batch["patient"],
        )
        slices = None if outputs["probability"] is None else _slices(batch, outputs)
        self._found[index] = result, slices, verdict

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring together what all processes found, and write the report in the first.

        Raises:
            RunError: there was no case to test.
        """
        found = gather(self._found)
        if not found:
            raise RunError("there is no case to test", fix="give data.test a share above 0")
        if not trainer.is_global_zero:
            return
        judged: dict[str, list[Verdict]] = defaultdict(list)
        for result, _, verdict in found:
            if verdict is not None:
                judged[result.dataset].append(verdict)
        ood_detector = self.spectral.ood_detector
        threshold = math.inf if ood_detector is None else ood_detector.rule().threshold
        signatures = {
            layer: {
                dataset: np.stack([verdict.signature[layer].numpy() for verdict in verdicts])
                for dataset, verdicts in judged.items()
            }
            for layer in (self.spectral.layers if judged else [])
        }
        write_report(
            self.run.report,
            self.run.path.name,
            [result for result, _, _ in found],
            self.spectral.alpha,
            signatures,
            {(result.dataset, result.case): slices for result, slices, _ in found if slices is not None},
            self._facts(trainer, layers=list(signatures)),
            None if ood_detector is None else ood_detector.detector.name,
            threshold if math.isfinite(threshold) else None,
            self.scaling.summary(),
        )
        figures = sorted((self.run.report / "figures").glob("*.png"))
        show_figures(trainer, {f"test/{path.stem}": path for path in figures})

    def _facts(self, trainer: pl.Trainer, layers: list[str]) -> dict[str, str]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        trained = self.run.read_manifest().get("fit", {})
        facts = {
            "medmtl": __version__,
            "checkpoint": self.checkpoint.name,
            "ensemble": str(trainer.lightning_module.ensemble or ""),
            "trained": f"{trained['steps']} steps in {trained['seconds'] / 60:.1f} min" if "steps" in trained else "",
            "device": str(trainer.strategy.root_device),
            "preprocessings": "; ".join(map(str, data.preprocessings)),
            "held-out tasks": ", ".join(data.held_out),
            "signature layers": ", ".join(layers),
            "judged by": "" if self.spectral.ood_detector is None else self.spectral.ood_detector.detector.name,
        }
        facts["data_note"] = data.note
        return {key: value for key, value in facts.items() if value}


def _slices(scan: dict[str, Any], outputs: dict[str, Any]) -> CaseSlices:
    """Cut the volume on its own grid, turned to right-anterior-superior."""
    turn = Orientation("RAS", labels=None)
    probability = MetaTensor(outputs["probability"][None], affine=scan["native"].affine)
    image, label, probability = (turn(volume)[0] for volume in (scan["native"], scan["label"], probability))
    spacing = turn(scan["native"]).pixdim.tolist()
    return CaseSlices.cut(image.cpu().numpy(), label.cpu().numpy().astype(bool), probability.cpu().numpy(), spacing)
