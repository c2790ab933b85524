"""What a command does before it begins: UTF-8, and imports of large libraries without garbage collection."""

import gc
import locale
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper


def in_utf8() -> None:
    """Have this process and those that it starts use UTF-8, whatever the locale.

    What medmtl reads and writes itself is UTF-8 anyway (`medmtl.files`); names of files, and what libraries write,
    follow the locale. Python decides on that as it starts: where it is not UTF-8 the same command starts again. What
    the terminal cannot show is then written as its code.
    """
    names = {sys.getfilesystemencoding(), locale.getencoding()}
    if not all(name.lower().replace("_", "-") in ("utf-8", "utf8") for name in names) and not sys.flags.utf8_mode:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries within this block, without garbage collection then and without theirs in every later one.

    The million objects of torch, Lightning and MONAI live as long as the process. To look through them again and again
    is a sixth of the time of importing them, and afterwards half of the time of drawing a figure.
    """
    if not gc.isenabled():  # the caller's choice
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:  # not for a later command of the same process, whose garbage would be kept
            gc.freeze()
        gc.enable()


def call_pickled(function: bytes) -> None:
    """Call a function in a process that has just been started, with the imports that it needs.

    Args:
        function: the function, pickled by the process that started this one: only reading it imports its module.
    """
    with importing():
        read = pickle.loads(function)
    read()
