"""Errors for users: one line each, with the case, file or key and what to do."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def reported() -> Iterator[None]:
    """Print an error of the block as one line on standard error, as every command does, and log to there.

    Raises:
        SystemExit: 1 after an error, 2 after wrong usage.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("medmtl").setLevel(logging.INFO)
    try:
        yield
    except MedMTLError as error:
        sys.stderr.write(f"medmtl: error: {error}\n")
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None


def on_one_line(text: str) -> str:
    """A text without what would break its line or steer a terminal, as names of files and tasks may hold it."""
    return "".join(
        each if each.isprintable() else " " if each.isspace() else each.encode("unicode_escape").decode()
        for each in text
    )
