"""Errors for users: one line each, with the case, file or key and what to do."""

import errno
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

INCOMPLETE = 3  # exit code: done, but some input cannot be used, or is rejected where the user asked for that to count


class MedMTLError(Exception):
    """An error that the user can correct; the command line prints it without a traceback.

    Args:
        what: what is wrong and where: the task, case, file, layer or key.
        fix: what to do.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        what, fix = on_one_line(what), on_one_line(fix)
        super().__init__(f"{what}: {fix}" if fix else what)
        self.what, self.fix = what, fix


class DataError(MedMTLError):
    """A data root, case, image or label that cannot be used."""


class ConfigError(MedMTLError):
    """A configuration key or value that cannot be used."""


class RunError(MedMTLError):
    """A run folder or checkpoint that is missing, taken or incomplete."""


class Stopped(BaseException):
    """The user or the system has ended a command: no error, and nothing that code in between should catch.

    Args:
        how: by Ctrl-C, or by the signal that a scheduler or a shutdown sends.
        fix: how to go on.
    """

    def __init__(self, how: Literal["interrupted", "terminated"], fix: str = "") -> None:
        super().__init__(how)
        self.how, self.fix = how, fix


AGAIN = "run the same command again"
SIGNALS = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
MANY = (errno.EMFILE, errno.ENFILE)
ALLOW_MORE = f"allow more (ulimit -n), and {AGAIN}"


@contextmanager
def reported(go_on: str = AGAIN) -> Iterator[None]:
    """Print an error of the block as one line on standard error, as every command does, and log to there.

    Args:
        go_on: what to do after the command was interrupted or terminated, where the block does not say it.

    Raises:
        SystemExit: 1 after an error, 2 after wrong usage; after an interruption 130, and 143 where a scheduler or a
            shutdown ended it, so that nothing goes on that needs its result.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_ToStandardError()])
    logging.getLogger("medmtl").setLevel(logging.INFO)
    try:
        with _terminable():
            yield
    except MedMTLError as error:
        sys.stderr.write(f"medmtl: error: {error}\n")
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except OSError as error:
        sys.stderr.write(f"medmtl: error: {_what_of(error)}\n")
        raise SystemExit(1) from None
    except (Stopped, KeyboardInterrupt) as error:
        stop = error if isinstance(error, Stopped) else Stopped("interrupted")
        sys.stderr.write(f"medmtl: {stop.how}: {stop.fix or go_on}\n")
        raise SystemExit(128 + SIGNALS[stop.how]) from None


class _ToStandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is by then: a line of progress that is shown there moves down for it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """Standard error."""
        return sys.stderr


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise `Stopped` where SIGTERM arrives within the block, so that locks and half-written files are cleared away."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def hold_termination(held: bool) -> None:
    """Let a termination wait, or no longer: a training ends between two of its steps, see `RunCheckpoint`."""
    global _held
    _held = held


_held = False


def _terminate(_number: int, _frame: FrameType | None) -> None:
    if not _held:
        raise Stopped("terminated")


def _what_of(error: OSError) -> str:
    """A failure of the system as one line, with the file and what to do where that is known."""
    what = " ".join((error.strerror or str(error)).split())
    if error.filename is not None:
        what = f"{error.filename}: {what}"
    if error.errno in FULL:
        return f"{what}: make room there, and {AGAIN}"
    if error.errno in MANY:
        return f"{what}: {ALLOW_MORE}"
    return f"{what}: choose a place that can be written to" if error.errno in CLOSED else what


def on_one_line(text: str) -> str:
    """A text without what would break its line or steer a terminal, as names of files and tasks may hold it."""
    return "".join(
        each if each.isprintable() else " " if each.isspace() else each.encode("unicode_escape").decode()
        for each in text
    )
