"""Checkpoints of a run: the best and the last, and state that is added to the best after training."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from medmtl.runs.checkpoint import read_checkpoint, write_checkpoint

MONITOR = "val/mean/dice"


class RunCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt` (highest mean validation Dice) and `last.ckpt` (after every validation, and when interrupted).

    Args:
        folder: `checkpoints` of the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=MONITOR,
            mode="max",
            save_last=True,
            enable_version_counter=False,
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

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save `last.ckpt`, so that an interrupted training can be resumed or tested.

        `trainer.save_checkpoint` would wait for processes that may not have been interrupted.
        """
        if trainer.training and trainer.global_step and trainer.is_global_zero:
            path = Path(str(self.dirpath)) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
            trainer.strategy.save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(weights_only=False), path)


def add_callback_state(path: Path, callback: pl.Callback) -> None:
    """Rewrite a checkpoint with the present state of a callback, atomically."""
    checkpoint = read_checkpoint(path)
    checkpoint.setdefault("callbacks", {})[callback.state_key] = callback.state_dict()
    write_checkpoint(path, checkpoint)
