"""The terminal: what commands print there is shown as it is, whatever names of files, tasks and cases hold."""

from rich.console import Console


def terminal(stderr: bool = False, width: int | None = None) -> Console:
    """A console that reads no markup, emoji or highlighting into a text: `[/x]` is the name of a folder.

    Args:
        stderr: print on standard error.
        width: in characters; None: that of the terminal.
    """
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)
