"""State of any depth comes back from JSON and arrays as it was, and nothing else is read."""

import json
import math
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from medmtl.errors import RunError
from medmtl.export.state import joined, read_arrays, split, write_arrays

KINDS = (torch.float64, torch.float32, torch.int64, torch.bool)
LEAVES = (None, True, 0, -3, 2**70, 0.1, -0.0, math.inf, -math.inf, math.nan, "", "text", "\u2212 \n")


def drawn(draw: random.Random, depth: int) -> object:
    """A state of any depth."""
    choice = draw.randrange(4 if depth else 2)
    if choice == 0:
        return draw.choice(LEAVES)
    if choice == 1:
        return torch.arange(6).reshape(2, 3).to(draw.choice(KINDS))[: draw.randrange(3)]
    inner = [drawn(draw, depth - 1) for _ in range(draw.randrange(4))]
    return inner if choice == 2 else {f"{number}/{draw.random()}": each for number, each in enumerate(inner)}


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and one == other


def test_a_state_comes_back_as_it_was() -> None:
    draw = random.Random(0)
    for _ in range(300):
        state = {"first": drawn(draw, 4), "second": drawn(draw, 4)}
        arrays: dict = {}
        text = json.dumps(split(state, arrays), allow_nan=False)
        assert same(joined(json.loads(text), arrays), state)


@pytest.mark.parametrize(
    "state",
    [
        {"a/b": torch.zeros(2), "a": {"b": torch.ones(3)}},
        {"a": {"b": torch.ones(3)}, "a/b": torch.zeros(2), "a/b'": torch.full((1,), 2.0)},
        {"a": [torch.ones(3)], "a/0": torch.zeros(2)},
        {"": {"a": torch.ones(3)}, "a": torch.zeros(2)},
    ],
)
def test_names_that_lead_to_one_place_keep_their_tensors(state: object, tmp_path: Path) -> None:
    arrays: dict = {}
    tree = split(state, arrays)
    write_arrays(tmp_path / "state.npz", arrays)
    assert same(joined(json.loads(json.dumps(tree)), read_arrays(tmp_path / "state.npz")), state)


def test_the_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"a/b": np.arange(3.0), "c": np.ones((2, 2))}
    for name in ("one", "other"):
        write_arrays(tmp_path / name, arrays)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    np.testing.assert_array_equal(read_arrays(tmp_path / "one")["a/b"], arrays["a/b"])


def test_what_would_grow_in_memory_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "state.npz", zeros=np.zeros(10**6))
    with pytest.raises(RunError, match="it is compressed"):
        read_arrays(tmp_path / "state.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.npz").write_bytes(content)
    with pytest.raises(RunError, match="holds no arrays that load safely"):
        read_arrays(tmp_path / "state.npz")
    with zipfile.ZipFile(tmp_path / "state.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00 what is no header")
    with pytest.raises(RunError, match="holds no arrays that load safely"):
        read_arrays(tmp_path / "state.npz")


def test_a_state_that_names_a_tensor_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no tensor"):
        joined({"a": {"$tensor": "b"}}, {})
