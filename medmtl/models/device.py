"""The device that a network runs on, as a user names it."""

import torch

from medmtl.errors import ConfigError


def device_of(name: str) -> str:
    """The device as torch names it.

    Args:
        name: as torch names it, or `auto`: a GPU if there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:  # as torch says it of each kind of device
        raise ConfigError(f"device {name!r} ({' '.join(str(error).split())[:80]})", fix="use cpu") from None
    return name
