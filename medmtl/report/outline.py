"""How the outlines of truth, prediction and classes look."""

from typing import Literal, NamedTuple

from matplotlib.lines import Line2D

Dashes = Literal["solid"] | tuple[float, tuple[float, ...]]


class Outline(NamedTuple):
    """How an outline is drawn.

    Attributes:
        label: in the legend.
        colour: hexadecimal.
        dashes: matplotlib's line style.
        width: in points.
    """

    label: str
    colour: str
    dashes: Dashes
    width: float

    @property
    def handle(self) -> Line2D:
        """Its entry in the legend."""
        return Line2D([], [], color=self.colour, linestyle=self.dashes, linewidth=self.width, label=self.label)


DASHED: Dashes = (0, (2.5, 1.5))
TRUTH = Outline("truth", "#FFD92F", "solid", 2.0)
PREDICTION = Outline("prediction", "#00C8F0", DASHED, 1.1)


# Of classes: Okabe and Ito's colours, safe for colour blindness, those first that stand out on a grey image.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
