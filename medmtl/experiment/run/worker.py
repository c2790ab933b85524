"""Worker: the process that trains and tests one run of an experiment."""

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from medmtl.errors import reported
from medmtl.experiment.plan.job import Job
from medmtl.runs.lock import locked
from medmtl.startup import importing


def execute(job: Job) -> None:
    """Train and test a run in this process, unless it is finished.

    An interrupted run is trained from the start, so that all runs of a comparison are trained in one piece.

    Raises:
        SystemExit: the training or the test failed; the reason is on standard error.
    """
    started = time.monotonic()
    with importing():
        from medmtl.distributed import is_first  # imports torch, which counts to the time of a run

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
            sys.stderr.write(f"medmtl: error: {trained} of {job.steps} steps were trained: remove what stops it\n")
            raise SystemExit(1)
        if job.cell is not None:
            _test(job)
        job.run.last.unlink(missing_ok=True)  # nothing resumes from it, and it is as large as the best
        job.record(finished=True, seconds=time.monotonic() - started)


def main(args: Sequence[str] | None = None) -> None:
    """Train and test one run: `python -m medmtl.experiment.run.worker JOBFILE`.

    Args:
        args: the arguments; taken from the command line if None.
    """
    parser = argparse.ArgumentParser(prog="python -m medmtl.experiment.run.worker", description=main.__doc__)
    parser.add_argument("file", type=Path, metavar="JOBFILE")
    parser.add_argument("--tied", action="store_true", help="end at once when standard input ends")
    options = parser.parse_args(args)
    if options.tied:
        threading.Thread(target=_end_with_input, daemon=True).start()
    with reported():
        job = Job.read(options.file)
    execute(job)


def _train(job: Job) -> None:
    _command(["fit", "--config", str(job.config), "--run", str(job.run.path), "--overwrite"])


def _test(job: Job) -> None:
    # The run was trained just now, by the configuration that the user gave.
    _command(["test", "--run", str(job.run.path), "--trainer.devices=1", "--trust"])


def _command(argv: list[str]) -> None:
    """Run a command of training with its usual arguments."""
    with importing():
        from medmtl.training.command import run_command

    with reported():
        run_command(argv)


def _end_with_input() -> None:
    """End this process when standard input does: a pipe from the runner, closed however the runner ends."""
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin, whose lock Python needs to end by itself
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
