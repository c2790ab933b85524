"""A folder that is being written has one writer; what has ended, however it ended, keeps nobody out."""

import multiprocessing
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from medmtl.errors import RunError
from medmtl.runs.folder import RunFolder
from medmtl.runs.lock import only_writer
from medmtl.training import request


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with only_writer(folder):
        for _ in range(2):
            with (
                pytest.raises(RunError, match=r"another process is writing into .*folder: wait until it ends"),
                only_writer(folder),
            ):
                pass
        (folder / "file").touch()
    with only_writer(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_folder_in_which_nothing_was_written_is_gone_again_with_its_parents(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="x"), only_writer(tmp_path / "mine" / "runs" / "a"):
        raise ValueError("x")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with only_writer(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_killed_writer_keeps_nobody_out(tmp_path: Path) -> None:
    def die() -> None:
        stack = ExitStack()
        stack.enter_context(only_writer(tmp_path / "a"))
        os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join()
    assert child.exitcode == 9
    assert (tmp_path / "a" / ".lock").is_file()
    with only_writer(tmp_path / "a"):
        pass


def test_many_writers_at_once_never_share_the_folder(tmp_path: Path) -> None:
    def write(number: int) -> None:
        done = 0
        while done < 20:
            try:
                with only_writer(tmp_path / "a"):
                    (tmp_path / "a" / "alone").touch(exist_ok=False)
                    (tmp_path / "a" / "alone").unlink()
                    done += 1
            except RunError:
                continue

    children = [multiprocessing.get_context("fork").Process(target=write, args=(number,)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4


@pytest.mark.parametrize("name", ["file", "file/within"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=rf"{name} cannot be written to \(.*\): choose another folder with --output"),
        only_writer(tmp_path / name, option="--output"),
    ):
        pass


def test_a_name_that_another_process_takes_meanwhile_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    look = RunFolder.next_free

    def late(name: str) -> RunFolder:
        found = look(name)
        if found.path.name == "multitask":
            found.path.mkdir(parents=True)
        return found

    monkeypatch.setattr(RunFolder, "next_free", late)
    with ExitStack() as held:
        assert request._new_run("multitask", held).path == Path("runs/multitask-2")
        assert (Path("runs/multitask-2") / ".lock").is_file()
    assert [path.name for path in Path("runs").iterdir()] == ["multitask"]
