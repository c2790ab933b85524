"""Quantity: key, label, unit, direction and digits of something that is measured, for tables, pages and figures."""

from dataclasses import dataclass

CUBIC_MM = 1000.0  # in a millilitre


@dataclass(frozen=True)
class Quantity:
    """Something that is measured; described once, where it is defined.

    Attributes:
        key: its name in files and configurations, such as `hd95_mm`.
        label: its name in tables and figures.
        unit: of its values; empty for a number without one.
        higher_is_better: whether a higher value is better; None where neither is.
        digits: after the decimal point.
        short: for the head of a narrow column; the label is used if empty.
    """

    key: str
    label: str
    unit: str = ""
    higher_is_better: bool | None = None
    digits: int = 3
    short: str = ""

    @property
    def axis(self) -> str:
        """The label with its unit, for an axis or the head of a column."""
        return f"{self.label} ({self.unit})" if self.unit else self.label
