"""Locks between processes, which end with the process that holds them, however it ends."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medmtl.errors import RunError

logger = logging.getLogger(__name__)

NAME = ".lock"  # of the lock file in a folder; a killed process leaves it there, no longer locked


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold a lock file for the length of a block, as the only process.

    Args:
        path: the lock file; it is made if need be, and stays.
        wait: wait until no other process holds it.

    Raises:
        BlockingIOError: another process holds it and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


@contextmanager
def only_writer(folder: Path, new: bool = False, keep: bool = False, option: str = "--run") -> Iterator[None]:
    """Write into a folder as the only process, for the length of a block.

    The folder is made if need be, and removed afterwards if it was made here and nothing has been written into it.

    Args:
        folder: the folder.
        new: the folder must not exist.
        keep: do not remove it.
        option: of the command line, that names the folder.

    Raises:
        RunError: another process writes into it, or it cannot be written to.
        FileExistsError: it exists, and should be new.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=not new)
        stream = _locked_stream(folder)
    except OSError as error:
        if new and isinstance(error, FileExistsError):
            raise
        why = f"{folder} cannot be written to ({error.strerror})"
        raise RunError(why, fix=f"choose another folder with {option}, or make room there") from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()  # while it is locked; another process sees below that its file is gone
        stream.close()
        for each in () if keep else missing:
            with suppress(OSError):  # it is not empty
                each.rmdir()


def _locked_stream(folder: Path) -> IO[str]:
    """The folder's lock file, locked.

    Raises:
        RunError: another process holds it.
    """
    while True:
        stream = (folder / NAME).open("a")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            fix = "wait until it ends, or name another folder"
            raise RunError(f"another process is writing into {folder}", fix=fix) from None
        except OSError as error:  # some network drives have no locks
            logger.warning("%s cannot be locked (%s): start no second command in it", folder, error.strerror)
            return stream
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), (folder / NAME).stat()):
                return stream
        stream.close()  # the process that held it has removed it meanwhile
