"""A checkpoint as data: read without running code from it, checked, and written atomically."""

import os
import zipfile
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
        RunError: it is missing, damaged, or not a checkpoint.
    """
    checkpoint = read_archive(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise RunError(f"{path} is not a checkpoint of medmtl", fix="name another")
    return checkpoint


def read_archive(path: Path) -> Any:
    """What a file of torch holds, read without running code from it.

    Raises:
        RunError: it is missing, damaged, or holds more than data.
    """
    if is_damaged(path):
        raise RunError(
            f"{path} is damaged: what it holds is not what was written", fix="name another, or copy it again"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"the checkpoint {path} does not exist", fix="correct the path") from None
    except Exception as error:  # torch raises many kinds for a file that is none, some with unsafe advice
        raise RunError(f"{path} is not a checkpoint that loads safely", fix="name another") from error


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


def is_damaged(path: Path) -> bool:
    """Whether weights or state in a checkpoint are not what was written.

    torch keeps a digest (CRC-32) of every tensor, and of what is around them, in all its files, and does not check it.
    A single flipped bit in a weight would otherwise pass.

    Args:
        path: a file; what is no archive of torch is left to others.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (OSError, zipfile.BadZipFile):
        return False
    except Exception:  # what a flipped bit in a header makes `zipfile` raise: zlib.error, NotImplementedError, ...
        return True


def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """The name of the first tensor of a state that holds NaN or an infinity; None where all numbers are finite."""
    numbers = {
        name: each for name, each in state.items() if isinstance(each, torch.Tensor) and each.is_floating_point()
    }
    finite = [each.isfinite().all() for each in numbers.values()]
    if not finite or bool(torch.stack(finite).all()):  # one transfer from the device
        return None
    return next(name for name, each in zip(numbers, finite, strict=True) if not each)


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Replace a checkpoint, atomically: under a temporary name in its own folder, then renamed.

    Raises:
        OSError: it cannot be written; the earlier one stays.
    """
    with written_whole(path) as beside, beside.open("wb") as stream:
        try:
            torch.save(checkpoint, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides it
                raise error.__context__ from None
            raise
        stream.flush()
        os.fsync(stream.fileno())  # a network drive may say only now that it is full
