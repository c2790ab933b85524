"""The licence files of an exported folder."""

from pathlib import Path

import medmtl
from medmtl.errors import ConfigError
from medmtl.files import TextError, read_text

NONE = (
    "No licence of these weights was given when they were exported: ask who made them before you use or share them.\n"
    "The licences of the data that they were trained on are named in MODEL_CARD.md, and may ask for more.\n"
)


def license_text(path: Path | None) -> str:
    """The licence of the weights.

    Args:
        path: a text file; None: none was given.

    Raises:
        ConfigError: it cannot be read.
    """
    if path is None:
        return NONE
    try:
        return read_text(path)
    except (OSError, TextError) as error:
        raise ConfigError(f"--license {path} cannot be read ({error})", fix="name a text file") from None


def own_license() -> str:
    """The licence of medmtl, under which its modules are carried."""
    package = Path(medmtl.__file__).parent
    return read_text(next(path for place in (package, package.parent) if (path := place / "LICENSE").is_file()))
