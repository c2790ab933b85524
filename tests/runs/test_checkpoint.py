"""A checkpoint: its content, or one line; never code from it. It is replaced whole."""

import pickle
from pathlib import Path

import pytest
import torch

from medmtl.errors import RunError
from medmtl.runs.checkpoint import read_checkpoint, write_checkpoint


class Harmful:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_checkpoint_is_what_was_saved(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.arange(3)}, "config": "run: x"}, tmp_path / "x.ckpt")
    read = read_checkpoint(tmp_path / "x.ckpt")
    assert read["config"] == "run: x"
    assert torch.equal(read["state_dict"]["weight"], torch.arange(3))


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, {"state_dict": {}, "config": "run: x"})
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint(path, {"state_dict": {}, "config": lambda: None})
    assert read_checkpoint(path)["config"] == "run: x"
    assert list(tmp_path.iterdir()) == [path]


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    written = tmp_path / "written"
    torch.save({"state_dict": {}, "more": Harmful(written)}, tmp_path / "x.ckpt")
    with pytest.raises(RunError, match=r"x\.ckpt is not a checkpoint that loads safely"):
        read_checkpoint(tmp_path / "x.ckpt")
    assert not written.exists()
    torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert written.exists()


@pytest.mark.parametrize(
    "content", [b"", b"text", pickle.dumps({"state_dict": {}}, 2)], ids=["empty", "text", "pickle"]
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"x\.ckpt is not a checkpoint") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_file_without_weights_or_no_file_at_all_is_named(tmp_path: Path) -> None:
    torch.save({"weights": 1}, tmp_path / "x.ckpt")
    with pytest.raises(RunError, match=r"x\.ckpt is not a checkpoint of medmtl"):
        read_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(RunError, match=r"y\.ckpt does not exist"):
        read_checkpoint(tmp_path / "y.ckpt")
