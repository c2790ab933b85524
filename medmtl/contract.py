"""How a contract test, such as `check_metric`, reports a broken promise."""

from collections.abc import Callable
from functools import partial


def promises_of(owner: object, kind: str) -> Callable[[bool, str], None]:
    """A function of a condition and its description that raises AssertionError if the condition is false.

    Args:
        owner: the tested instance, named by its class.
        kind: what it is, with its article: "a loss".

    Example:
        >>> promises_of(1.5, "a number")(False, "is whole")
        Traceback (most recent call last):
        AssertionError: float breaks its contract: a number is whole
    """
    return partial(_promise, f"{type(owner).__name__} breaks its contract: {kind}")


def _promise(broken: str, kept: bool, words: str) -> None:
    if not kept:
        raise AssertionError(f"{broken} {words}")
