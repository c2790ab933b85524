"""An exported folder takes its place only where nothing of the user's is lost."""

import os
from pathlib import Path

import pytest
from exported_sample import export, source

from medmtl.errors import RunError
from medmtl.export.write import placed


def place(output: Path, overwrite: bool = True) -> None:
    with placed(output, overwrite) as folder:
        (folder / "new").write_text("new")


@pytest.mark.parametrize("name", ["thesis.txt", "images/scan.nii.gz", "scripts/mine.py", "link"])
def test_a_folder_that_holds_a_file_of_the_user_is_not_replaced(tmp_path: Path, name: str) -> None:
    folder = export(tmp_path / "exported", source())
    (tmp_path / "elsewhere").mkdir()
    mine = folder / name
    mine.parent.mkdir(exist_ok=True)
    if name == "link":
        mine.symlink_to(tmp_path / "elsewhere")
    else:
        mine.write_text("all I have")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=f"holds {name}, which no export wrote: move it"):
        place(folder)
    assert sorted(tmp_path.rglob("*")) == before
    mine.unlink()
    (folder / "scripts" / "__pycache__").mkdir(parents=True)
    (folder / "scripts" / "__pycache__" / "a.pyc").touch()  # as Python leaves it in a bundle that was run
    place(folder)
    assert [each.name for each in folder.iterdir()] == ["new"]


def test_a_file_that_comes_during_the_export_stays(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(RunError, match="is there already"), placed(output, overwrite=False):
        (output / "thesis.txt").write_text("all I have")
    assert [each.name for each in tmp_path.rglob("*")] == ["output", "thesis.txt"]


def test_a_folder_whose_record_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    folder = export(tmp_path / "exported", source())
    (folder / "medmtl.json").write_text("{}")
    with pytest.raises(RunError, match="holds a damaged export: move it"):
        place(folder)
    assert (folder / "state.npz").exists()


@pytest.mark.parametrize("given", [".", "../here", "there", "beside/../here"])
def test_a_folder_may_be_named_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "beside").mkdir()
    (here / "there").symlink_to(tmp_path / "beside")
    monkeypatch.chdir(here)
    if given != "there":
        (here / "there").unlink()
    if given.startswith("beside"):
        monkeypatch.chdir(tmp_path)
    place(Path(given), overwrite=False)
    assert (tmp_path / ("beside" if given == "there" else "here") / "new").is_file()


def test_two_exports_to_one_folder_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def during_another() -> None:
        with placed(tmp_path / "output", overwrite=False) as one:
            (one / "first").touch()
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: -1)  # another process
                place(tmp_path / "output", overwrite=False)
            assert (one / "first").is_file()

    with pytest.raises(RunError, match="is there already"):
        during_another()
    assert [each.name for each in tmp_path.rglob("*")] == ["output", "new"]
