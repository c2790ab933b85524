"""ReportCallback: collects what a test finds for each case and writes the report."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from monai.data import MetaTensor
from monai.transforms import Orientation

from medmtl import __version__
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.errors import RunError
from medmtl.inference.verdict import Verdict
from medmtl.report.results import CaseResult
from medmtl.report.slices import CaseSlices
from medmtl.report.write import write_report
from medmtl.run import RunFolder


class ReportCallback(pl.Callback):
    """Writes `report/` into the run folder at the end of a test.

    It reads what the other callbacks left in the outputs of each test step, so it comes after them.

    Args:
        run: the run folder.
        checkpoint: the checkpoint that is tested.
        spectral: knows the signature bank and the rule of the verdict.
    """

    def __init__(self, run: RunFolder, checkpoint: Path, spectral: SpectralCallback) -> None:
        self.run = run
        self.checkpoint = checkpoint
        self.spectral = spectral
        self.results: list[CaseResult] = []
        self.page: Path | None = None
        self._slices: dict[tuple[str, str], CaseSlices] = {}
        self._verdicts: dict[str, list[Verdict]] = defaultdict(list)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the figures of a case, and three slices of it."""
        verdict: Verdict | None = outputs.get("verdict")
        if verdict is not None:
            self._verdicts[batch["source"]].append(verdict)
        if outputs["probability"] is not None:
            self._slices[batch["source"], batch["case"]] = _slices(batch, outputs)
        self.results.append(
            CaseResult(
                case=batch["case"],
                source=batch["source"],
                expected="out" if batch["own"] is None else "in",
                dice=outputs["dice"],
                calibration=outputs.get("calibration", {}),
                scores={} if verdict is None else verdict.scores,
                p_value=None if verdict is None else verdict.p_value,
                rejected=None if verdict is None else verdict.rejected,
                nearest_task=None if verdict is None else verdict.nearest.task,
                recipe=str(batch["own"] if verdict is None else verdict.recipe),
                patient=batch["patient"],
            )
        )

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the report.

        Raises:
            RunError: there was no case to test.
        """
        if not self.results:
            raise RunError("there is no case to test", fix="give data.test a share above 0")
        threshold = self.spectral.rule.threshold if self.spectral.bank is not None else math.inf
        signatures = {
            layer: {
                source: np.stack([verdict.signature[layer].cpu().numpy() for verdict in verdicts])
                for source, verdicts in self._verdicts.items()
            }
            for layer in (self.spectral.layers if self._verdicts else [])
        }
        self.page = write_report(
            self.run.report,
            self.run.path.name,
            self.results,
            self.spectral.alpha,
            signatures,
            self._slices,
            self._facts(trainer),
            threshold if math.isfinite(threshold) else None,
        )

    def _facts(self, trainer: pl.Trainer) -> dict[str, str]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        trained = self.run.read_manifest().get("fit", {})
        facts = {
            "medmtl": __version__,
            "checkpoint": self.checkpoint.name,
            "trained": f"{trained['steps']} steps in {trained['seconds'] / 60:.1f} min" if "steps" in trained else "",
            "device": str(trainer.strategy.root_device),
            "recipes": "; ".join(map(str, data.recipes)),
            "held-out tasks": ", ".join(data.held_out),
            "signature layers": ", ".join(self.spectral.layers) if self._verdicts else "",
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
