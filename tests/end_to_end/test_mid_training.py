"""What happens around a training while it runs: it goes on, or ends in one line that says how to go on from there."""

import csv
import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from empty_figures import leave_figures_empty
from monai.data import MetaTensor

from medmtl.cli import main
from medmtl.data.case import Case, LabelFile
from medmtl.data.classes import Classes
from medmtl.data.loaders import Union
from medmtl.data.reading import load_label
from medmtl.data_tools import examine
from medmtl.errors import DataError, RunError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.models.segmenter import Segmenter
from medmtl.ood_benchmark import run as observing

BARE = ["--calibration.regions=[]", "--scaling.method=none", "--spectral.layers=[]"]
LONGER = ["--trainer.max_steps=7", "--data.batches=1", "--model.scheduler=null"]
TASKS = ("LiverCT", "KidneyT2")


def ends(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert not [line for line in lines if "Traceback" in line]
    assert [line.startswith("medmtl: error: ") for line in lines].count(True) == 1
    return lines[-1]


def alike(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def learnt(checkpoint: Path) -> dict[str, object]:
    """Weights, signatures, thresholds and temperatures."""
    content = torch.load(checkpoint, weights_only=True)
    callbacks = {key: state for key, state in content["callbacks"].items() if not key.startswith("RunCheckpoint")}
    return {"weights": content["state_dict"], **callbacks}


def at_step(number: int, happen: Callable[[], object]) -> Callable[..., torch.Tensor]:
    """A training step before which something happens."""
    step = Segmenter.training_step

    def training_step(self: Segmenter, batch: dict, index: int) -> torch.Tensor:
        if self.global_step == number:
            happen()
        return step(self, batch, index)

    return training_step


@pytest.fixture(scope="module")
def disturbed(tiny: Path, phantom_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training of `trained`, during which its images are deleted or changed, and the clock goes back a day."""
    folder = tmp_path_factory.mktemp("disturbed")
    for task in TASKS:
        shutil.copytree(phantom_store / "phantoms-v1" / task, folder / task)
    now = time.time

    def disturb() -> None:
        shutil.rmtree(folder / "LiverCT")
        for path in (folder / "KidneyT2").rglob("*.nii.gz"):
            nib.save(nib.Nifti1Image(np.zeros((9, 8, 7), np.int16), np.eye(4)), path)
        patch.setattr(time, "time", lambda: now() - 86_400)

    roots = [f"--data.tasks.{task}.root={folder / task}" for task in TASKS]
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_empty(patch)
        patch.setattr(Segmenter, "training_step", at_step(1, disturb))
        main(["fit", "--config", str(tiny), "--run", str(folder / "r"), *roots])
    return folder / "r"


def test_an_image_that_is_changed_or_deleted_changes_nothing(disturbed: Path, trained: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        assert alike(learnt(disturbed / "checkpoints" / name), learnt(trained / "checkpoints" / name))


def test_a_label_that_no_longer_fits_its_image_is_named(save_volume: Callable[..., Path]) -> None:
    case = Case("one", "one", (Path("one.nii.gz"),), (LabelFile(save_volume("label.nii.gz", np.ones((5, 4, 3)))),))
    with pytest.raises(DataError, match=r"case one: label .*nii\.gz has 5 x 4 x 3 voxels and its image 5 x 4 x 2: one"):
        load_label(case, Classes({"one": frozenset({1})}), MetaTensor(torch.zeros(1, 5, 4, 2)))


def test_a_clock_that_goes_back_changes_no_record(disturbed: Path, trained: Path) -> None:
    facts = json.loads((disturbed / "run.json").read_text())["fit"]
    assert (facts["status"], facts["steps"]) == ("finished", 6)
    assert 0 <= facts["seconds"] < 3600
    rows = [list(csv.DictReader((run / "metrics.csv").open(newline=""))) for run in (disturbed, trained)]
    one, other = ([row["step"] for row in each if row["val/mean/dice"] or row["train/loss"]] for each in rows)
    assert one == other == sorted(one)


def test_a_training_whose_worker_is_killed_goes_on_from_there(
    trained: Path, tiny: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        for child in multiprocessing.active_children():
            child.kill()
        time.sleep(60)  # until the system says that a child has ended

    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "training_step", at_step(1, kill))
        line = ends(capsys, "fit", "--config", str(tiny), "--run", "r", "--data.workers=1", *BARE)
    assert "a process that draws patches has ended (DataLoader worker" in line
    assert "continue with: medmtl fit --run r --resume" in line
    main(["fit", "--run", "r", "--resume", "--data.workers=0"])
    resumed = learnt(Path("r/checkpoints/last.ckpt"))["weights"]
    assert alike(resumed, learnt(trained / "checkpoints" / "last.ckpt")["weights"])


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_reads_or_observes_and_is_killed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: fork)
    monkeypatch.setattr(examine, "look_at", _die)
    monkeypatch.setattr(observing.worker, "work", _die)
    with pytest.raises(RunError, match="a process that read cases was killed: use fewer --jobs"):
        list(examine._each([None] * 2, 2))
    with pytest.raises(RunError, match="was killed: observed images are kept, run the same command again, with fewer"):
        list(observing._together(["image"], {"image": "key"}, int, 2))


def test_without_shared_memory_a_training_says_how_to_do_without(
    tiny: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system refuses a worker shared memory, as files, beyond some bytes."""
    draw = Union.__getitem__

    def with_little(self: Union, wanted: object) -> dict:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return draw(self, wanted)

    monkeypatch.setattr(Union, "__getitem__", with_little)
    line = ends(capsys, "fit", "--config", str(tiny), "--run", "r", "--data.workers=1", *BARE)
    assert "a process that draws patches has ended (RuntimeError: unable to" in line
    assert "run the same command again; where memory, shared memory (/dev/shm)" in line
    assert line.endswith("with a smaller data.workers")


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no file beside those that it has open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = os.dup(0)
    os.close(least)
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_few_open_files_are_one_line_and_the_checkpoints_stay(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, workplace / "r")
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    few = no_more_files()
    monkeypatch.setattr(Segmenter, "training_step", at_step(6, few.__enter__))
    try:
        line = ends(capsys, "fit", "--run", "r", "--resume", *LONGER, *BARE)
    finally:
        few.__exit__(None, None, None)
    assert "Too many open files: allow more (ulimit -n), and run the same command again" in line
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


def test_too_few_open_files_are_no_fault_of_an_image(phantoms: Path) -> None:
    (source,) = find_inputs(next((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz")))
    with no_more_files(), pytest.raises(RunError, match=r"nii\.gz: Too many open files: allow more \(ulimit -n\)"):
        read(source)


@pytest.mark.parametrize(
    "command",
    [
        "fit --run r --resume",
        "test --run r",
        "calibrate --run r",
        "ood --run r",
        "predict --run r --input SCANS --output r/p",
        "data check SCANS --output r/c",
        "data phantom --output r",
    ],
)
def test_a_folder_that_is_read_only_is_one_line(
    command: str,
    trained: Path,
    phantoms: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workplace / "r").symlink_to(trained)
    before, opened, made = sorted(trained.rglob("*")), Path.open, Path.mkdir

    def refuse(self: Path, way: Callable, mode: object, *given: object, **options: object) -> object:
        if self.absolute().is_relative_to(workplace / "r") and mode not in ("r", "rb"):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return way(self, mode, *given, **options)

    monkeypatch.setattr(Path, "open", lambda self, mode="r", *a, **o: refuse(self, opened, mode, *a, **o))
    monkeypatch.setattr(Path, "mkdir", lambda self, mode=0o777, *a, **o: refuse(self, made, mode, *a, **o))
    line = ends(capsys, *(str(phantoms / "LiverCT") if word == "SCANS" else word for word in command.split()))
    assert "cannot be written to (Read-only file system): choose another folder" in line
    assert sorted(trained.rglob("*")) == before
