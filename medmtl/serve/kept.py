"""What is kept between requests: folders of the server's own, a bounded number for a bounded time."""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Generic, TypeVar

from medmtl.serve.answers import RequestError

T = TypeVar("T")


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    folder: Path
    since: float


class Kept(Generic[T]):
    """Values with a folder each. The oldest make room for new ones, and each is removed when its time is over.

    Args:
        what: they are, for messages.
        most: how many.
        seconds: for how long.
        clock: gives the time in seconds.
    """

    def __init__(self, what: str, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._most, self._seconds, self._clock = what, most, seconds, clock
        self._entries: dict[Hashable, _Entry[T]] = {}
        self._lock = threading.Lock()

    def add(self, key: Hashable, value: T, folder: Path) -> None:
        """Keep a value, in place of one of the same key.

        Args:
            key: by which it is found.
            value: what is found.
            folder: holds its files, and is removed with it.
        """
        with self._lock:
            self._drop(key)
            while len(self._entries) >= self._most:
                self._drop(next(iter(self._entries)))
            self._entries[key] = _Entry(value, folder, self._clock())

    def get(self, key: Hashable) -> T:
        """The value of a key.

        Raises:
            RequestError: there is none, or no longer.
        """
        self.expire()
        with self._lock:
            found = self._entries.get(key)
        if found is None:
            raise RequestError(
                HTTPStatus.NOT_FOUND, f"this {self._what} is not kept, or no longer", "send the scan again"
            )
        return found.value

    def remove(self, key: Hashable) -> None:
        """Remove a value and its files.

        Raises:
            RequestError: there is none, or no longer.
        """
        self.get(key)
        with self._lock:
            self._drop(key)

    def expire(self) -> None:
        """Remove those whose time is over."""
        with self._lock:
            over = self._clock() - self._seconds
            for key in [key for key, entry in self._entries.items() if entry.since <= over]:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            shutil.rmtree(entry.folder, ignore_errors=True)


def new_folder(home: Path) -> Path:
    """A folder with a name that nobody can guess, which stands for what it holds."""
    folder = home / secrets.token_hex(16)
    folder.mkdir(mode=0o700)
    return folder
