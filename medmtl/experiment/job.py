"""Job: one training run of an experiment, and what the process that does it goes through."""

import argparse
import csv
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmtl import cli
from medmtl.experiment.cell import Cell
from medmtl.experiment.lock import locked
from medmtl.run import RunFolder

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
        needs: name of the job whose checkpoint it starts from; None if it starts from nothing.
        fingerprint: what decides its figures, as hexadecimal digits.
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
        """What the worker is told: `to_dict` as JSON."""
        return self.folder / "jobs" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """What the worker says."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def finished(self) -> bool:
        """Whether the run folder holds this very run, trained and tested to its end; of a pre-training, its weights."""
        record = self.run.read_manifest().get(RECORD, {})
        same = bool(record.get("finished")) and record["fingerprint"] == self.fingerprint
        return same and (self.cell is not None or self.run.best.is_file())

    @property
    def seconds(self) -> float:
        """How long a finished job took, from its start to the end of its test."""
        return float(self.run.read_manifest()[RECORD]["seconds"])

    @property
    def progress(self) -> int:
        """Optimizer steps that are in the run's metrics so far, at most `steps`."""
        try:
            with self.run.metrics.open(newline="") as stream:
                rows = csv.reader(stream)
                column = next(rows).index("step")
                steps = [int(row[column]) for row in rows if len(row) > column and row[column].isdigit()]
        except (FileNotFoundError, StopIteration, ValueError):  # not there yet, or just being rewritten
            return 0
        return min(max(steps, default=-1) + 1, self.steps)

    def record(self, finished: bool, seconds: float | None = None) -> None:
        """Write into `run.json` what the run is, and whether it has come to its end."""
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
    def from_dict(cls, state: dict[str, Any]) -> "Job":
        """The job that `to_dict` gave."""
        return cls(
            **{
                **state,
                "folder": Path(state["folder"]),
                "run": RunFolder(Path(state["run"])),
                "config": Path(state["config"]),
                "cell": None if state["cell"] is None else Cell.from_dict(state["cell"]),
            }
        )


def execute(job: Job) -> None:
    """Train and test a run in this process, unless it is finished.

    A run that was cut short is trained anew: one that goes on in the middle would draw other dropout masks, and the
    tables would depend on the interruption.

    Raises:
        SystemExit: the training or the test failed and has said why.
    """
    started = time.monotonic()
    from medmtl.distributed import is_first  # with torch, whose import is part of what a run takes

    if not is_first():  # Lightning starts this very command again for each further device
        _train(job)
        return
    # An earlier submission to a cluster may still be training this very run.
    with locked(job.run.path.with_name(f".{job.run.path.name}.lock"), wait=True):
        if job.finished:
            return
        shutil.rmtree(job.run.path, ignore_errors=True)
        job.record(finished=False)
        _train(job)
        trained = job.run.read_manifest()["fit"]["steps"]
        if trained != job.steps:
            sys.stderr.write(f"medmtl: error: {trained} of {job.steps} steps were trained: take out what stops it\n")
            raise SystemExit(1)
        if job.cell is not None:
            _test(job)
        job.run.last.unlink(missing_ok=True)  # nothing goes on from it, and it is as large as the best
        job.record(finished=True, seconds=time.monotonic() - started)


def main(args: Sequence[str] | None = None) -> None:
    """What a worker does: `python -m medmtl.experiment.job JOBFILE`.

    Args:
        args: the arguments; taken from the command line if None.
    """
    parser = argparse.ArgumentParser(prog="python -m medmtl.experiment.job", description=main.__doc__)
    parser.add_argument("file", type=Path, metavar="JOBFILE")
    parser.add_argument("--tied", action="store_true", help="end at once when standard input ends")
    options = parser.parse_args(args)
    if options.tied:
        threading.Thread(target=_end_with_input, daemon=True).start()
    execute(Job.from_dict(json.loads(options.file.read_text())))


def _train(job: Job) -> None:
    cli.main(["fit", "--config", str(job.config), "--run", str(job.run.path), "--overwrite"])


def _test(job: Job) -> None:
    cli.main(["test", "--run", str(job.run.path), "--trainer.devices=1"])


def _end_with_input() -> None:
    """End this process when standard input does: a pipe from the runner, which no way of ending leaves open."""
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin, whose lock Python needs to end by itself
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
