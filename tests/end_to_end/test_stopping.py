"""A command that is interrupted, terminated or out of room ends in one line, and what it wrote before can be used."""

import csv
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from medmtl.cli import main
from medmtl.models.segmenter import Segmenter
from medmtl.ood_benchmark.worker import Worker
from medmtl.predict import run as predicting

WHOLE = "--model.scheduler.init_args.total_steps=6"  # the schedule of `trained`
BARE = ["--calibration.regions=[]", "--scaling.method=none", "--spectral.layers=[]"]  # what no weight depends on


def ends(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert not [line for line in lines if "Traceback" in line]
    assert len([line for line in lines if line.startswith("medmtl: ")]) == 1
    return exit_.value.code, lines[-1]


def status(run: Path, command: str = "fit") -> str:
    return json.loads((run / "run.json").read_text())[command]["status"]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def steps(run: Path, kind: str) -> list[int]:
    with (run / "metrics.csv").open(newline="") as stream:
        return [int(row["step"]) for row in csv.DictReader(stream) if row.get(kind)]


@pytest.fixture
def run(trained: Path, workplace: Path) -> Path:
    (workplace / "ood.yaml").write_text("detectors: [Spectral]\nshifts: [noise]\nprocesses: 1\n")
    return shutil.copytree(trained, workplace / "r")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the system refuse what a full disk does, but for files that grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("command", "size"),
    [
        ("fit --run r --resume --trainer.max_steps=9 --model.scheduler=null", 100),
        ("fit --run r --resume --trainer.max_steps=9 --model.scheduler=null", 20_000),
        ("test --run r", 8_000),
        ("calibrate --run r", 20_000),
        ("ood --run r --config ood.yaml", 6_000),
        ("predict --run r --input SCANS --output p", 100),
        ("data check SCANS --output c --jobs 1", 2_000),
        ("data phantom --output ph --cases 1", 2_000),
    ],
)
def test_a_full_disk_is_one_line_and_spoils_nothing(
    command: str, size: int, run: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    argv = [str(phantoms / "LiverCT") if word == "SCANS" else word for word in command.split()]
    with no_file_above(size):
        code, line = ends(capsys, *argv)
    assert code == 1
    assert "File too large" in line
    assert "make room there" in line
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    assert not [path for path in run.parent.rglob(".*") if path.is_file()]


def _terminate_then(go_on: Callable) -> Callable:
    def terminated(*given: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return go_on(*given, **options)

    return terminated


@pytest.mark.parametrize(
    ("command", "owner", "method", "line"),
    [
        ("test --run r", Segmenter, "test_step", "terminated: run the same command again"),
        ("calibrate --run r", Segmenter, "validation_step", "terminated: run the same command again, the checkpoint"),
        ("ood --run r --config ood.yaml", Worker, "__call__", "terminated: observed images are kept, run the same"),
        ("predict --run r --input SCANS --output p", predicting, "_attempt", "terminated: finished images are kept"),
    ],
)
def test_a_termination_ends_with_143_and_says_how_to_go_on(
    command: str,
    owner: object,
    method: str,
    line: str,
    run: Path,
    phantoms: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = [str(phantoms / "LiverCT") if word == "SCANS" else word for word in command.split()]
    monkeypatch.setattr(owner, method, _terminate_then(getattr(owner, method)))
    code, last = ends(capsys, *argv)
    assert code == 143
    assert last.startswith(f"medmtl: {line}")
    if argv[0] in ("test", "calibrate"):
        assert status(run, argv[0]) == "terminated"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_stopped_training_ends_where_an_uninterrupted_one_does_dropout_and_all(
    trained: Path,
    tiny: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, step = workplace / "r", Segmenter.training_step
    last = run / "checkpoints" / "last.ckpt"

    def at(number: int, end: Callable[[], object]) -> None:
        def training_step(self: Segmenter, batch: dict, index: int) -> torch.Tensor:
            if self.global_step == number:
                end()
            return step(self, batch, index)

        monkeypatch.setattr(Segmenter, "training_step", training_step)

    def interrupt() -> None:
        raise KeyboardInterrupt

    at(0, interrupt)
    code, line = ends(capsys, "fit", "--config", str(tiny), "--run", "r", WHOLE)
    assert (code, line) == (130, "medmtl: interrupted: run the same command again")
    assert status(run) == "interrupted"

    at(1, lambda: os.kill(os.getpid(), signal.SIGTERM))  # before the first checkpoint: --resume begins again
    code, line = ends(capsys, "fit", "--run", "r", "--resume")
    assert "stopped before its first checkpoint: the training begins again" in caplog.text
    assert (code, line) == (143, "medmtl: terminated: continue with: medmtl fit --run r --resume")
    assert status(run) == "terminated"
    assert torch.load(last, weights_only=True)["global_step"] == 2  # the step that it arrived in was done

    monkeypatch.setattr(Segmenter, "training_step", step)
    main(["fit", "--config", str(tiny), "--run", "r", "--overwrite", "--trainer.max_steps=3", WHOLE, *BARE])
    early = last.read_bytes()
    for _ in range(2):  # the second time as after a kill, from an earlier checkpoint than the last row of metrics.csv
        main(["fit", "--run", "r", "--resume", "--trainer.max_steps=6", "--trainer.log_every_n_steps=1"])
        assert status(run) == "finished"
        through = weights(trained / "checkpoints" / "last.ckpt")
        assert all(torch.equal(value, through[name]) for name, value in weights(last).items())
        assert steps(run, "val/mean/dice")[-1] == 5
        assert steps(run, "train/loss") == [2, 3, 4, 5]  # 2: a training logs its last step
        last.write_bytes(early)
        facts = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(facts | {"fit": facts["fit"] | {"status": "running"}}))
    assert len(set(steps(run, "val/mean/dice"))) == len(steps(run, "val/mean/dice"))


def test_a_damaged_last_checkpoint_and_record_are_replaced(
    run: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (run / "checkpoints" / "last.ckpt").read_bytes()
    (run / "checkpoints" / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    (run / "run.json").write_text('{"fit": {"sta')
    main(["fit", "--run", "r", "--resume", "--trainer.max_steps=8", "--model.scheduler=null", *BARE])
    assert "last.ckpt is not a checkpoint that loads safely: the training goes on from best.ckpt instead" in caplog.text
    assert "run.json is damaged: it is written again" in caplog.text
    assert status(run) == "finished"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8

    for name in ("best.ckpt", "last.ckpt"):
        (run / "checkpoints" / name).write_bytes(b"PK")
    code, line = ends(capsys, "fit", "--run", "r", "--resume")
    assert code == 1
    assert "best.ckpt is not a checkpoint" in line


def test_a_finished_training_says_so_at_once(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Segmenter, "training_step", None)
    monkeypatch.setattr(Segmenter, "validation_step", None)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for flags in ([], ["--trainer.max_steps=2"]):
        main(["fit", "--run", "r", "--resume", *flags])
        assert "r is finished: it was trained for 6 steps" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
