"""Look: how a line with markers is drawn in figures whose colours belong to the tasks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medmtl.errors import ConfigError

# Filled markers of matplotlib: the figures draw a white edge around them.
MARKERS = tuple("ov^<>8sp*hHDdPX")


@dataclass(frozen=True)
class Look:
    """How an arm or an OOD score is drawn: without a colour, since colours belong to the tasks.

    Attributes:
        marker: matplotlib's letter of the marker, one of `MARKERS`.
        dashes: matplotlib's line style: solid, or an offset and the lengths of dashes and gaps, in points.
        shade: a grey, hexadecimal.
    """

    marker: str
    dashes: Literal["-"] | tuple[float, tuple[float, ...]]
    shade: str

    def __post_init__(self) -> None:
        """Check that it can be drawn.

        Raises:
            ConfigError: names the attribute and what it may be.
        """
        if self.marker not in MARKERS:
            raise ConfigError(f"marker={self.marker!r}", fix=f"use one of {' '.join(MARKERS)}")
        if not re.fullmatch("#[0-9A-Fa-f]{6}", self.shade):
            raise ConfigError(f"shade={self.shade!r}", fix='use six hexadecimal digits, such as "#6B7280"')
        if self.dashes != "-" and not _is_pattern(self.dashes):
            raise ConfigError(f"dashes={self.dashes!r}", fix='use "-" or, for example, (0, (5, 2))')

    def to_dict(self) -> dict[str, Any]:
        """The look as JSON holds it."""
        dashes = self.dashes if isinstance(self.dashes, str) else [self.dashes[0], list(self.dashes[1])]
        return {"marker": self.marker, "dashes": dashes, "shade": self.shade}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Look":
        """The look that `to_dict` gave.

        Raises:
            ConfigError: it cannot be drawn.
        """
        dashes = state["dashes"]
        if not isinstance(dashes, str):
            offset, lengths = dashes
            dashes = (offset, tuple(lengths))
        return cls(state["marker"], dashes, state["shade"])


def _is_pattern(dashes: Any) -> bool:
    """Whether it is an offset and the lengths of dashes and gaps."""
    try:
        offset, lengths = dashes
        return offset >= 0 and len(lengths) > 0 and not len(lengths) % 2 and min(lengths) > 0
    except (TypeError, ValueError):
        return False
