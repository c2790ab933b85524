"""Job: one training run of an experiment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmtl.errors import RunError
from medmtl.experiment.plan.cell import Cell
from medmtl.files import read_json, read_table
from medmtl.runs.folder import RunFolder
from medmtl.typed import typed

RECORD = "experiment"  # key in run.json


@dataclass(frozen=True)
class Job:
    """One training run, tested afterwards if it is compared.

    Attributes:
        name: unique in the experiment.
        folder: the experiment's folder.
        run: where the training goes; its name may be another, if the run was finished under an earlier name.
        config: complete configuration of the training.
        steps: optimizer steps.
        needs: name of the job whose checkpoint it starts from; None if it starts from random weights.
        fingerprint: SHA-256 of all that decides its figures, as hexadecimal digits.
        cell: what it is compared as; None for a pre-training, which is not tested.
    """

    name: str
    folder: Path
    run: RunFolder
    config: Path
    steps: int
    needs: str | None
    fingerprint: str
    cell: Cell | None

    @property
    def file(self) -> Path:
        """The worker's argument: `to_dict` as JSON."""
        return self.folder / "jobs" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Output of the worker."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def finished(self) -> bool:
        """Whether the run folder holds this run, trained and tested to its end; of a pre-training, its weights."""
        record = self.run.facts_of(RECORD)
        same = bool(record.get("finished")) and record.get("fingerprint") == self.fingerprint
        return same and (self.cell is not None or self.run.best.is_file())

    @property
    def seconds(self) -> float:
        """How long a finished job took, from its start to the end of its test; 0 where its record does not say it."""
        return self.run.seconds_of(RECORD) or 0.0

    @property
    def progress(self) -> int:
        """Optimizer steps that are in the run's metrics so far, at most `steps`."""
        try:
            steps = [int(row["step"]) for row in read_table(self.run.metrics) if row.get("step", "").isdecimal()]
        except (FileNotFoundError, ValueError):  # not there yet, or just being rewritten
            return 0
        return min(max(steps, default=-1) + 1, self.steps)

    def record(self, finished: bool, seconds: float | None = None) -> None:
        """Write into `run.json` what the run is, and whether it is finished."""
        facts = {
            "fingerprint": self.fingerprint,
            "finished": finished,
            "steps": self.steps,
            "cell": None if self.cell is None else self.cell.to_dict(),
        }
        self.run.update_manifest(**{RECORD: facts if seconds is None else facts | {"seconds": round(seconds, 1)}})

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON holds it."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "run": str(self.run.path),
            "config": str(self.config),
            "steps": self.steps,
            "needs": self.needs,
            "fingerprint": self.fingerprint,
            "cell": None if self.cell is None else self.cell.to_dict(),
        }

    @classmethod
    def read(cls, file: Path) -> "Job":
        """The job whose `to_dict` a file holds.

        Raises:
            RunError: it is missing, or holds something else.
        """
        try:
            return cls.from_dict(read_json(file))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{file} describes no training run ({error})", fix="start `medmtl experiment` again"
            ) from None

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Job":
        """The job that `to_dict` gave.

        Raises:
            ValueError: it is something else.
        """
        state = typed(dict[str, Any], state, "the job")
        return typed(cls, {**state, "run": {"path": state.get("run")}}, "the job")
