"""Classes that a configuration names, built: whatever they raise for what they are given becomes one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from medmtl.errors import MedMTLError

OURS = ("medmtl", "jsonargparse", "pytorch_lightning.cli")  # whose frames say nothing of the class that failed


@contextmanager
def building(refused: Callable[[str], MedMTLError]) -> Iterator[None]:
    """Build or call classes of a user's or a library's choice within this block.

    Args:
        refused: makes the error, of a reason such as `torch.optim.AdamW (ValueError: Invalid learning rate: -1)`.

    Raises:
        MedMTLError: what the block raised, or what `refused` makes of another exception. Failures of the system
            (`OSError`) are left as they are.
    """
    try:
        yield
    except (MedMTLError, OSError):
        raise
    except Exception as error:
        known = _chained(error)
        if known is not None:
            raise known from None
        raise refused(_reason(error)) from error


def _chained(error: BaseException | None) -> MedMTLError | None:
    """An error for users behind what a parser made of it."""
    while error is not None and not isinstance(error, MedMTLError):
        error = error.__cause__ or error.__context__
    return error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "ArgumentError":  # the parser's, which names the key
        return text
    kind = type(error).__name__
    culprit = _culprit(error.__traceback__)
    return f"{culprit}{' ' if culprit else ''}({kind}: {text[:300]})"


def _culprit(trace: TracebackType | None) -> str:
    """The class whose construction failed: the outermost that is no part of the machinery."""
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "__init__" and "self" in frame.f_locals:
            owner = type(frame.f_locals["self"])
            if not f"{owner.__module__}.".startswith(tuple(f"{each}." for each in OURS)):
                return f"{owner.__module__}.{owner.__qualname__}"
        trace = trace.tb_next
    return ""
