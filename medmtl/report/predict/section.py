"""The section of a predicted image on a page: its picture, a slider through it, its verdicts and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from medmtl.ood.reason import Compared
from medmtl.report.html import Picture, p_in_words
from medmtl.report.stack import Stack
from medmtl.results.prediction import PredictedCase


@dataclass(frozen=True)
class Section:
    """A predicted image as `case.html.j2` shows it.

    Attributes:
        case: its record.
        picture: its slices.
        warnings: those that are said of it alone.
        stack: a strip to leaf through, where there is one.
        limit: spreads from the median at which the track of a descriptor ends.
    """

    case: PredictedCase
    picture: Picture
    warnings: Sequence[str]
    stack: Stack | None = None
    limit: ClassVar[float] = 6.0

    @property
    def p_words(self) -> str:
        """The p-value of the image in a sentence."""
        return p_in_words(self.case.p_value, self.case.calibration_patients)

    def place(self, deviation: float) -> float:
        """Where a deviation lies on the track of a descriptor, in per cent of its length."""
        return round(50 + 50 * min(max(deviation / self.limit, -1.0), 1.0), 1)

    @staticmethod
    def outside(described: Mapping[str, Any]) -> bool:
        """Whether a descriptor of the mask is outside its range in training."""
        return Compared(**described).outside
