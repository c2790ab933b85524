"""State as JSON and arrays: text, numbers and collections in a JSON tree, tensors in an npz file, without pickle."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medmtl.errors import RunError

TENSOR, NUMBER = "$tensor", "$number"  # keys that stand for a tensor of the file, and for what JSON has no number for
Arrays = dict[str, NDArray[Any]]


def split(state: Any, arrays: Arrays, key: str = "") -> Any:
    """What JSON can hold of a state; its tensors are added to `arrays` under the keys that lead to them.

    Args:
        state: text, numbers, tensors, and dicts, lists and tuples of them.
        arrays: key -> array; it grows.
        key: of the state in it.

    Raises:
        TypeError: it holds something else.
    """
    if isinstance(state, torch.Tensor):
        while key in arrays:  # names may hold what separates them
            key += "'"
        arrays[key] = state.detach().cpu().contiguous().numpy()
        return {TENSOR: key}
    if isinstance(state, Mapping):
        return {_text(name): split(each, arrays, f"{key}/{name}" if key else name) for name, each in state.items()}
    if isinstance(state, list | tuple):
        return [split(each, arrays, f"{key}/{number}") for number, each in enumerate(state)]
    if isinstance(state, float):
        return float(state) if math.isfinite(state) else {NUMBER: str(float(state))}
    if state is None or isinstance(state, str | bool | int):
        return state
    raise TypeError(f"{key} is a {type(state).__name__}, which is no text, number or tensor")


def joined(tree: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The inverse of `split`; tuples have become lists.

    Raises:
        ValueError: the tree names an array that is not there, or no number.
    """
    if isinstance(tree, dict):
        if set(tree) == {TENSOR}:
            if tree[TENSOR] not in arrays:
                raise ValueError(f"there is no tensor {tree[TENSOR]!r}")
            return torch.from_numpy(np.array(arrays[tree[TENSOR]]))
        if set(tree) == {NUMBER}:
            return float(tree[NUMBER])
        return {name: joined(each, arrays) for name, each in tree.items()}
    return [joined(each, arrays) for each in tree] if isinstance(tree, list) else tree


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as an npz file, the same bytes for the same arrays."""
    with path.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> Arrays:
    """Read the arrays of an npz file, without unpickling anything.

    Raises:
        RunError: it is none, or would take more memory than its size says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, MemoryError) as error:
        raise RunError(f"{path} holds no arrays that load safely ({error})", fix="export the run again") from None


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no text, and names a part of a state")
    return name
