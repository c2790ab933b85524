"""How an exported folder is known, and which kinds there are."""

from pathlib import Path
from typing import Literal

RECORD = "medmtl.json"  # what it says of itself

Kind = Literal["bundle", "onnx", "program", "safetensors"]


def is_exported(path: Path) -> bool:
    """Whether a path is a folder that `medmtl export` wrote."""
    return (path / RECORD).is_file()
