"""How a contract check, such as `check_metric`, reports a requirement that is not met."""

from collections.abc import Callable
from functools import partial


def requirements(owner: object, kind: str) -> Callable[[object, str], None]:
    """A function of a condition and its description that raises AssertionError if the condition is false.

    Args:
        owner: the checked instance, named by its class.
        kind: what it is, with its article: "a loss".

    Example:
        >>> requirements(1.5, "a number")(False, "is whole")
        Traceback (most recent call last):
        AssertionError: float breaks its contract: a number is whole
    """
    return partial(_require, f"{type(owner).__name__} breaks its contract: {kind}")


def _require(broken: str, met: object, words: str) -> None:
    if not met:
        raise AssertionError(f"{broken} {words}")
