"""Digests of the content of files, so that what was computed from them is found again and never after they changed."""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Self

from medmtl.data.case import Case
from medmtl.files import TextError, read_json, write_text
from medmtl.io.volume import files_of
from medmtl.typed import typed

# Nanoseconds after a change in which a file may change once more without another time: clocks of file systems tick.
SETTLED = 2_000_000_000

State = tuple[int, int, int, int]


class Digests:
    """SHA-256 of files, each read again only if its size, times or inode have changed.

    The time of modification alone would not do, since programs set it; that of the last change of a file's record is
    the system's own.

    A context, which remembers them when it is left, however that happens.

    Args:
        path: JSON file to remember them in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[State, str]] = {}
        self._new = False
        self._lock = Lock()

    def __enter__(self) -> Self:
        with suppress(OSError, ValueError, TextError):  # not there yet, or damaged: read all again
            self._known = typed(dict[str, tuple[State, str]], read_json(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # threads may go on after an error
            known, new, self._new = dict(self._known), self._new, False
        if new:
            with suppress(OSError):  # what is not remembered is only read again
                write_text(self.path, json.dumps(known, indent=0) + "\n")

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock, which cannot go to another process."""
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a lock of this process."""
        self.__dict__ |= {**state, "_lock": Lock()}

    def case(self, case: Case, meaning: str = "") -> str:
        """Digest of a case's images and labels together, with the channels that are used.

        Args:
            case: the case.
            meaning: what its label values mean, where no configuration says so.

        Raises:
            DataError: a header names voxels that are not there.
            OSError: a file cannot be read.
        """
        digests = [self._volume(path) for path in case.image_files]
        for label in case.labels:
            digests.append(self._volume(label.path) + ("" if label.value is None else f"={label.value}"))
        channels = ",".join(map(str, case.channels))
        return hashlib.sha256(":".join([*digests, channels, *([meaning] if meaning else [])]).encode()).hexdigest()

    def _volume(self, path: Path) -> str:
        digests = [self._file(each) for each in files_of(path)]
        return digests[0] if len(digests) == 1 else hashlib.sha256(":".join(digests).encode()).hexdigest()

    def _file(self, path: Path) -> str:
        found = path.stat()
        state = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        known, digest = self._known.get(str(path), (None, ""))
        if known != state:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if time.time_ns() - max(state[1], state[2]) > SETTLED:
                with self._lock:
                    self._known[str(path)], self._new = (state, digest), True
        return digest
