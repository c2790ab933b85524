"""A checkpoint as data: read without running code from it, checked, and written atomically."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medmtl.errors import RunError
from medmtl.files import parse_yaml, written_whole
from medmtl.renamed import with_new_names

# Where a checkpoint keeps the configuration that testing it needs, as YAML text.
CHECKPOINT_KEY = "config"


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
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise RunError(f"{path} is not a checkpoint of medmtl", fix="name another")
    return checkpoint


def config_within(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration kept in a checkpoint, with the names of today.

    Args:
        path: where it was read, for the message.
        checkpoint: what `read_checkpoint` gave.

    Raises:
        RunError: it holds none.
    """
    text = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(text, str):
        raise RunError(f"{path} holds no configuration", fix="name a checkpoint that `medmtl fit` wrote")
    try:
        config = parse_yaml(text)
    except ValueError:
        config = None
    if not isinstance(config, dict) or not all(isinstance(config.get(part), dict) for part in ("data", "model")):
        raise RunError(f"{path} holds no configuration that can be read", fix="name another")
    return with_new_names(config, str(path))


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Replace a checkpoint, atomically."""
    with written_whole(path) as beside:
        torch.save(checkpoint, beside)
