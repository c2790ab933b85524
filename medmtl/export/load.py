"""Load an exported folder: what it holds becomes the same parts as those of a run."""

from pathlib import Path

from medmtl.building import building
from medmtl.errors import RunError
from medmtl.export.networks import network_of
from medmtl.export.record import AGAIN, Record, read_record
from medmtl.export.restore import restore
from medmtl.models.device import device_of
from medmtl.models.parts import Parts


def load_exported(folder: Path, device: str = "auto", trust: bool = False) -> tuple[Parts, Record]:
    """What segments images and gives verdicts, and the record of the folder.

    Args:
        folder: that `medmtl export` wrote.
        device: as torch names it, or `auto`: a GPU if there is one.
        trust: build any class that the folder names, and load a program of torch, which runs its author's code.

    Raises:
        RunError: the folder is damaged, or names what is not accepted.
        ConfigError: a package is not installed, or there is no such device.
    """
    chosen = device_of(device)
    record = read_record(folder)
    with building(lambda reason: RunError(f"{folder} holds a network that cannot be used {reason}"[:300], fix=AGAIN)):
        network = network_of(folder, record, chosen, trust)
    return restore(folder, record, network.to(chosen)), record
