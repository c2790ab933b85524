"""The terminal: what commands print there is shown as it is, whatever names of files, tasks and cases hold."""

import os

from rich.console import Console

WIDTH = 120  # characters, where the output is no terminal: rich would take 80, in which tables break words


def terminal(stderr: bool = False, width: int | None = None) -> Console:
    """A console that reads no markup, emoji or highlighting into a text: `[/x]` is the name of a folder.

    Args:
        stderr: print on standard error.
        width: in characters; None: that of the terminal.
    """
    console = Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    return console
