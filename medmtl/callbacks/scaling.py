"""ScalingCallback: fits post-hoc scaling on the validation cases, and has test cases scaled."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.trainer.states import TrainerFn

from medmtl.calibration.scaling.class_shares import ClassSample, FittedShares, sample_classes
from medmtl.calibration.scaling.per_task import Fitted, TaskScalings
from medmtl.calibration.scaling.working_volume import VoxelSample, sample_voxels
from medmtl.calibration.scaling.zones import FAR, ZoneHistograms, zone_masks
from medmtl.callbacks.checkpoints import add_callback_state
from medmtl.distributed import gather
from medmtl.errors import ConfigError
from medmtl.models.scored import Segmentation
from medmtl.runs.checkpoint import CHECKPOINT_KEY, read_checkpoint, write_checkpoint

logger = logging.getLogger(__name__)

ALONE = ""  # `Members.scaled_as` of a network by itself
OPTIONS = ("method", "per_task", "region")  # the last of earlier versions, which counted one region


@dataclass(frozen=True)
class _Fit:
    """A scaling with the options that it was fitted with."""

    options: Mapping[str, Any]
    scalings: TaskScalings

    def state_dict(self) -> dict[str, Any]:
        return {**self.options, **self.scalings.state_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "_Fit":
        options = {name: state[name] for name in OPTIONS if name in state}
        return cls(options, TaskScalings.from_state_dict(state))


class ScalingCallback(pl.Callback):
    """Post-hoc scaling of the foreground probability, fitted to least negative log-likelihood on validation cases.

    A volume has two zones, by the network's own mask: near (in it and up to 5 mm around it), and far. Each has a map of
    its own, fitted on all voxels of the zone on the image's own grid, and applied to the same; no voxel changes
    its side of 0.5, so that the mask stays as it is. One map for all voxels cannot be right: what is right within 5 mm
    of the organ makes far background much too likely, and there are many times more of it.

    Every validation fits it again, so that each checkpoint holds the scaling of its weights (one that was saved
    because of an interruption: of the validation before). Where nothing can be fitted in a zone, T = 1 is kept and a
    warning logged; where local temperatures do not help patients that they were not fitted on, a single one is kept.
    Of a task with several classes that exclude each other these are of its foreground, and vector scaling of the
    logarithm of each class's share in it is fitted beside them, whatever the method and `per_task`, see
    `FittedShares`; with fewer than three people, or 50 voxels of a class, the shares stay as they are. Probabilities of
    classes change by it, masks do not: within the foreground another class may become the most probable one.

    What `medmtl calibrate` fits for an ensemble is kept in the checkpoint beside the network's own, and is used for
    that ensemble alone.

    The validation cases have chosen the checkpoint, too, and what a fit states of them (NLL before and after) is not
    held out: that of new patients is in the report of a test. In a simulation with 20 patients who chose the best of 10
    checkpoints, the ECE of new patients after a temperature was .012, and .013 if other patients set the temperature;
    that of the patients who set it was .008, in both: `tests/benchmarks/reuse.py`.

    In a test the task of an image is not given: a case gets the scaling of the task of its verdict, and without a
    signature bank that of all tasks together. Accuracy and `calibration` stay those of the network; the segmenter
    applies the scaling, see `Segmentation.scaled`.

    Args:
        method: of each zone: temperature (sigmoid(z / T) of the logit z), platt (sigmoid(a z + b)), isotonic, local
            (near, a T for every voxel, which a small network predicts from logit and image around it; some
            seconds more at every validation), or none.
        per_task: a scaling for every task, instead of one for all. A zone in which a task has no foreground is fitted
            together with one case of the other tasks.
    """

    def __init__(
        self,
        method: Literal["temperature", "platt", "isotonic", "local", "none"] = "temperature",
        per_task: bool = True,
    ) -> None:
        self.options: dict[str, Any] = {"method": method, "per_task": per_task}
        self._fits: dict[str, _Fit] = {}  # by what they were fitted for, see `Members.scaled_as`
        self._applied: str | None = None
        self._histograms: dict[str, ZoneHistograms] = {}
        self._samples: dict[int, tuple[str, dict[str, VoxelSample]]] = {}  # by number of the step: task, and by zone
        self._classes: dict[int, tuple[str, ClassSample]] = {}  # by number of the step

    @property
    def active(self) -> bool:
        """Whether there is something to fit and to apply."""
        return self.options["method"] != "none"

    @property
    def scalings(self) -> TaskScalings | None:
        """What was fitted for the network by itself; None if nothing was."""
        return self._fits[ALONE].scalings if ALONE in self._fits else None

    def state_dict(self) -> dict[str, Any]:
        """What was fitted and how, as text, numbers and tensors, ensembles under a key of their own; empty without."""
        ensembles = {fitted_for: fit.state_dict() for fitted_for, fit in self._fits.items()}
        own = ensembles.pop(ALONE, {})
        return {**own, "ensembles": ensembles} if ensembles else own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scalings of a checkpoint."""
        own = {ALONE: state_dict} if "single" in state_dict else {}
        found = {**own, **state_dict.get("ensembles", {})}
        self._fits = {fitted_for: _Fit.from_state_dict(state) for fitted_for, state in found.items()}

    def summary(self) -> dict[str, Any] | None:
        """The scaling that was applied in a test, for `report.json`; None if there was none."""
        if self._applied is None:
            return None
        fit = self._fits[self._applied]
        tasks = {task: fitted.summary() for task, fitted in fit.scalings.tasks.items()}
        shares = {task: fitted.summary() for task, fitted in fit.scalings.shares.items()}
        single = fit.scalings.single.summary()
        found = {**fit.options, "ensemble": self._applied, "single": single, "tasks": tasks}
        return {**found, "shares": shares} if shares else found

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the logits of the last validation.

        Raises:
            ConfigError: `medmtl calibrate` has nothing to fit.
        """
        if _calibrating(trainer) and not self.active:
            raise ConfigError("scaling.method is none: nothing to fit", fix="add --scaling.method temperature")
        self._histograms = dict.fromkeys(trainer.datamodule.trained, ZoneHistograms.empty())  # type: ignore[attr-defined]

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Add the logits of a validation volume."""
        if not self.active or outputs is None or outputs.segmentation is None:
            return
        own = outputs.segmentation
        zones = zone_masks(own.probability, own.spacing_mm, own.known)
        self._histograms[batch["dataset"]] += ZoneHistograms.of(own.probability, own.label, zones)
        if own.classes is not None and own.classes.head.background:
            self._classes[index] = batch["dataset"], _class_sample(own, batch["patient"])
        if self.options["method"] == "local":
            self._samples[index] = (
                batch["dataset"],
                {
                    name: sample_voxels(own.probability, own.label, zone, own.working, batch["patient"])
                    for name, zone in zones.items()
                    if name != FAR
                },
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit the scaling to the logits of all processes."""
        if not self.active:
            return
        shares = gather({0: self._histograms})
        empty = ZoneHistograms.empty()
        pooled = {task: sum((share[task] for share in shares), empty) for task in self._histograms}
        samples: dict[str, dict[str, list[VoxelSample]]] = {task: {} for task in pooled}
        for task, by_zone in gather(self._samples):
            for zone, sample in by_zone.items():
                samples[task].setdefault(zone, []).append(sample)
        self._samples.clear()
        by_task: dict[str, list[ClassSample]] = {}
        for task, of_classes in gather(self._classes):
            by_task.setdefault(task, []).append(of_classes)
        self._classes.clear()
        scalings = TaskScalings.fit(pooled, self.options["method"], self.options["per_task"], samples)
        scalings = replace(scalings, shares={task: FittedShares.fit(own) for task, own in by_task.items()})
        kept = self._fits if _calibrating(trainer) else {}  # a training changes the weights that others were fitted for
        self._fits = {**kept, _fitted_for(pl_module): _Fit(self.options, scalings)}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put what `medmtl calibrate` fitted, and how, into the checkpoint; a training saves its own.

        The options of scaling in the checkpoint's configuration stay those of the network by itself.
        """
        if not _calibrating(trainer) or not trainer.is_global_zero:
            return
        path = Path(str(trainer.ckpt_path))
        checkpoint = read_checkpoint(path)
        checkpoint.setdefault("callbacks", {})[self.state_key] = self.state_dict()
        fitted_for = _fitted_for(pl_module)
        if fitted_for == ALONE or self.scalings is None:
            config = yaml.safe_load(checkpoint[CHECKPOINT_KEY]) | {"scaling": self.options}
            checkpoint[CHECKPOINT_KEY] = yaml.safe_dump(config, sort_keys=False)
        write_checkpoint(path, checkpoint)
        _log_fit(self._fits[fitted_for].scalings)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit to the calibration part of the split with the best weights, if there is one; log what was fitted."""
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self.active and best and data.calibration_part != "val":
            self._fit_apart(trainer, pl_module, Path(best))
        if self.active and best and trainer.is_global_zero:
            self.load_state_dict(read_checkpoint(Path(best))["callbacks"].get(self.state_key, {}))
            if self.scalings is not None:
                _log_fit(self.scalings)

    def _fit_apart(self, trainer: pl.Trainer, pl_module: pl.LightningModule, best: Path) -> None:
        """Fit to cases that had no part in the choice of the checkpoint, and write it there."""
        segmenter: Any = pl_module
        segmenter.load_state_dict(read_checkpoint(best)["state_dict"])
        segmenter.eval()
        self.on_validation_start(trainer, pl_module)
        with torch.inference_mode():
            for index, scan in enumerate(trainer.datamodule.calibration_dataloader()):  # type: ignore[attr-defined]
                self.on_validation_batch_end(trainer, pl_module, segmenter.validation_step(scan, index), scan, index)
        self.on_validation_epoch_end(trainer, pl_module)
        if trainer.is_global_zero:
            add_callback_state(best, self)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the segmenter the scaling to apply, if the checkpoint holds the one that the options name.

        Raises:
            ConfigError: it was fitted with other options, or for other networks.
        """
        if not self.active:
            return
        if not self._fits:
            logger.warning("the checkpoint holds no scaling: fit one with `medmtl calibrate`")
            return
        wanted = _fitted_for(pl_module)
        if wanted not in self._fits:
            found, this = ("; ".join(name or "the network alone" for name in names) for names in (self._fits, [wanted]))
            fix = "fit one with `medmtl calibrate` and the same model.ensemble"
            raise ConfigError(f"the scaling was fitted for {found}, and this is {this}", fix=fix)
        for name, value in self.options.items():
            fitted = self._fits[wanted].options[name]
            if value != fitted:
                fix = f"add --scaling.{name} {str(fitted).lower()}, or fit again with `medmtl calibrate`"
                raise ConfigError(f"scaling.{name}={value}, but the checkpoint was fitted with {fitted}", fix=fix)
        self._fits[wanted].scalings.warn_if_old(str(trainer.ckpt_path))
        self._applied = wanted
        segmenter: Any = pl_module
        segmenter.scaling = self._fits[wanted].scalings


def _log_fit(scalings: TaskScalings) -> None:
    for task, fitted in (scalings.tasks or {"all tasks": scalings.single}).items():
        if fitted.refused:
            logger.warning("calibrate: %s keeps %s: %s", task, fitted.scaling, fitted.refused)
        else:
            logger.info("calibrate: %s %s", task, _gain(fitted))

    for task, shares in scalings.shares.items():
        if shares.refused:
            logger.warning("calibrate: classes of %s keep their shares: %s", task, shares.refused)
        else:
            logger.info("calibrate: classes of %s %s", task, _gain(shares))


def _class_sample(own: Segmentation, patient: str) -> ClassSample:
    """Voxels of the true foreground; none where the label does not mark every class, and so not what is a class."""
    classes = own.classes
    assert classes is not None
    label = classes.label * 0 if classes.missing else classes.label
    return sample_classes(classes.logits.as_tensor()[1:], label, own.working, patient, classes.head.classes.names)


def _gain(fitted: Fitted | FittedShares) -> str:
    cases = "1 validation case" if fitted.cases == 1 else f"{fitted.cases} validation cases"
    what = fitted if isinstance(fitted, FittedShares) else fitted.scaling
    return f"{what}, NLL {fitted.nll_before:.4f} -> {fitted.nll_after:.4f} on {cases}"


def _fitted_for(module: pl.LightningModule) -> str:
    """`Members.scaled_as` of the segmenter."""
    members: Any = module.members
    return ALONE if members is None else members.scaled_as


def _calibrating(trainer: pl.Trainer) -> bool:
    """Whether this is `medmtl calibrate`, and not the validation of a training."""
    return trainer.state.fn == TrainerFn.VALIDATING
