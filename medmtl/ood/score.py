"""OODScore: what a table, a page or a figure says of an out-of-distribution score."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from medmtl.quantity import Quantity

Role = Literal["", "baseline", "paper"]


@dataclass(frozen=True, kw_only=True)
class OODScore(Quantity):
    """An out-of-distribution score; described once, where it is defined. Higher is always more out-of-distribution.

    Attributes:
        meaning: what its values are, for an axis; empty: the label says it.
        needs_network: whether it needs more of the network than its segmentation.
        role: `paper`: the published method; `baseline`: one that figures always name; empty otherwise.
        reference: where it is described.
    """

    meaning: str = ""
    needs_network: bool = True
    role: Role = ""
    reference: str = ""

    @property
    def axis(self) -> str:
        """What the values are, with their unit."""
        return f"{self.meaning or self.label} ({self.unit})" if self.unit else self.meaning or self.label

    def description(self) -> dict[str, Any]:
        """Everything, with the text for an axis, as JSON takes it."""
        return {**asdict(self), "axis": self.axis}


def in_words(name: str) -> str:
    """A name for readers: underscores become spaces, and the first letter is upper case."""
    return name[:1].upper() + name[1:].replace("_", " ")
