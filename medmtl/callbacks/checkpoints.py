"""Checkpoints of a run: the best, the last, and what is added to the best once training has ended."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from medmtl.errors import RunError
from medmtl.files import written_whole

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
        """Save `last.ckpt`, so that an interrupted training can be resumed or tested."""
        if trainer.training and trainer.global_step:
            trainer.save_checkpoint(Path(str(self.dirpath)) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Raises:
        RunError: it is missing, or not a checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"the checkpoint {path} does not exist", fix="correct the path") from None
    except Exception as error:  # torch raises many kinds for a file that is none
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path} is not a checkpoint that loads safely ({reason})", fix="name another") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise RunError(f"{path} is not a checkpoint of medmtl", fix="name another")
    return checkpoint


def add_callback_state(path: Path, callback: pl.Callback) -> None:
    """Rewrite a checkpoint with the present state of a callback, atomically."""
    checkpoint = read_checkpoint(path)
    checkpoint.setdefault("callbacks", {})[callback.state_key] = callback.state_dict()
    with written_whole(path) as beside:
        torch.save(checkpoint, beside)
