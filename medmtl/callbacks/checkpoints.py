"""Checkpoints of a run: the best, the last, and what is added to the best once training has ended."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from medmtl.checkpoint import read_checkpoint, write_checkpoint

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

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save `last.ckpt`, so that an interrupted training can be resumed or tested.

        Not through `trainer.save_checkpoint`, which would wait for processes that may not have been interrupted.
        """
        if trainer.training and trainer.global_step and trainer.is_global_zero:
            path = Path(str(self.dirpath)) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
            trainer.strategy.save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(weights_only=False), path)


def add_callback_state(path: Path, callback: pl.Callback) -> None:
    """Rewrite a checkpoint with the present state of a callback, atomically."""
    checkpoint = read_checkpoint(path)
    checkpoint.setdefault("callbacks", {})[callback.state_key] = callback.state_dict()
    write_checkpoint(path, checkpoint)
