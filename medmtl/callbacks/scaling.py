"""ScalingCallback: fits post-hoc scaling on the validation cases, and measures test cases after it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import yaml
from pytorch_lightning.trainer.states import TrainerFn

from medmtl.calibration.bins import bin_volume
from medmtl.calibration.logits import LogitHistogram, logit_histogram
from medmtl.calibration.regions import REGIONS
from medmtl.calibration.scaling import Fitted, TaskScalings
from medmtl.calibration.working import VoxelSample, WorkingVolume, sample_voxels
from medmtl.callbacks.calibration import where_known
from medmtl.checkpoint import CHECKPOINT_KEY, read_checkpoint, write_checkpoint
from medmtl.distributed import gather
from medmtl.errors import ConfigError

logger = logging.getLogger(__name__)


class ScalingCallback(pl.Callback):
    """Post-hoc scaling of the foreground probability, fitted to least negative log-likelihood on validation cases.

    Every validation fits it anew, on the image's own grid, so that each checkpoint holds the scaling of its weights
    (one that was saved because of an interruption: of the validation before). Where nothing can be fitted T = 1 is
    kept, and said; where local temperatures do not help patients that they were not fitted on, a single one.

    In a test the task is not told: a case gets the scaling of the task that it looks most like, and without a
    signature bank that of all tasks together. Accuracy and `calibration` stay those of the network; what scaling
    changes is left in `outputs["calibration_scaled"]`.

    Args:
        method: temperature (sigmoid(z / T) of the logit z), platt (sigmoid(a z + b)), isotonic, local (a T for every
            voxel, told by a small network from logit and image around it; some seconds more at every validation), or
            none.
        per_task: a scaling for every task, instead of one for all.
        region: where the likelihood counts: band (the organ dilated by 5 mm) or whole (the volume).
    """

    def __init__(
        self,
        method: Literal["temperature", "platt", "isotonic", "local", "none"] = "temperature",
        per_task: bool = True,
        region: Literal["band", "whole"] = "band",
    ) -> None:
        self.options: dict[str, Any] = {"method": method, "per_task": per_task, "region": region}
        self.scalings: TaskScalings | None = None
        self._fitted_with: Mapping[str, Any] = {**self.options, "ensemble": ""}
        self._histograms: dict[str, LogitHistogram] = {}
        self._samples: dict[int, tuple[str, VoxelSample]] = {}

    @property
    def active(self) -> bool:
        """Whether there is something to fit and to apply."""
        return self.options["method"] != "none"

    def state_dict(self) -> dict[str, Any]:
        """What was fitted and how, as text, numbers and tensors; empty before the first validation."""
        return {} if self.scalings is None else {**self._fitted_with, **self.scalings.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint holds."""
        if state_dict:
            self.scalings = TaskScalings.from_state_dict(state_dict)
            self._fitted_with = {name: state_dict[name] for name in self.options}
            self._fitted_with |= {"ensemble": state_dict.get("ensemble", "")}

    def summary(self) -> dict[str, Any] | None:
        """What a report says of the scaling that is applied; None if there is none."""
        if self.scalings is None or not self.active:
            return None
        tasks = {task: fitted.summary() for task, fitted in self.scalings.tasks.items()}
        return {**self._fitted_with, "single": self.scalings.single.summary(), "tasks": tasks}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last validation.

        Raises:
            ConfigError: `medmtl calibrate` has nothing to fit.
        """
        if _calibrating(trainer) and not self.active:
            raise ConfigError("scaling.method is none: nothing to fit", fix="add --scaling.method temperature")
        self._histograms = dict.fromkeys(trainer.datamodule.trained, LogitHistogram.empty())  # type: ignore[attr-defined]

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """Add the logits of a validation volume."""
        if not self.active or outputs is None:
            return
        name, label = self.options["region"], batch["label"][0].as_tensor().bool()
        region = outputs["regions"].get(name)
        if region is None:
            region = where_known(REGIONS[name](label, batch["label"].pixdim.tolist()), batch)
        self._histograms[batch["source"]] += logit_histogram(outputs["probability"], label, region)
        if self.options["method"] == "local":
            found = sample_voxels(outputs["probability"], label, region, _working(outputs, batch), batch["patient"])
            self._samples[index] = batch["source"], found

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit, to what all processes found."""
        if not self.active:
            return
        shares = gather({0: self._histograms})
        empty = LogitHistogram.empty()
        pooled = {task: sum((share[task] for share in shares), empty) for task in self._histograms}
        samples: dict[str, list[VoxelSample]] = {task: [] for task in pooled}
        for task, sample in gather(self._samples):
            samples[task].append(sample)
        self._samples.clear()
        self.scalings = TaskScalings.fit(pooled, self.options["method"], self.options["per_task"], samples)
        self._fitted_with = {**self.options, "ensemble": _ensemble(pl_module)}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put what `medmtl calibrate` fitted, and how, into the checkpoint; a training saves its own."""
        if not _calibrating(trainer) or not trainer.is_global_zero:
            return
        path = Path(str(trainer.ckpt_path))
        checkpoint = read_checkpoint(path)
        checkpoint.setdefault("callbacks", {})[self.state_key] = self.state_dict()
        config = yaml.safe_load(checkpoint[CHECKPOINT_KEY]) | {"scaling": self.options}
        checkpoint[CHECKPOINT_KEY] = yaml.safe_dump(config, sort_keys=False)
        write_checkpoint(path, checkpoint)
        self._say()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what was fitted with the best weights."""
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if self.active and best and trainer.is_global_zero:
            self.load_state_dict(read_checkpoint(Path(best))["callbacks"].get(self.state_key, {}))
            self._say()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See whether the checkpoint holds what the options ask for.

        Raises:
            ConfigError: it was fitted with others, or for another ensemble.
        """
        if not self.active:
            return
        if self.scalings is None:
            logger.warning("the checkpoint holds no scaling: fit one with `medmtl calibrate`")
            return
        for name, value in self.options.items():
            if value != self._fitted_with[name]:
                fitted = f"the checkpoint was fitted with {self._fitted_with[name]}"
                raise ConfigError(f"scaling.{name}={value}, but {fitted}", fix="fit anew with `medmtl calibrate`")
        wanted, found = (pool or "the network alone" for pool in (_ensemble(pl_module), self._fitted_with["ensemble"]))
        if wanted != found:
            fix = "fit anew with `medmtl calibrate` and the same model.ensemble"
            raise ConfigError(f"the scaling was fitted for {found}, and this is {wanted}", fix=fix)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Bin a test volume after scaling, over the same voxels as before."""
        if self.scalings is None or not self.active or outputs is None or outputs["probability"] is None:
            return
        verdict, label = outputs.get("verdict"), batch["label"][0].as_tensor().bool()
        scaled = outputs.get("probability_scaled")  # of an ensemble whose members are scaled before pooling
        if scaled is None:
            scaling = self.scalings.choose(None if verdict is None else verdict.task)
            scaled = scaling(outputs["probability"], _working(outputs, batch))
        outputs["calibration_scaled"] = {
            name: bin_volume(scaled, label, outputs["regions"][name], len(table.count))
            for name, table in outputs["calibration"].items()
        }

    def _say(self) -> None:
        if self.scalings is not None:
            for task, fitted in (self.scalings.tasks or {"all tasks": self.scalings.single}).items():
                if fitted.refused:
                    logger.warning("calibrate: %s keeps %s: %s", task, fitted.scaling, fitted.refused)
                else:
                    logger.info("calibrate: %s %s", task, _gain(fitted))


def _gain(fitted: Fitted) -> str:
    cases = "1 validation case" if fitted.cases == 1 else f"{fitted.cases} validation cases"
    return f"{fitted.scaling}, NLL {fitted.nll_before:.4f} -> {fitted.nll_after:.4f} on {cases}"


def _ensemble(module: pl.LightningModule) -> str:
    """What `Members.scaled_as` says of the segmenter; empty for one network."""
    members: Any = module.members
    return "" if members is None else members.scaled_as


def _working(outputs: Mapping[str, Any], scan: Mapping[str, Any]) -> WorkingVolume:
    """A volume as its own recipe prepared it, and what the network said of it there."""
    image, probability = scan["images"][scan["own"]], outputs["probabilities"][scan["own"]]
    return WorkingVolume.of(image[0], probability[0], image.affine, scan["native"].affine)


def _calibrating(trainer: pl.Trainer) -> bool:
    """Whether this is `medmtl calibrate`, and not the validation of a training."""
    return trainer.state.fn == TrainerFn.VALIDATING
