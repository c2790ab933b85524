"""Real workers of an experiment on the tiny configuration: their runs are those of `fit` and `test`, whatever happens.

Nothing here sleeps: pipes and locks tell when a process has come to a point, or to its end.
"""

import json
import os
import signal
from io import StringIO
from pathlib import Path

import pytest
from forked_process import ForkedProcess
from rich.console import Console

from medmtl.experiment.plan.cell import Budget, Cell
from medmtl.experiment.plan.job import Job
from medmtl.experiment.run.launchers import ClusterLauncher, Launcher, LocalLauncher
from medmtl.experiment.run.progress import LineView, Status
from medmtl.experiment.run.runner import Outcome, run_jobs
from medmtl.runs.folder import RunFolder
from medmtl.runs.lock import locked


class Telling(LineView):
    """Says through a pipe when the worker has trained some steps, and stays until its process is killed."""

    def __init__(self, pipe: int) -> None:
        super().__init__(Console(file=StringIO()))
        self._pipe = pipe

    def show(self, status: Status) -> None:
        if any(job.progress for job in status.jobs):
            os.write(self._pipe, b"trains")
            signal.pause()


def run_and_tell(job: Job, pipe: int) -> None:
    run_jobs([job], LocalLauncher(1, cores=1), 1, Telling(pipe), every=0.02)


@pytest.fixture
def job(tiny: Path, tmp_path: Path) -> Job:
    """The training of the fixture `trained`, with its name, as a job."""
    folder = tmp_path / "experiment"
    cell = Cell("experiment", "multitask", None, seed=0, fold=None, cases=None, budget=Budget("steps", 6, 2, 2))
    job = Job("tiny", folder, RunFolder(folder / "runs" / "tiny"), tiny, 6, None, "0123abcd", cell)
    job.file.parent.mkdir(parents=True)
    job.file.write_text(json.dumps(job.to_dict()))
    return job


def run(launcher: Launcher, job: Job) -> Outcome:
    return run_jobs([job], launcher, 1, LineView(Console(file=StringIO())), every=0.1)


def figures(path: Path) -> dict:
    return json.loads((path / "report" / "report.json").read_text())


def test_after_kill_9_the_worker_ends_and_a_second_start_gives_the_same(
    job: Job, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a notebook has it
    told, tells = os.pipe()
    runner = ForkedProcess(run_and_tell, job, tells)
    os.close(tells)
    with os.fdopen(told, "rb") as pipe:
        assert pipe.read(len(b"trains")) == b"trains"
    runner.kill()
    assert runner.wait() == -signal.SIGKILL
    # The worker holds this lock to its end: the lock is free at once, and the run is not finished.
    with locked(job.run.path.with_name(".tiny.lock"), wait=True):
        assert job.run.read_manifest()["experiment"]["finished"] is False
        assert job.progress > 0
    assert run(LocalLauncher(1, cores=1), job) == Outcome(("tiny",), {}, {})
    assert figures(job.run.path) == figures(trained)
    record = job.run.read_manifest()["experiment"]
    assert record["finished"] is True
    assert record["cell"]["arm"] == "multitask"
    assert job.seconds > job.run.read_manifest()["fit"]["seconds"]


def test_submitit_gives_the_same(job: Job, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(ClusterLauncher(job.folder, {"timeout_min": 5}, "local"), job) == Outcome(("tiny",), {}, {})
    assert figures(job.run.path) == figures(trained)
    assert "trained:" in job.log.read_text()
