"""Checkpoints of a run: the best and the last, and state that is added to the best after training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from medmtl.errors import MedMTLError, RunError, Stopped, hold_termination
from medmtl.models.segmenter import LOWER
from medmtl.runs.checkpoint import first_not_finite, read_archive, read_checkpoint, write_checkpoint
from medmtl.runs.folder import RunFolder
from medmtl.runs.replace import settle

MONITOR = "val/mean/dice"
GENERATORS = "generators"  # of a checkpoint: the state of those that dropout draws from, as tensors


class RunCheckpointIO(TorchCheckpointIO):
    """Lightning's way to files, with our reading and writing.

    Lightning itself writes into the folder for temporary files, and copies from there if that is another disk: a kill
    or a full disk then leaves half a checkpoint in place of the earlier one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Replace a checkpoint, atomically."""
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint without running code from it, or the bare weights that a process hands to another."""
        found: dict[str, Any] = read_archive(Path(path))
        return found


class RunCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt` (highest mean validation Dice) and `last.ckpt` (after every validation, and when interrupted).

    They hold the state of the generator that dropout draws from, so that a resumed training draws what an uninterrupted
    one does.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._go_on_from: dict[str, torch.Tensor] | None = None  # state of the generators, for the next step
        self._at_start: dict[str, torch.Tensor] | None = None  # and at the start of a step that is not done
        super().__init__(
            dirpath=run.checkpoints,
            filename="best",
            monitor=MONITOR,
            mode="max",
            save_last=True,
            enable_version_counter=False,
            # Lightning counts an epoch twice that was saved at its end: a resumed training would draw other patches.
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the files of this run's folder, even if it was moved or copied.

        Lightning would continue with the files at their old place: those of the original, if the folder was copied.
        """
        here = {
            key: self._here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        known = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": known, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a termination wait for the end of a step, after which Lightning ends the training.

        Raises:
            RunError: the training to resume had another optimizer.
        """
        super().on_train_start(trainer, pl_module)
        for optimizer in trainer.optimizers:
            lacking = [key for group in optimizer.param_groups for key in optimizer.defaults if key not in group]
            if lacking:
                what = f"the training to resume had another optimizer than {type(optimizer).__name__}"
                raise RunError(f"{what}: its state has no {lacking[0]}", fix="resume with that, or train again")
        hold_termination(True)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Draw on from where the last checkpoint was, whatever has been drawn since, as a resumed training does."""
        device = trainer.strategy.root_device
        if self._go_on_from is not None:
            _set_state_of_generators(self._go_on_from, device)
        self._go_on_from, self._at_start = None, _state_of_generators(device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done: what is saved from now on goes on with the next."""
        self._at_start = None
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save `best.ckpt` if it is, and `last.ckpt` whether it is or not."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save `last.ckpt` where nothing is validated."""
        if not sum(trainer.num_val_batches) and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a termination wait no longer.

        Raises:
            Stopped: one has arrived in the last step.
        """
        super().on_train_end(trainer, pl_module)
        hold_termination(False)
        if trainer.received_sigterm:
            raise Stopped("terminated")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of the generators: that before a step which is not done, for it will be repeated."""
        self._go_on_from = self._at_start or _state_of_generators(trainer.strategy.root_device)
        checkpoint[GENERATORS] = self._go_on_from

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the state of the generators, which checkpoints of earlier versions lack, and the place in the epoch.

        Lightning would draw the patches of an epoch that was stopped in its middle from the first one again.
        """
        self._go_on_from = checkpoint.get(GENERATORS)
        done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"]
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.batches_done = done if done < data.batches else 0

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save `last.ckpt`, so that an interrupted training can be resumed or tested.

        After an error of ours or of the disk the earlier one is worth more. `trainer.save_checkpoint` would wait for
        processes that may not have been interrupted.
        """
        hold_termination(False)
        if isinstance(exception, MedMTLError | OSError) or first_not_finite(pl_module.state_dict()) is not None:
            return
        if trainer.training and trainer.global_step and trainer.is_global_zero:
            path = Path(str(self.dirpath)) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
            trainer.strategy.save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(weights_only=False), path)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        name = first_not_finite(trainer.lightning_module.state_dict())
        if name is not None:
            raise RunError(f"step {trainer.global_step}: {name} is not finite after it", fix=LOWER)
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            settle(self._run)


def _state_of_generators(device: torch.device) -> dict[str, torch.Tensor]:
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _set_state_of_generators(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def add_callback_state(path: Path, callback: pl.Callback) -> None:
    """Rewrite a checkpoint with the present state of a callback, atomically."""
    checkpoint = read_checkpoint(path)
    checkpoint.setdefault("callbacks", {})[callback.state_key] = callback.state_dict()
    write_checkpoint(path, checkpoint)
