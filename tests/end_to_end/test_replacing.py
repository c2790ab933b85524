"""Nothing of a run is lost to a command that fails, or to a second one in the same folder."""

import os
import shutil
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from medmtl.cli import main
from medmtl.models.segmenter import Segmenter
from medmtl.runs.lock import only_writer


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code
    captured = capsys.readouterr().err
    assert "Traceback" not in captured
    return captured.splitlines()[-1]


@pytest.fixture
def run(trained: Path, workplace: Path) -> Path:
    return shutil.copytree(trained, workplace / "r")


@pytest.fixture
def overwrite(tiny: Path, run: Path) -> list[str]:
    return ["fit", "--config", str(tiny), "--run", "r", "--overwrite"]


@pytest.mark.parametrize(
    "wrong",
    [
        "--data.batchsize=3",  # seen by the parser
        "--data.batches=0",  # by a class
        "--data.tasks.LiverCT.root=nowhere",  # when the data are listed
        "--model.network.init_args.in_channels=2",  # when the network is made
        "--trainer.strategy=no_such_strategy",  # by the trainer
        "--spectral.layers=[model.9]",  # when the training is set up
        "--trainer.max_steps=2 --model.scheduler.init_args.pct_start=0.5",  # and its optimizer
        "--model.finetune.checkpoint=r/checkpoints/best.ckpt",  # starts from what is replaced
    ],
)
def test_a_run_stays_where_the_one_to_replace_it_fails(
    overwrite: list[str], run: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(run)
    assert fails(capsys, *overwrite, *wrong.split()).startswith("medmtl: error: ")
    assert content(run) == before


def _end_at_once(end: Callable[[], None]) -> Callable[..., None]:
    def training_step(self: Segmenter, batch: dict, index: int) -> None:
        end()

    return training_step


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_run_is_back_if_the_one_to_replace_it_is_stopped_before_its_first_checkpoint(
    overwrite: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(run)
    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "training_step", _end_at_once(_interrupt))
        assert fails(capsys, *overwrite) == "medmtl: interrupted: run the same command again"
    assert content(run) == before

    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "training_step", _end_at_once(lambda: os._exit(9)))
        child = get_context("fork").Process(target=main, args=(overwrite,))
        child.start()
        child.join()
    assert child.exitcode == 9
    assert {path.relative_to(run / "previous"): path.read_bytes() for path in run.glob("previous/checkpoints/*")}
    assert "r already holds a run" in fails(capsys, *overwrite[:-1])  # it is back with the next command
    assert content(run) == before

    main([*overwrite, "--trainer.max_steps=1", "--data.batches=1", "--spectral.layers=[]"])
    assert not (run / "previous").exists()
    assert content(run)["checkpoints/best.ckpt"] != before["checkpoints/best.ckpt"]
    assert not (run / "report").exists()


@pytest.mark.parametrize(
    "command",
    [
        "fit --config TINY --run r --overwrite",
        "fit --run r --resume",
        "test --run r",
        "calibrate --run r",
        "ood --run r/ood/..",
        "predict --run RUN --input SCANS --output r",
        "data check SCANS --output r",
        "data phantom --output r",
    ],
)
def test_a_folder_that_another_command_writes_into_is_left_alone(
    command: str, run: Path, tiny: Path, trained: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "ood").mkdir()
    places = {"TINY": str(tiny), "RUN": str(trained), "SCANS": str(phantoms / "LiverCT")}
    with only_writer(run), only_writer(run / "ood"):
        before = content(run)
        line = fails(capsys, *(places.get(word, word) for word in command.split()))
        assert "another process is writing into r" in line
        assert content(run) == before
