"""Files written whole: a reader sees the old file or the new one, never half, and nothing is left beside it."""

from pathlib import Path

import pytest

from medmtl.files import write_text, written_whole


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
