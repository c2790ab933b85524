"""Segmenter: one network for several tasks, without a task id."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from monai.data import MetaTensor
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from medmtl.accuracy import RECOGNISED
from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.preprocessing import Preprocessing
from medmtl.distributed import gather
from medmtl.errors import ConfigError, RunError
from medmtl.losses.masked import leave_out_unknown
from medmtl.models.channels import check_channels, check_loss, dry_pass
from medmtl.models.cpu_layers import speed_up
from medmtl.models.ensemble import Ensemble, Members, Pooled, with_pooled_scores
from medmtl.models.extract import Observer
from medmtl.models.finetune import FineTune, freeze, transfer_weights, unwrapped
from medmtl.models.mask_check import check_mask
from medmtl.models.members import Part, read_members
from medmtl.models.optimization import optimization
from medmtl.models.outputs import Outputs
from medmtl.models.precision import single_precision
from medmtl.models.scored import ScoredScan
from medmtl.models.segmentation import recognised_dice, segment, with_scaled
from medmtl.models.sliding_window import VolumePredictor
from medmtl.models.task_heads import TaskHeads
from medmtl.ood.mask_rule import MaskRule, MaskVerdict
from medmtl.ood.verdict import ConformalDetector, Verdict

# What helps a training that diverges.
LOWER = "lower the learning rate of model.optimizer, or set trainer.gradient_clip_val"


class Segmenter(pl.LightningModule):
    """Trains a network on the union of tasks and segments whole volumes with it.

    The network gets an image and no task id: it must infer the organ of interest from the context, as in Karimi &
    Gholipour (arXiv 2004.06569).

    Args:
        network: maps `(B, C, H, W, D)` to one foreground logit `(B, 1, H, W, D)`; C is 1, or as many channels as each
            task stacks. With outputs per task it gives features `(B, F, H, W, D)` for a last layer that follows from
            the tasks; F is `out_channels`; where that is left out or 1, as many as a task has channels.
        patch_size: sliding window, voxels a side (the command line links it to `data.patch_size`).
        loss: takes logits and labels, both `(B, 1, H, W, D)`; only a training needs it.
        optimizer: takes the parameters; only a training needs it.
        scheduler: takes the optimizer, stepped every batch. A `total_steps` that it wants and that is not given is the
            length of the training.
        overlap: share of a sliding window that the next one covers again.
        window_batch: sliding windows computed together.
        finetune: start from the weights of the medmtl checkpoint `checkpoint`, and train only `layers`: all, decoder
            (all after the coarsest feature map) or head (the last ones).
        ensemble: test and calibrate other `checkpoints` together with the run's own, or `dropout_passes` of it, as one
            model.
        outputs: `shared`: one foreground for all tasks, the paper's; `per_task`: a background for each task and a
            channel for each of its classes, see `TaskHeads`; those of the nearest task are read. None: `shared` while
            every task has one class.
    """

    def __init__(
        self,
        network: nn.Module,
        patch_size: tuple[int, int, int],
        loss: nn.Module | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        overlap: float = 0.25,
        window_batch: int = 4,
        finetune: FineTune | None = None,
        ensemble: Ensemble | None = None,
        outputs: Literal["shared", "per_task"] | None = None,
    ) -> None:
        super().__init__()
        speed_up(network)
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.finetune = finetune
        self.ensemble = ensemble
        self.members: Members | None = None
        self.predictor = VolumePredictor(network, patch_size, overlap, window_batch)
        self.observer: Observer | None = None
        self.ood_detector: ConformalDetector | None = None
        self.mask_rule: MaskRule | None = None
        self.scaling: TaskScalings | None = None
        self.heads: TaskHeads | None = None
        self.tasks: tuple[str, ...] = ()  # those that have an output of their own, as numbered in batches
        self._accuracy: dict[int, tuple[str, Mapping[str, float]]] = {}

    def setup(self, stage: str) -> None:
        """Freeze the parameters that are not fine-tuned, before the optimizer is made.

        Raises:
            ConfigError: the network has no such part, or loss or optimizer is missing.
        """
        if stage == "fit":
            self.check_trainable()
        if stage == "fit" and self.finetune is not None:
            freeze(self.network, self.finetune.layers, self.predictor.patch_size, self.heads)

    def check_trainable(self) -> None:
        """Check that loss and optimizer are given.

        Raises:
            ConfigError: one is missing.
        """
        for name, given in (("loss", self.loss), ("optimizer", self.optimizer)):
            if given is None:
                raise ConfigError(f"model.{name} is missing, which a training needs", fix="add it")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Accept weights that were saved with a wrapper around the network."""
        checkpoint["state_dict"] = unwrapped(checkpoint["state_dict"], self.state_dict())

    def on_fit_start(self) -> None:
        """Load the weights to fine-tune; a resumed training has its own and does not need the earlier checkpoint."""
        if self.trainer.ckpt_path is None:  # set here, not yet in `setup`
            self.load_source()

    def load_source(self) -> None:
        """Start from the weights of the checkpoint to fine-tune, if there is one.

        Raises:
            RunError: it is missing, or holds another network.
        """
        if self.finetune is not None:
            checkpoint = Path(self.finetune.checkpoint).expanduser()
            transfer_weights(self.network, self.heads, checkpoint, self.predictor.patch_size)

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
        part: Part = "test"
        if command != "test":
            part = "calibration" if data.calibration_part == "calibration" else "val"
        self.members = read_members(self.ensemble, self.predictor, checkpoint, data.trained, [part])

    def read_outputs(self, data: MultiTaskData, training: bool = False) -> None:
        """Make the heads of a network with outputs per task, and check with one pass that it fits patch and images.

        Args:
            data: the tasks.
            training: check that it fits as in a training, with the loss.

        Raises:
            ConfigError: network, images and loss do not fit, see `medmtl.models.channels`.
        """
        heads = data.heads
        found = dry_pass(self.network, self.predictor.patch_size, training)
        features = int(found.shape[1])
        check_channels(self.network, features, heads is None, data.channels)
        if heads is not None:
            self.heads = self.predictor.heads = TaskHeads(features, Outputs.per_task(heads))
            self.tasks = tuple(heads)
        if training:
            check_loss(self._loss, found, len(data.labels(next(iter(data.trained))).classes.names))

    def configure_optimizers(self) -> Any:
        """The optimizer of what trains, and the scheduler stepped every batch."""
        assert self.optimizer is not None  # see `check_trainable`
        heads = () if self.heads is None else self.heads.parameters()
        trained = [each for each in (*self.network.parameters(), *heads) if each.requires_grad]
        return optimization(
            self.optimizer, self.scheduler, trained, lambda: int(self.trainer.estimated_stepping_batches)
        )

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """Loss of a batch of patches, `image` `(B, C, H, W, D)` and `label` `(B, 1, H, W, D)`, where it is known."""
        loss = self._loss(self.network(batch["image"]), batch)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def _loss(self, found: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        assert self.loss is not None  # see `check_trainable`
        label, found = batch["label"], found.float()
        loss: torch.Tensor
        with single_precision(found.device):  # sums over voxels need it
            if self.heads is None:
                loss = self.loss(*leave_out_unknown(found, label.float()))
            else:
                tasks = [self.tasks[number] for number in batch["task"].tolist()]
                loss = self.heads.loss(self.loss, found, label, tasks, batch["marked"].tolist())
        return loss

    def losses(self, batch: Mapping[str, Any]) -> list[float]:
        """The loss of each patch of a batch by itself."""
        parts = [
            {key: value[number : number + 1] for key, value in batch.items()} for number in range(len(batch["label"]))
        ]
        with torch.no_grad():
            return [float(self._loss(self.network(part["image"]), part)) for part in parts]

    def validation_step(self, scan: dict[str, Any] | None, index: int) -> ScoredScan | None:  # type: ignore[override]
        """Segment a volume under every preprocessing it was prepared with, see `_score`.

        Returns:
            What was found; None where this process has run out of volumes and others have one more.
        """
        if scan is None:
            return None
        with single_precision(self.device):
            return self._score(scan, index, testing=False)

    def test_step(self, scan: dict[str, Any] | None, index: int) -> ScoredScan | None:  # type: ignore[override]
        """Segment a volume under every preprocessing and give a verdict; without an OOD detector, under its own alone.

        Surface distances are measured here only: they take too long for every validation.

        Returns:
            As in `validation_step`.
        """
        if scan is None:
            return None
        if self.observer is None:
            scan = {**scan, "images": {own: scan["images"][own] for own in [scan["own"]] if own is not None}}
        with single_precision(self.device):  # as that in which the detector was fitted
            return self._score(scan, index, testing=True)

    def _score(self, scan: dict[str, Any], index: int, testing: bool) -> ScoredScan:
        """Predict a volume and compare it with its label on the image's own grid.

        Args:
            scan: what `data.loaders.Scans` gives: `images` by preprocessing, its `own`, `label`, `native`, `dataset`,
                `case`.
            index: number of the step, under which the accuracy is kept for the means of the epoch.
            testing: use observer, OOD detector and scaling, and measure surface distances.
        """
        verdict = None
        if testing and self.observer is not None:
            observed = (scan[key] for key in ("images", "native", "dataset", "case", "patient"))
            evidence, logits = self.observer(*observed)
            verdict = None if self.ood_detector is None else self.ood_detector(evidence)
        else:
            logits = {
                preprocessing: self.predictor.logits(image, head=preprocessing.head)
                for preprocessing, image in scan["images"].items()
            }
        if not all(bool(found.isfinite().all()) for found in logits.values()):
            what = f"{scan['dataset']}, case {scan['case']}: the network's output is not finite"
            raise RunError(what, fix="test another checkpoint" if testing else LOWER)
        pooled = {} if self.members is None else self._pool(self.members, scan, logits, verdict)
        probabilities = {
            preprocessing: pooled[preprocessing].probability
            if preprocessing in pooled
            else self.predictor.probability(found, preprocessing.head)
            for preprocessing, found in logits.items()
        }
        logits = {**logits, **{preprocessing: found.logits for preprocessing, found in pooled.items()}}
        mask = None
        if verdict is not None:
            verdict = with_pooled_scores(verdict, pooled)
            mask = self._mask_verdict(scan, probabilities, verdict)
        segmentation, own = None, scan["own"]
        if own is not None:
            task = None if verdict is None else verdict.task
            heads = self.predictor.outputs.heads
            segmentation = segment(scan, probabilities[own], logits[own], heads[own.head], testing)
            if testing and self.scaling is not None:
                shares = self.scaling.shares_of(own.head)
                segmentation = with_scaled(segmentation, self.scaling.choose(task), shares, pooled.get(own))
            if testing and verdict is not None and self.tasks:
                chosen = next(each for each in probabilities if str(each) == verdict.preprocessing)
                read = heads[chosen.head], logits[chosen], probabilities[chosen]
                told = segmentation.accuracy["dice"]
                recognised = told if chosen == own else recognised_dice(scan, segmentation, heads[own.head], *read)
                segmentation = replace(segmentation, accuracy={**segmentation.accuracy, RECOGNISED: recognised})
            self._accuracy[index] = scan["dataset"], segmentation.accuracy
        return ScoredScan(probabilities, segmentation, verdict, mask)

    def _mask_verdict(
        self, scan: dict[str, Any], probabilities: Mapping[Preprocessing, MetaTensor], verdict: Verdict
    ) -> MaskVerdict | None:
        """The verdict on the mask under the verdict's preprocessing."""
        if self.mask_rule is None:
            return None
        chosen = next(each for each in probabilities if str(each) == verdict.preprocessing)
        image = scan["images"][chosen].to(self.device)
        found = probabilities[chosen]
        return check_mask(self.mask_rule, self.predictor, image, found, chosen, verdict.task, verdict.rejected)

    def _pool(
        self,
        members: Members,
        scan: dict[str, Any],
        logits: Mapping[Preprocessing, MetaTensor],
        verdict: Verdict | None,
    ) -> dict[Preprocessing, Pooled]:
        """The ensemble's output under the task's own preprocessing and under the verdict's."""
        pooled = {}
        for preprocessing, image in scan["images"].items():
            own = preprocessing == scan["own"]
            if own or (verdict is not None and verdict.preprocessing == str(preprocessing)):
                native = scan["native"] if own else None
                case = f"{scan['dataset']}/{scan['case']}"
                task = None if verdict is None else verdict.task
                found = members.pool(image, logits[preprocessing], case, native, task, preprocessing.head)
                pooled[preprocessing] = found
        return pooled

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
            if "/" not in metric:  # not of a class
                mean = torch.stack(list(means.values())).nanmean()
                self.log(f"{stage}/mean/{metric}", mean, prog_bar=metric == "dice")
        self._accuracy.clear()
