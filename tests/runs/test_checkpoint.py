"""A checkpoint: its content, or one line; never code from it. It is replaced whole."""

import pickle
import random
import resource
from pathlib import Path

import pytest
import torch

from medmtl.errors import RunError
from medmtl.runs.checkpoint import first_not_finite, read_checkpoint, write_checkpoint


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


def content() -> dict:
    generator = torch.Generator().manual_seed(0)
    weights = {f"network.{number}": torch.randn(40, 40, generator=generator) for number in range(4)}
    return {"state_dict": weights, "callbacks": {"bank": torch.arange(500.0)}, "config": "run: x\n" * 50}


def alike(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_flipped_bit_is_noticed_wherever_it_is_not_without_effect(tmp_path: Path) -> None:
    path, expected = tmp_path / "x.ckpt", content()
    torch.save(expected, path)  # as earlier versions did
    whole, numbers, noticed = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        place = numbers.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << numbers.randrange(8)]) + whole[place + 1 :])
        try:
            assert alike(read_checkpoint(path), expected), place
        except RunError:
            noticed += 1
    assert noticed > 200  # the others are in the padding between tensors


def test_a_disk_that_is_full_at_any_byte_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    path, expected = tmp_path / "x.ckpt", content()
    write_checkpoint(path, expected)
    whole, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in [*range(0, len(whole), 1501), len(whole) - 1]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
        try:
            with pytest.raises(OSError, match=r"File too large: '.*x\.ckpt'"):
                write_checkpoint(path, expected)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_number_that_is_not_finite_is_named() -> None:
    state = {"a": torch.ones(2), "b": torch.tensor([1, 2]), "c": torch.ones(2).half()}
    assert first_not_finite({}) is first_not_finite(state) is None
    for wrong in (float("nan"), float("inf"), -float("inf")):
        assert first_not_finite({**state, "d": torch.tensor([0.0, wrong]), "e": torch.tensor(wrong)}) == "d"
