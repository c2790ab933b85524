"""Files written atomically: under a temporary name, then renamed, so that a reader never reads half of one."""

import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` if the block ends without an error.

    Args:
        path: the file's final place; its folder is made if need be.

    Yields:
        The temporary path, with the same suffix.

    Raises:
        OSError: it cannot be written, on a full disk for example; `filename` is `path`, which is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with naming(path, beside):
            yield beside
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, beside: Path | None = None) -> Iterator[None]:
    """Let errors of the system within the block name a file, as those of a full disk do not do by themselves.

    Args:
        path: the file, or folder, that is written.
        beside: its temporary name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or (beside is not None and error.filename == str(beside)):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with written_whole(path) as beside:
        beside.write_text(text)


def remove_others(folder: Path, pattern: str, kept: Container[Path] = ()) -> None:
    """Remove files that an earlier command left in a folder.

    Nothing is removed where the folder is a link: what it leads to may be anyone's.

    Args:
        folder: the folder.
        pattern: of their names.
        kept: paths that stay.
    """
    for path in [] if folder.is_symlink() else list(folder.glob(pattern)):
        if path not in kept:
            path.unlink()
