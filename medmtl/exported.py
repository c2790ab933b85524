"""How an exported folder is known."""

from pathlib import Path

RECORD = "medmtl.json"  # what it says of itself


def is_exported(path: Path) -> bool:
    """Whether a path is a folder that `medmtl export` wrote."""
    return (path / RECORD).is_file()
