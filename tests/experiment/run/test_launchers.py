"""Launchers: real processes that fail fast, how the cores are shared, and what the cluster's options may be."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medmtl.errors import ConfigError, RunError
from medmtl.experiment.plan.cell import Budget, Cell
from medmtl.experiment.plan.job import Job
from medmtl.experiment.run.launchers import ClusterLauncher, Launcher, LocalLauncher
from medmtl.experiment.run.progress import LineView
from medmtl.experiment.run.runner import Outcome, run_jobs
from medmtl.runs.folder import RunFolder

CELL = Cell("quick", "dedicated", "LiverCT", seed=0, fold=None, cases=None, budget=Budget("steps", 6, 2, 2))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose configuration does not exist."""
    folder = tmp_path / "quick"
    run = RunFolder(folder / "runs" / "a-0123")
    job = Job("a", folder, run, folder / "configs" / "a.yaml", 6, None, "0123", CELL)
    job.file.parent.mkdir(parents=True)
    job.file.write_text(json.dumps(job.to_dict()))
    return job


@dataclass
class Process:
    """A process that has ended with some code."""

    code: int
    stdin: None = None

    def poll(self) -> int:
        return self.code


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How processes would have been started; each ends with code 1 at once."""
    calls: list[dict[str, Any]] = []

    def start(command: list[str], **options: Any) -> Process:
        calls.append({"command": command, **options})
        return Process(1)

    monkeypatch.setattr(subprocess, "Popen", start)
    return calls


def run(launcher: Launcher, job: Job) -> Outcome:
    return run_jobs([job], launcher, 1, LineView(Console(file=StringIO())), every=0.05)


@pytest.mark.parametrize(("workers", "cores", "threads"), [(1, 8, "8"), (2, 8, "4"), (3, 8, "2"), (4, 2, "1")])
def test_the_cores_are_shared_out(
    job: Job,
    started: list[dict[str, Any]],
    workers: int,
    cores: int,
    threads: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    LocalLauncher(workers, cores).start(job)
    assert started[0]["env"]["OMP_NUM_THREADS"] == threads


def test_the_users_own_number_of_threads_wins(
    job: Job, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    LocalLauncher(1, 8).start(job)
    assert started[0]["env"]["OMP_NUM_THREADS"] == "3"


def test_torch_keeps_to_that_number() -> None:
    command = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.stdout.strip() == "1"


def test_graphics_processors_are_shared_out_and_given_back(job: Job, started: list[dict[str, Any]]) -> None:
    launcher = LocalLauncher(2, devices=["4", "7"])
    handles = [launcher.start(job), launcher.start(job)]
    handles[1].poll()
    handles[0].poll()
    launcher.start(job)
    assert [call["env"]["CUDA_VISIBLE_DEVICES"] for call in started] == ["4", "7", "7"]


def test_processes_share_a_single_graphics_processor_and_one_alone_sees_all(
    job: Job, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shared = LocalLauncher(2, devices=["0"])
    shared.start(job), shared.start(job)
    LocalLauncher(1, devices=["0", "1"]).start(job)
    assert [call["env"].get("CUDA_VISIBLE_DEVICES") for call in started] == ["0", "0", None]


def test_a_process_that_cannot_be_started_is_one_line(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(RunError, match=r"could not be started .*temporarily unavailable"):
        LocalLauncher(1).start(job)


def test_a_worker_is_given_the_job_file(job: Job, started: list[dict[str, Any]]) -> None:
    LocalLauncher(1).start(job)
    assert started[0]["command"][0] == sys.executable
    assert str(job.file) in started[0]["command"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("step 1\nmedmtl: error: the task A has no labels: add some\n\n", "the task A has no labels: add some"),
        ("medmtl: error: no labels\nRuntimeError: ended with exit code 2\n", "no labels"),
        (
            "Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: 2 GiB\n  in layer 3\nbye\n",
            "torch.OutOfMemoryError: 2 GiB",
        ),
        ("step 1\n  step 2  \n", "step 2"),
        ("", "ended without output"),
    ],
)
def test_a_failure_is_the_last_line_with_a_meaning(
    job: Job, started: list[dict[str, Any]], said: str, reason: str
) -> None:
    handle = LocalLauncher(1).start(job)
    job.log.write_text(said)
    assert handle.poll() == f"{reason} (log: {job.log})"


def test_a_worker_that_was_killed_is_said_to_be(
    job: Job, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Process(-9))
    handle = LocalLauncher(1).start(job)
    job.log.write_text("step 1\n")
    assert handle.poll() == f"ended by signal 9 (Killed) (log: {job.log})"


def test_what_counts_is_that_the_run_is_finished(job: Job, started: list[dict[str, Any]]) -> None:
    handle = LocalLauncher(1).start(job)
    job.record(finished=True, seconds=1.0)
    assert handle.poll() == ""


def test_a_real_process_that_fails_says_why(job: Job) -> None:
    outcome = run(LocalLauncher(1), job)
    assert outcome.failed["a"].startswith(f"there is no configuration {job.config}: ")
    assert outcome.failed["a"].endswith(f"(log: {job.log})")
    assert "Traceback" not in job.log.read_text()
    assert not job.finished


def test_stopping_ends_the_process(job: Job) -> None:
    handle = LocalLauncher(1).start(job)
    handle.stop()
    reason = handle.poll()
    assert reason is not None
    assert "signal 9" in reason


def test_a_submitted_job_that_fails_says_why(job: Job) -> None:
    pytest.importorskip("submitit")
    job.file.write_text("{")
    outcome = run(ClusterLauncher(job.folder, {}, "local"), job)
    assert outcome.failed["a"].startswith(f"{job.file} describes no training run (")
    assert outcome.failed["a"].endswith(f"(log: {job.log})")
    assert "medmtl: error: " in job.log.read_text()


def test_the_clusters_options_are_checked_before_anything_is_submitted(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    for options in ({"gpus": 2}, {"slurm_partitoin": "gpu"}, {"timeout_min": "long"}):
        with pytest.raises(ConfigError, match=next(iter(options))) as error:
            ClusterLauncher(tmp_path, options, "local")
        assert "\n" not in str(error.value)


def test_without_a_cluster_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"Could not detect .*srun"):
        ClusterLauncher(tmp_path, {})


def test_without_submitit_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"-m pip install 'submitit>="):
        ClusterLauncher(tmp_path, {})


def test_a_job_that_the_cluster_does_not_take_has_failed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")

    def refuse(*_: object) -> None:
        raise submitit.core.utils.FailedJobError("sbatch: error: invalid partition\nBatch job submission failed")

    launcher = ClusterLauncher(job.folder, {}, "local")
    monkeypatch.setattr(submitit.AutoExecutor, "submit", refuse)
    with pytest.raises(RunError, match=r"could not be submitted \(sbatch: error: invalid partition Batch job"):
        launcher.start(job)
