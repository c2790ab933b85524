"""Images whose verdict is wrong: which they are, in what order they are shown, and what is said of one."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from medmtl.report.html import number, p_in_words

FIRST = 3  # cases that a page names to look at first
MISSED, FALSE_ALARM = "missed", "false alarm"
KINDS = {
    MISSED: "an OOD image that was accepted as in-distribution",
    FALSE_ALARM: "an in-distribution image that was flagged as OOD",
}


class Decided(Protocol):
    """An image with its verdict."""

    @property
    def p_value(self) -> float | None:
        """Conformal p-value."""

    @property
    def rejected(self) -> bool | None:
        """Whether it was flagged; None where that could not be decided."""


Each = TypeVar("Each", bound=Decided)


def wrong(images: Sequence[Each], is_ood: Callable[[Each], bool | None]) -> dict[str, list[Each]]:
    """Kind -> the images whose verdict is wrong, those first that the score puts farthest on the wrong side.

    Args:
        images: with their verdicts.
        is_ood: whether an image should be flagged; None for one that may be either.
    """
    by_p = sorted(images, key=lambda each: each.p_value or 0.0)
    return {
        MISSED: [each for each in by_p[::-1] if is_ood(each) is True and each.rejected is False],
        FALSE_ALARM: [each for each in by_p if is_ood(each) is False and each.rejected is True],
    }


def said_of(
    kind: str,
    p_value: float | None,
    patients: Collection[int],
    score: float | None,
    threshold: float | None,
    digits: int = 3,
) -> str:
    """What is wrong with a verdict, a sentence without a full stop.

    Args:
        kind: one of `KINDS`.
        p_value: of the image.
        patients: of each group of calibration patients.
        score: of the image; None where it has none.
        threshold: of the score.
        digits: of the score, after the point.
    """
    words = f"{KINDS[kind]}: {p_in_words(p_value, patients)}"
    if score is None or threshold is None:
        return words
    return f"{words}, score {number(score, digits)} with the threshold at {number(threshold, digits)}"
