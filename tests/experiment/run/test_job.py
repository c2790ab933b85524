"""Job: what its files say of it, and what a worker does with a run folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medmtl.distributed import is_first
from medmtl.experiment.plan.cell import Budget, Cell
from medmtl.experiment.plan.job import Job
from medmtl.experiment.run.worker import execute, main
from medmtl.runs.folder import RunFolder
from medmtl.runs.lock import locked
from medmtl.training import command

CELL = Cell("quick", "dedicated", "LiverCT", seed=0, fold=None, cases=4, budget=Budget("steps", 6, 2, 2))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "quick"
    run = RunFolder(folder / "runs" / "dedicated-LiverCT-seed0-0123abcd")
    config = folder / "configs" / "dedicated-LiverCT-seed0.yaml"
    return Job("dedicated-LiverCT-seed0", folder, run, config, 6, None, "0123abcd4567", CELL)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the worker gives, instead of what they would do."""
    given: list[list[str]] = []

    def do(argv: list[str]) -> None:
        given.append(argv)
        train(argv)

    monkeypatch.setattr(command, "run_command", do)
    return given


def train(argv: list[str], steps: int = 6) -> None:
    """What `medmtl fit` leaves in its run folder, as far as a worker looks."""
    if argv[0] == "fit" and is_first():
        run = RunFolder(Path(argv[argv.index("--run") + 1]))
        run.update_manifest(fit={"steps": steps})
        run.checkpoints.mkdir()
        run.best.touch()
        run.last.touch()


def stopping_at(command: str, code: int) -> Callable[[list[str]], None]:
    def stop(argv: list[str]) -> None:
        if argv[0] == command:
            raise SystemExit(code)
        train(argv)

    return stop


def write_metrics(job: Job, text: str) -> None:
    job.run.path.mkdir(parents=True, exist_ok=True)
    job.run.metrics.write_text(text)


def test_a_job_is_written_and_read_back(job: Job) -> None:
    pretraining = replace(job, cell=None)
    target = replace(job, needs="pretraining-without-LiverCT-seed0")
    for one in (job, pretraining, target):
        assert Job.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_its_files_lie_in_the_folder_of_the_experiment(job: Job) -> None:
    assert job.file == job.folder / "jobs" / "dedicated-LiverCT-seed0.json"
    assert job.log == job.folder / "logs" / "dedicated-LiverCT-seed0.log"


def test_only_the_very_run_counts_as_finished(job: Job) -> None:
    assert not job.finished
    job.record(finished=False)
    assert not job.finished
    job.record(finished=True, seconds=12.34)
    assert job.finished
    assert job.seconds == 12.3
    assert not replace(job, fingerprint="89ef").finished


def test_the_record_says_what_the_run_is(job: Job) -> None:
    job.run.update_manifest(fit={"steps": 6})
    job.record(finished=False)
    expected = {"fingerprint": "0123abcd4567", "finished": False, "steps": 6, "cell": CELL.to_dict()}
    assert json.loads(job.run.manifest.read_text()) == {"fit": {"steps": 6}, "experiment": expected}
    replace(job, cell=None).record(finished=False)
    assert job.run.read_manifest()["experiment"]["cell"] is None


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("epoch,step,train/loss\n0,1,0.5\n0,3,0.4\n", 4),
        ("epoch,step\n0,1\n0,2", 3),
        ("epoch,step,train/loss\n0,1,0.5\n0,", 2),  # half of a row is written
        ("epoch,step\n0,5\n1,6\n", 6),  # the test logs at the step after the last
        ("epoch,step\n", 0),
        ("epoch,st", 0),
        ("", 0),
    ],
)
def test_progress_is_read_from_the_metrics(job: Job, text: str, steps: int) -> None:
    write_metrics(job, text)
    assert job.progress == steps


def test_there_is_no_progress_before_the_first_metrics(job: Job) -> None:
    assert job.progress == 0


def test_a_worker_trains_tests_and_marks_the_run(job: Job, commands: list[list[str]]) -> None:
    execute(job)
    assert [argv[0] for argv in commands] == ["fit", "test"]
    fit, test = commands
    assert fit[1:] == ["--config", str(job.config), "--run", str(job.run.path), "--overwrite"]
    assert test[1:3] == ["--run", str(job.run.path)]
    assert job.finished
    assert job.seconds >= 0


def test_a_pretraining_is_not_tested(job: Job, commands: list[list[str]]) -> None:
    pretraining = replace(job, cell=None)
    execute(pretraining)
    assert [argv[0] for argv in commands] == ["fit"]
    assert pretraining.finished


def test_of_a_finished_run_only_the_best_weights_are_kept_and_a_pretraining_needs_them(
    job: Job, commands: list[list[str]]
) -> None:
    pretraining = replace(job, cell=None)
    execute(pretraining)
    assert list(job.run.checkpoints.iterdir()) == [job.run.best]
    job.run.best.unlink()
    assert not pretraining.finished
    assert job.finished


def test_a_finished_run_is_left_alone(job: Job, commands: list[list[str]]) -> None:
    job.record(finished=True, seconds=1.0)
    execute(job)
    assert commands == []


def test_a_run_that_was_cut_short_starts_from_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.record(finished=False)
    write_metrics(job, "epoch,step\n0,3\n")
    seen = []

    def look(argv: list[str]) -> None:
        seen.append((job.progress, job.run.read_manifest()))
        train(argv)

    monkeypatch.setattr(command, "run_command", look)
    execute(job)
    assert [progress for progress, _ in seen] == [0, 0]
    assert [manifest["experiment"]["finished"] for _, manifest in seen] == [False, False]


@pytest.mark.parametrize("failing", ["fit", "test"])
def test_a_failed_run_is_not_marked(job: Job, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_command", stopping_at(failing, 2))
    with pytest.raises(SystemExit) as exit_:
        execute(job)
    assert exit_.value.code == 2
    assert job.run.read_manifest()["experiment"]["finished"] is False


def test_a_run_that_was_stopped_before_its_last_step_is_no_fair_one(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run_command", lambda argv: train(argv, steps=4))
    with pytest.raises(SystemExit):
        execute(job)
    assert "4 of 6 steps were trained" in capsys.readouterr().err
    assert not job.finished


def test_a_run_is_trained_by_one_process_at_a_time(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def try_the_lock(argv: list[str]) -> None:
        (lock,) = job.run.path.parent.glob(".*.lock")
        with pytest.raises(BlockingIOError), locked(lock, wait=False):
            pass
        refused.append(argv[0])
        train(argv)

    monkeypatch.setattr(command, "run_command", try_the_lock)
    execute(job)
    assert refused == ["fit", "test"]
    (lock,) = job.run.path.parent.glob(".*.lock")
    with locked(lock, wait=False):
        assert job.finished


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_further_process_of_a_run_only_joins_the_training(
    job: Job, commands: list[list[str]], rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(rank, "1")
    execute(job)
    assert [argv[0] for argv in commands] == ["fit"]
    assert not job.run.manifest.exists()


def test_a_worker_is_told_its_job_by_a_file(job: Job, commands: list[list[str]]) -> None:
    job.file.parent.mkdir(parents=True)
    job.file.write_text(json.dumps(job.to_dict()))
    main([str(job.file)])
    assert [argv[0] for argv in commands] == ["fit", "test"]
    assert job.finished


def test_it_waits_for_no_process_that_has_ended(job: Job, commands: list[list[str]]) -> None:
    with locked(job.run.path.with_name(f".{job.run.path.name}.lock"), wait=False):
        pass
    execute(job)
    assert job.finished
