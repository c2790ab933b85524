"""Replacement of a run by another in the same folder: the old one lies aside until the new one has a checkpoint."""

import logging
import shutil
from pathlib import Path

from medmtl.runs.folder import RunFolder

logger = logging.getLogger(__name__)

# What commands write into a run folder; all else in it is the user's.
PARTS = ("checkpoints", "report", "figures", "wandb", "ood", "config*.yaml", "splits.json", "run.json", "metrics.csv")


def set_aside(run: RunFolder) -> None:
    """Move the run of a folder into `previous` within it."""
    run.previous.mkdir()
    _move(run.path, run.previous)


def settle(run: RunFolder) -> None:
    """Remove the run that lies aside if the new one has a checkpoint; put it back if that has none.

    Half-written checkpoints of a process that was killed are removed. Call it as the folder's only writer.
    """
    for path in run.checkpoints.glob(".*.ckpt"):
        path.unlink(missing_ok=True)
    if not run.previous.is_dir():
        return
    if run.has_checkpoint:
        shutil.rmtree(run.previous)
        return
    for path in _parts(run.path):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _move(run.previous, run.path)
    run.previous.rmdir()
    logger.warning("%s: the run that was there before is back, for the new one has no checkpoint", run.path)


def _move(source: Path, target: Path) -> None:
    for path in _parts(source):
        path.rename(target / path.name)


def _parts(folder: Path) -> list[Path]:
    return [path for pattern in PARTS for path in folder.glob(pattern)]
