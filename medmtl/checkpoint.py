"""A checkpoint as data: read without running code from it, with one line for a file that is none; written whole."""

from pathlib import Path
from typing import Any

import torch

from medmtl.errors import RunError
from medmtl.files import written_whole


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Args:
        path: a file that `medmtl fit` wrote.

    Raises:
        RunError: it is missing, or not a checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"the checkpoint {path} does not exist", fix="correct the path") from None
    except Exception as error:  # torch raises many kinds for a file that is none, some with unsafe advice
        raise RunError(f"{path} is not a checkpoint that loads safely", fix="name another") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise RunError(f"{path} is not a checkpoint of medmtl", fix="name another")
    return checkpoint


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Replace a checkpoint, atomically."""
    with written_whole(path) as beside:
        torch.save(checkpoint, beside)
