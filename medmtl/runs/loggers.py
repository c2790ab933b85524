"""Figures, pictures and tables in whatever loggers a run has: W&B, TensorBoard, MLflow; all get the same names."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from matplotlib.image import imread
from numpy.typing import NDArray
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

from medmtl.files import table_text

PICTURE = "picture"  # column of a table


def show_figures(trainer: pl.Trainer, pictures: Mapping[str, Path]) -> None:
    """Log images, from the first process alone.

    Args:
        trainer: its loggers get them.
        pictures: name -> PNG file.
    """
    step = trainer.global_step
    for logger in trainer.loggers:
        for name, path in pictures.items():
            if isinstance(logger, WandbLogger):
                logger.log_image(name, [str(path)])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, imread(path)[..., :3], step, dataformats="HWC")
            elif isinstance(logger, MLFlowLogger):
                folder, _, file = name.rpartition("/")
                logger.experiment.log_image(logger.run_id, _bytes_of(path), f"{folder}/{file}.png")


def show_table(
    trainer: pl.Trainer, name: str, rows: Sequence[Mapping[str, Any]], pictures: Mapping[int, NDArray[np.uint8]]
) -> None:
    """Log a table, from the first process alone; W&B shows the picture of a row in it.

    Args:
        trainer: its loggers get it.
        name: of the table.
        rows: with the same keys.
        pictures: number of a row -> its picture, `(H, W, 3)`.
    """
    if not rows:
        return
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            with staged_in(Path(trainer.default_root_dir)):
                logger.log_metrics({name: wandb_table(rows, pictures)}, step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(name, _markdown(rows), step)
            for number, picture in pictures.items():
                logger.experiment.add_image(f"{name}/{number}", picture, step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(logger.run_id, table_text(list(rows[0]), rows), f"{name}.csv")
            for number, picture in pictures.items():
                logger.experiment.log_image(logger.run_id, picture, f"{name}/{number}.png")


@contextmanager
def staged_in(folder: Path) -> Iterator[None]:
    """Let W&B keep the files of tables in `wandb` of a folder, as a run does all others, and not in the user's home.

    Args:
        folder: of the run.
    """
    given = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = given or str(folder.resolve() / "wandb" / "data")
    try:
        yield
    finally:
        if given is None:
            del os.environ["WANDB_DATA_DIR"]


def wandb_table(rows: Sequence[Mapping[str, Any]], pictures: Mapping[int, NDArray[np.uint8]] | None = None) -> Any:
    """A table as W&B has it, with a column of pictures if there are some."""
    import wandb

    table = wandb.Table(columns=[*rows[0], *([PICTURE] if pictures else [])])
    for number, row in enumerate(rows):
        picture = (pictures or {}).get(number)
        shown = [None if picture is None else wandb.Image(picture)] if pictures else []
        table.add_data(*row.values(), *shown)
    return table


def _bytes_of(path: Path) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.round(imread(path)[..., :3] * 255).astype(np.uint8)
    return pixels


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [["" if value is None else str(value).replace("|", "\\|") for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
