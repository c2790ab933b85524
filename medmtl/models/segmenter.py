"""Segmenter: one network, one foreground output, several tasks, no task id."""

import inspect
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from monai.data import MetaTensor
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from medmtl.accuracy import ACCURACY, dice, surface_distances
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.transforms import to_native
from medmtl.distributed import gather
from medmtl.errors import ConfigError
from medmtl.losses.masked import leave_out_unknown
from medmtl.models.channels import input_channels
from medmtl.models.ensemble import Ensemble, Members
from medmtl.models.extract import Observer, output_scores
from medmtl.models.finetune import FineTune, freeze, load_weights
from medmtl.models.members import Part, read_members
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.verdict import OUTPUTS, ConformalDetector


class Segmenter(pl.LightningModule):
    """Trains a network on the union of tasks and segments whole volumes with it.

    The network sees an image and nothing else: which organ is of interest it must recognise from the context, as in
    Karimi & Gholipour (arXiv 2004.06569).

    Args:
        network: maps `(B, C, H, W, D)` to one foreground logit `(B, 1, H, W, D)`; C is 1, or as many channels as each
            task stacks.
        loss: takes logits and labels, both `(B, 1, H, W, D)`.
        optimizer: takes the parameters.
        scheduler: takes the optimizer, stepped every batch. A `total_steps` that it wants and that is not given is the
            length of the training.
        patch_size: sliding window, voxels a side (the command line links it to `data.patch_size`).
        overlap: share of a sliding window that the next one covers again.
        window_batch: sliding windows computed together.
        finetune: start from the weights of the medmtl checkpoint `checkpoint`, and train only `layers`: all, decoder
            (all after the coarsest feature map) or head (the last ones).
        ensemble: test and calibrate other `checkpoints` together with the run's own, or `dropout_passes` of it, as one
            model.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerCallable,
        patch_size: tuple[int, int, int],
        scheduler: LRSchedulerCallable | None = None,
        overlap: float = 0.25,
        window_batch: int = 4,
        finetune: FineTune | None = None,
        ensemble: Ensemble | None = None,
    ) -> None:
        super().__init__()
        # 1.6 times the speed on a CPU with MONAI's UNet (.256 to .161 s for a step of four 48^3 patches).
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.finetune = finetune
        self.ensemble = ensemble
        self.members: Members | None = None
        self.predictor = VolumePredictor(network, patch_size, overlap, window_batch)
        self.observer: Observer | None = None
        self.ood_detector: ConformalDetector | None = None
        self._accuracy: dict[int, tuple[str, dict[str, float]]] = {}

    def setup(self, stage: str) -> None:
        """Freeze what is not fine-tuned, before the optimizer is made.

        Raises:
            ConfigError: the network has no such part.
        """
        if stage == "fit" and self.finetune is not None:
            freeze(self.network, self.finetune.layers, self.predictor.patch_size)

    def on_fit_start(self) -> None:
        """Take the weights to fine-tune; a resumed training has its own, and needs the earlier one no longer."""
        if self.trainer.ckpt_path is None:  # known here, not yet in `setup`
            self.load_source()

    def load_source(self) -> None:
        """Start from the weights of the checkpoint to fine-tune, if there is one.

        Raises:
            RunError: it is missing, or holds another network.
        """
        if self.finetune is not None:
            load_weights(self.network, Path(self.finetune.checkpoint).expanduser())

    def load_members(self, checkpoint: Path | None, data: MultiTaskData, command: str) -> None:
        """Read the networks that are tested or calibrated together with this one, if there are any.

        Args:
            checkpoint: the run's, whose weights this network has.
            data: the tasks that are tested.
            command: `fit`, `test` or `calibrate`.

        Raises:
            ConfigError: an ensemble is to be trained.
            RunError: the networks do not belong together, see `read_members`.
        """
        if self.ensemble is None:
            return
        if command == "fit" or checkpoint is None:
            raise ConfigError("model.ensemble is for `medmtl test` and `medmtl calibrate`", fix="leave it out")
        part: Part = "test" if command == "test" else "val"
        self.members = read_members(self.ensemble, self.predictor, checkpoint, data.trained, [part])

    def check_channels(self, data: MultiTaskData) -> None:
        """Check that the network takes what the tasks give, before anything is computed.

        Raises:
            ConfigError: it takes more or fewer channels.
        """
        taken = input_channels(self.network)
        if taken != data.channels:
            raise ConfigError(
                f"model.network takes {taken} channels and the tasks stack {data.channels}",
                fix="set its in_channels, or `channel` of the tasks",
            )

    def configure_optimizers(self) -> Any:
        """The optimizer of what trains, and the scheduler stepped every batch."""
        optimizer = self.optimizer(parameter for parameter in self.network.parameters() if parameter.requires_grad)
        if self.scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        try:
            scheduler = _with_total_steps(self.scheduler, steps)(optimizer)
        except ZeroDivisionError:  # OneCycleLR, if the rise is one step long
            raise ConfigError(
                f"model.scheduler cannot be spread over {steps} steps", fix="train a little longer"
            ) from None
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        """Loss of a batch of patches, `image` `(B, C, H, W, D)` and `label` `(B, 1, H, W, D)`, where it is known."""
        loss = self.loss(*leave_out_unknown(self.network(batch["image"]), batch["label"].float()))
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, scan: dict[str, Any] | None, index: int) -> dict[str, Any] | None:
        """Segment a volume under its own preprocessing, see `_score`; None where others have one volume more."""
        if scan is None:
            return None
        outputs = self._score(scan)
        self._keep(index, scan["dataset"], outputs)
        return outputs

    def test_step(self, scan: dict[str, Any] | None, index: int) -> dict[str, Any] | None:
        """Segment a volume under every preprocessing and give a verdict; without an OOD detector, under its own alone.

        Adds `hd95_mm` and `asd_mm` to what `_score` returns, see `surface_distances`; None without a task. They take
        too long for every validation.
        """
        if scan is None:
            return None
        if self.observer is None:
            scan = {**scan, "images": {own: scan["images"][own] for own in [scan["own"]] if own is not None}}
        outputs = {**self._score(scan, self.observer, self.ood_detector), "hd95_mm": None, "asd_mm": None}
        if outputs["probability"] is not None:
            label = scan["label"]
            distances = surface_distances(_found(outputs, scan), label[0].as_tensor(), label.pixdim.tolist())
            outputs["hd95_mm"], outputs["asd_mm"] = distances
        self._keep(index, scan["dataset"], outputs)
        return outputs

    def _score(
        self, scan: dict[str, Any], observer: Observer | None = None, ood_detector: ConformalDetector | None = None
    ) -> dict[str, Any]:
        """Predict a volume and compare it with its label on the image's own grid.

        Args:
            scan: what `data.loaders.Scans` gives: `images` by preprocessing, its `own`, `label`, `native`, `dataset`,
                `case`.
            observer: runs the network and collects what detectors need.
            ood_detector: gives a verdict on what was collected.

        Returns:
            `probabilities` by preprocessing; `verdict`, None without an OOD detector; `probability`, `(H, W, D)` on the
            image's own grid under its own preprocessing, and `dice` in [0, 1] (NaN without foreground), None for an
            image without a task. Of an ensemble also `probability_scaled`, which is `probability` with the members
            scaled before pooling, and with an OOD detector their `disagreement`. Callbacks add what they find.
        """
        verdict = None
        if observer is None:
            logits = {preprocessing: self.predictor.logits(image) for preprocessing, image in scan["images"].items()}
        else:
            evidence, logits = observer(*(scan[key] for key in ("images", "native", "dataset", "case", "patient")))
            verdict = None if ood_detector is None else ood_detector(evidence)
        probabilities = {preprocessing: torch.sigmoid(found) for preprocessing, found in logits.items()}
        outputs: dict[str, Any] = {"probabilities": probabilities, "verdict": verdict, "probability": None}
        outputs["dice"] = None
        if self.members is not None:
            self._pool(self.members, scan, logits, outputs)
        if scan["own"] is not None:
            outputs["probability"] = to_native(probabilities[scan["own"]], scan["native"])
            outputs["dice"] = dice(_found(outputs, scan), scan["label"][0].as_tensor())
        return outputs

    def _pool(
        self,
        members: Members,
        scan: dict[str, Any],
        logits: Mapping[Preprocessing, MetaTensor],
        outputs: dict[str, Any],
    ) -> None:
        """Replace the network's output by the ensemble's under the task's own preprocessing and under the verdict's."""
        own, verdict = scan["own"], outputs["verdict"]
        for preprocessing, image in scan["images"].items():
            judged = verdict is not None and verdict.preprocessing == str(preprocessing)
            if preprocessing != own and not judged:
                continue
            native = scan["native"] if preprocessing == own else None
            case = f"{scan['dataset']}/{scan['case']}"
            task = None if verdict is None else verdict.task
            pooled = members.pool(image, logits[preprocessing], case, native, task)
            outputs["probabilities"][preprocessing] = pooled.probability
            if preprocessing == own:
                outputs["probability_scaled"] = pooled.scaled
            if judged:
                found = output_scores(pooled.probability.as_tensor(), preprocessing)
                scores = {**verdict.scores, **{name: found[name] for name in OUTPUTS}}
                outputs["verdict"] = replace(verdict, scores=scores)
                outputs["disagreement"] = pooled.disagreement

    def _keep(self, index: int, dataset: str, outputs: Mapping[str, Any]) -> None:
        known = {metric: outputs[metric] for metric in ACCURACY if outputs.get(metric) is not None}
        if known:
            self._accuracy[index] = dataset, known

    def on_validation_epoch_end(self) -> None:
        """Log `val/<task>/dice` and `val/mean/dice`."""
        self._log_accuracy("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/<task>/<metric>` and `test/mean/<metric>` for dice, hd95_mm and asd_mm."""
        self._log_accuracy("test")

    def _log_accuracy(self, stage: str) -> None:
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for task, values in gather(self._accuracy):
            for metric, value in values.items():
                found[metric][task].append(value)
        for metric, tasks in found.items():
            means = {task: torch.tensor(values).nanmean() for task, values in tasks.items()}
            for task, mean in means.items():
                self.log(f"{stage}/{task}/{metric}", mean)
            self.log(f"{stage}/mean/{metric}", torch.stack(list(means.values())).nanmean(), prog_bar=metric == "dice")
        self._accuracy.clear()


def _found(outputs: Mapping[str, Any], scan: Mapping[str, Any]) -> torch.Tensor:
    """Foreground of a volume, bool `(H, W, D)`; none where the truth is unknown, as in the label."""
    found: torch.Tensor = outputs["probability"] >= 0.5
    return found if scan["known"] is None else found & scan["known"][0].to(found.device)


def _with_total_steps(scheduler: Any, steps: int) -> LRSchedulerCallable:
    """Give a scheduler whose configuration leaves `total_steps` open the length of the training."""
    given = getattr(scheduler, "keywords", {})
    takes = "total_steps" in given or "total_steps" in inspect.signature(scheduler).parameters
    return partial(scheduler, total_steps=steps) if takes and given.get("total_steps") is None else scheduler
