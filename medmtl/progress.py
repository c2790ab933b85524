"""One line that says how far a command is and how long it will take; a line a minute where nobody watches."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import ClassVar, TypeVar

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from medmtl.terminal import terminal

logger = logging.getLogger(__name__)

MINUTE = 60.0  # seconds between two lines where the output is no terminal
Item = TypeVar("Item")


class ProgressLine:
    """How far a part of a command is: on a terminal one line that changes, elsewhere a line of the log a minute.

    Only one is shown at a time: a part that begins takes the place of the one before.

    Args:
        what: the part, such as `loading`.
        total: how many there are to do.
        of: what is counted, such as `cases`.
        clock: gives the time in seconds.
    """

    _shown: ClassVar["ProgressLine | None"] = None

    def __init__(self, what: str, total: int, of: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.total, self.of, self._clock = what, total, of, clock
        self.done = 0
        self._began = self._said = clock()
        self._lock = Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def advance(self, done: int = 1, detail: str = "", left: float | None = None) -> None:
        """Count what has been done; several threads may call it.

        Args:
            done: how many more.
            detail: what to say beside it.
            left: seconds that the command will still take; None: as many for each as so far.
        """
        with self._lock:
            self.done += done
            if left is None and self.done:
                left = (self._clock() - self._began) / self.done * (self.total - self.done)
            self._show(f"{self.done:,} of {self.total:,} {self.of}{detail}{ahead(left)}")
            if self.done >= self.total:
                self._close()

    def say(self, detail: str, left: float | None = None) -> None:
        """Say something while nothing is finished."""
        with self._lock:
            self._show(f"{self.done:,} of {self.total:,} {self.of}{detail}{ahead(left)}")

    def close(self) -> None:
        """Take the line away."""
        with self._lock:
            self._close()

    def _show(self, text: str) -> None:
        console = terminal(stderr=True)
        if not console.is_terminal:
            if self._clock() - self._said >= MINUTE:
                self._said = self._clock()
                logger.info("%s: %s", self.what, text)
            return
        if self._bar is None:
            if ProgressLine._shown is not None:
                ProgressLine._shown.close()
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(self.what, total=self.total, text=text)
            self._bar.start()
            ProgressLine._shown = self
        assert self._task is not None
        self._bar.update(self._task, completed=self.done, text=text)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if ProgressLine._shown is self:
            ProgressLine._shown = None


def watched(items: Iterable[Item], what: str, total: int, of: str, show: bool = True) -> Iterator[Item]:
    """The items, with a line on how far they are.

    Args:
        items: what is gone through.
        what: as of `ProgressLine`.
        total: as of `ProgressLine`.
        of: as of `ProgressLine`.
        show: whether this process shows it.
    """
    line = ProgressLine(what, total, of)
    try:
        for item in items:
            yield item
            if show:
                line.advance()
    finally:
        line.close()


def ahead(left: float | None) -> str:
    """What is ahead, as the end of a line; empty if it is not known or nothing.

    Example:
        >>> ahead(None), ahead(41), ahead(700), ahead(9000)
        ('', ', about 41 s left', ', about 12 min left', ', about 2.5 h left')
    """
    return f", about {duration(left)} left" if left is not None and left >= 1 else ""


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
