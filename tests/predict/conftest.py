import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from predict_sample import ODD, OUT, BrightModel, save_scan

from medmtl.cli import main
from medmtl.predict.model import Model


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> BrightModel:
    """The network that every run folder holds in this test."""
    bright = BrightModel()
    monkeypatch.setattr(Model, "load", lambda *_, **__: bright)
    return bright


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of three images: in-distribution, OOD, and an undecided one in a folder of its own."""
    folder = tmp_path / "scans"
    for seed, name in enumerate(("usual.nii.gz", f"{OUT}.nii.gz", f"{ODD}/deep.nii")):
        save_scan(folder / name, seed)
    return folder


@pytest.fixture
def predict(tmp_path: Path) -> Callable[..., int]:
    """Run `medmtl predict` into `out`, and return the exit code: `predict(input, *flags)`."""

    def run(source: Path, *flags: str) -> int:
        command = ["predict", "--run", str(tmp_path / "run"), "--input", str(source), "--output", str(tmp_path / "out")]
        (tmp_path / "run" / "checkpoints").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / "checkpoints" / "best.ckpt").touch()
        try:
            main([*command, *flags])
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


@pytest.fixture
def out(tmp_path: Path) -> SimpleNamespace:
    """The output folder: `out.path`, `out.names()` of the files in it, and `out.record(name)`, a verdict."""
    path = tmp_path / "out"

    def names() -> set[str]:
        return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}

    def strict(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    def record(name: str) -> dict:
        return json.loads((path / f"{name}.json").read_text(), parse_constant=strict)

    return SimpleNamespace(path=path, names=names, record=record)
