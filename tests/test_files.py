"""Files written whole: a reader sees the old file or the new one, never half, and nothing is left beside it."""

from pathlib import Path

import pytest

from medmtl.files import remove_others, resolved, write_text, written_whole


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "best.ckpt"
    with written_whole(path) as beside:
        beside.write_text("new")
        assert not path.exists()
        assert beside.parent == path.parent
        assert beside.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")
    with written_whole(path) as beside:
        beside.write_text("new, at great length")
        assert path.read_text() == "old"
    assert path.read_text() == "new, at great length"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")

    def fail() -> None:
        with written_whole(path) as beside:
            beside.write_text("ha")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass
    assert path.read_text() == "old"


def test_text_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    text = "first line\nsecond: café\n"
    write_text(tmp_path / "notes.txt", text)
    assert (tmp_path / "notes.txt").read_text() == text


def test_only_other_files_of_the_folder_itself_are_removed(tmp_path: Path) -> None:
    for name in ("old.png", "new.png", "notes.txt"):
        (tmp_path / name).touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    remove_others(link, "*.png")  # leads to files that may be anyone's
    assert (tmp_path / "old.png").exists()
    remove_others(tmp_path, "*.png", {tmp_path / "new.png"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new.png", "notes.txt"]
    remove_others(tmp_path / "nowhere", "*")


@pytest.mark.parametrize("name", ["there", "loop", "loop/within", "gone", "n" * 300, "nul\0"])
def test_any_path_can_be_compared_with_others(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "there").symlink_to(tmp_path)
    assert resolved(tmp_path / name) == (tmp_path if name == "there" else tmp_path / name)
