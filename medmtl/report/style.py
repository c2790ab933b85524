"""How figures look: colours, fonts, sizes, and what turns a figure into a PNG file."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from medmtl.look import Look

# Okabe and Ito's colours for the first six tasks, Paul Tol's "muted" after them: both are safe for colour blindness.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#882255", "#44AA99", "#332288", "#999933", "#661100", "#AA4499"),
)
OOD_COLOUR = "#5F6670"
INK, QUIET, LINE = "#1F2430", "#6B7280", "#D5D9E0"


class Shades(NamedTuple):
    """Colours of paper, text and lines.

    Attributes:
        paper: behind everything.
        ink: of text.
        quiet: of axes.
        line: of grids.
    """

    paper: str
    ink: str
    quiet: str
    line: str


LIGHT, DARK = Shades("#FFFFFF", INK, QUIET, LINE), Shades("#101318", "#E6E8EC", "#9AA2AF", "#3A404B")
WIDTH_INCHES = 8.4
DOTS_PER_INCH = 200

# Scores that a figure tells apart by name, in this order; the rest are thin pale lines.
SCORE_LOOKS = (
    Look("o", "-", INK),
    Look("s", (0, (5, 2)), INK),
    Look("^", "-", "#7A8290"),
    Look("D", (0, (1, 1.2)), "#5F6670"),
    Look("v", (0, (4, 1.5, 1, 1.5)), "#8A919C"),
    Look("X", (0, (8, 2)), "#3D434C"),
)

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.facecolor": "auto",
}
_SHADED = {
    "ink": ("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"),
    "quiet": ("axes.edgecolor", "xtick.color", "ytick.color"),
    "line": ("grid.color",),
    "paper": ("figure.facecolor", "axes.facecolor"),
}


def task_colours(tasks: Sequence[str]) -> dict[str, str]:
    """One colour for each task, by its place: give all tasks of a run in the same order everywhere.

    Args:
        tasks: the names of all in-distribution tasks.

    Returns:
        Name -> hexadecimal colour. Everything else is drawn in `OOD_COLOUR`.
    """
    return dict(zip(tasks, cycle(PALETTE), strict=False))


@contextmanager
def style(dark: bool = False) -> Iterator[None]:
    """Draw in the report's style inside the block, whatever the user's matplotlib settings are.

    Args:
        dark: light text on dark paper, as scans are looked at.
    """
    shades = DARK if dark else LIGHT
    shaded: dict[Any, Any] = {key: getattr(shades, shade) for shade, keys in _SHADED.items() for key in keys}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams.update(shaded)
        yield


def to_png(figure: Figure, note: str = "") -> bytes:
    """Render a figure.

    Args:
        figure: the figure.
        note: a remark on its data ("Digital phantoms, not patients"), written under it.

    Returns:
        The bytes of a PNG file; the same figure gives the same bytes.
    """
    with style():
        width, height = figure.get_size_inches()
        place = (1 - 0.06 / width, -0.05 / height)
        under = figure.text(*place, literal(note), ha="right", va="top", fontsize=7.5, color=QUIET)
        box = Bbox.from_extents(0, -0.2 if note else 0, width, height)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches=box, metadata={"Software": None})
        under.remove()
    return buffer.getvalue()


def panel_grid(panels: int, at_most: int) -> tuple[int, int]:
    """How many columns, and how many groups of rows, hold the panels without a nearly empty last row."""
    groups = max(1, math.ceil(panels / at_most))
    return max(1, math.ceil(panels / groups)), groups


def fitting(name: str) -> float:
    """A font size at which a name fits above a narrow panel."""
    return max(6.0, min(9.5, 150 / max(len(name), 1)))


def literal(text: str) -> str:
    """A name that matplotlib draws as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
