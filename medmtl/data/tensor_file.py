"""Tensors in one file that is mapped into memory, so that only what is touched is read.

The layout is that of safetensors, whose libraries open it: the length of a header in eight bytes, the header in JSON,
and the tensors one after the other.
"""

import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmtl.files import written_whole

DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH = 8  # bytes before the header
ABOUT = "__metadata__"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: str) -> None:
    """Write a file whole, and to the disk itself: a crash of the machine leaves none of it or all.

    Args:
        path: the file.
        tensors: by name.
        about: a text that says what they are.

    Raises:
        OSError: it cannot be written.
    """
    header: dict[str, object] = {ABOUT: {"about": about}}
    end = 0
    # The wider ones first, so that each begins at a multiple of its width.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH)
    with written_whole(path) as beside, beside.open("wb") as stream:
        stream.write(len(text).to_bytes(LENGTH, "little") + text)
        for _, tensor in ordered:
            stream.write(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
        stream.flush()
        os.fsync(stream.fileno())


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Map the tensors of a file; what is written into them stays in this process.

    The file is mapped as long as one of them lives, and may be replaced or removed meanwhile.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is not whole.
    """
    with path.open("rb") as stream:
        held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)  # ValueError: it is empty
    first = LENGTH + int.from_bytes(held[:LENGTH], "little")
    if first > len(held):
        raise ValueError("it ends within its header")
    try:
        header = json.loads(held[LENGTH:first])
        del header[ABOUT]
        last = max(each["data_offsets"][1] for each in header.values())
        found = {name: _mapped(held, first, each) for name, each in header.items()}
    except (AttributeError, LookupError, TypeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"its header is another one: {error}") from None
    if first + last != len(held):
        raise ValueError(f"it has {len(held)} bytes in place of {first + last}")
    return found


def _mapped(held: mmap.mmap, first: int, entry: Mapping[str, Any]) -> torch.Tensor:
    dtype, shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if not 0 <= start <= end <= len(held) - first or end - start != count * dtype.itemsize:
        raise ValueError("a tensor lies beyond its end")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(held, dtype=dtype, count=count, offset=first + start).reshape(shape)
