"""`metrics.csv`: every logged figure of a run, a row for each time that some were logged."""

import time
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from medmtl.files import read_table, write_table

PAUSE = 30.0  # seconds between two writings, but for those at a checkpoint and at the end


class MetricsLogger(Logger):
    """Writes the rows of this and of earlier commands.

    The file is replaced whole, with every checkpoint: what is logged after the last one is logged again by the training
    that goes on from there, and is left out then.

    Args:
        path: the file.
        before: the step from which the training goes on; rows of a training from there on are left out. None: all
            rows are kept.
    """

    def __init__(self, path: Path, before: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._before = before
        self._rows: list[dict[str, Any]] | None = None
        self._written = time.monotonic()
        self._changed = False

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: they are in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        if self._rows is None:
            earlier = read_metrics(self.path)
            self._rows = [row for row in earlier if self._before is None or _is_before(row, self._before)]
        self._rows.append({**metrics, "step": len(self._rows) if step is None else step})
        self._changed = True

    @rank_zero_only
    def save(self) -> None:
        """Write the file, if it was not just written."""
        if time.monotonic() - self._written > PAUSE:
            self._write()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Write the file."""
        self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file."""
        self._write()

    def _write(self) -> None:
        if not self._changed or self._rows is None:
            return
        write_table(self.path, sorted(set().union(*self._rows)), self._rows)
        self._changed, self._written = False, time.monotonic()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a file, without empty cells; none where there is no file."""
    if not path.is_file():
        return []
    return [{key: value for key, value in row.items() if value} for row in read_table(path)]


def _is_before(row: dict[str, str], step: int) -> bool:
    """Whether a row is one of a test, or of a training before a step."""
    trained = any(key.startswith(("train/", "val/")) for key in row)
    return not trained or not row.get("step", "").isdigit() or int(row["step"]) < step
