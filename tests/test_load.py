"""`medmtl.load` is the door for Python."""

from pathlib import Path

import pytest

import medmtl
from medmtl.predict.model import Model


def test_a_run_folder_is_loaded_with_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "load", lambda *given: given)
    assert medmtl.load("runs/multitask") == ("runs/multitask", "auto", "32", None, None)
    assert medmtl.load(Path("best.ckpt"), "cpu", "bf16", 2, 0.1) == (Path("best.ckpt"), "cpu", "bf16", 2, 0.1)
