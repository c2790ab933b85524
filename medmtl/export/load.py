"""Load an exported folder: what it holds becomes the same parts as those of a run."""

from pathlib import Path

import torch

from medmtl.export.networks import network_of
from medmtl.export.record import Record, read_record
from medmtl.export.restore import restore
from medmtl.models.parts import Parts


def load_exported(folder: Path, device: str = "auto", trust: bool = False) -> tuple[Parts, Record]:
    """What segments images and gives verdicts, and the record of the folder.

    Args:
        folder: that `medmtl export` wrote.
        device: as torch names it, or `auto`: a graphics processor if there is one.
        trust: build any class that the folder names, and load a program of torch, which runs its author's code.

    Raises:
        RunError: the folder is damaged, or names what is not accepted.
        ConfigError: a package is not installed.
    """
    record = read_record(folder)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return restore(folder, record, network_of(folder, record, chosen, trust)), record
