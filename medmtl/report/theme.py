"""How figures look and what things are called in them: one colour a task, grey for what is foreign, plain words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

# Okabe and Ito's colours for the first six tasks, Paul Tol's "muted" after them: both are safe for colour blindness.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#882255", "#44AA99", "#332288", "#999933", "#661100", "#AA4499"),
)
FOREIGN = "#5F6670"
INK, QUIET, LINE = "#1F2430", "#6B7280", "#D5D9E0"
WIDTH_INCHES = 8.4
DOTS_PER_INCH = 200

SCORES = {
    "spectral": "Spectral signature (OODM)",
    "entropy": "Mean foreground entropy",
    "max_softmax": "Max softmax",
}
SCORE_AXES = {
    "spectral": "OODM: distance to the nearest training signature",
    "entropy": "mean entropy over the predicted foreground (nats)",
    "max_softmax": "1 \N{MINUS SIGN} largest class probability, mean over the predicted foreground",
}
REGIONS = {"whole": "whole volume", "band": "band of 5 mm around the organ"}
METRICS = {"ece": "ECE", "ace": "ACE", "mce": "MCE", "brier": "Brier", "nll": "NLL"}

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def task_colours(tasks: Sequence[str]) -> dict[str, str]:
    """One colour for each task, by its place: give all tasks of a run in the same order everywhere.

    Args:
        tasks: the names of all in-distribution tasks.

    Returns:
        Name -> hexadecimal colour. What is not among the tasks is drawn in `FOREIGN`.
    """
    return dict(zip(tasks, cycle(PALETTE), strict=False))


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style inside the block, whatever the user's matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def to_png(figure: Figure, note: str = "") -> bytes:
    """Render a figure.

    Args:
        figure: the figure.
        note: what must be said of its data wherever it is shown ("Digital phantoms, not patients"); written under
            it.

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


def literal(text: str) -> str:
    """A name that matplotlib draws as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
