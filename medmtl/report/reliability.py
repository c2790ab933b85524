"""The reliability diagram: observed frequency of organ against predicted probability."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.definitions import ace, ece
from medmtl.calibration.metrics.intervals import FrequencyBand
from medmtl.calibration.metrics.regions import description_of
from medmtl.report.style import (
    LINE,
    QUIET,
    WIDTH_INCHES,
    fitting,
    literal,
    panel_grid,
    style,
    task_colours,
)

FEW_VOXELS = 100


def reliability_diagram(
    tables: Mapping[str, BinTable],
    region: str,
    scaled: bool = False,
    bands: Mapping[str, FrequencyBand] | None = None,
    title: str = "",
) -> Figure:
    """Observed frequency against predicted probability, a panel a task, with the voxels of each bin beneath.

    Args:
        tables: task -> bins, of all tasks of the run (their order gives the colours).
        region: the region that the bins count, "whole" or "band".
        scaled: whether they were taken after scaling.
        bands: task -> interval of its curve, with dashed edges where it rests on few patients; None draws none.
        title: written above, where the panels are not tasks.
    """
    colours = task_colours(list(tables))
    with style():
        columns, groups = panel_grid(len(tables), at_most=5)
        panel = min(2.2 if columns > 1 else 3.1, (WIDTH_INCHES - 0.5) / columns)
        size = (0.5 + panel * columns, (1.45 * panel + 0.55) * groups + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        title = title or f"Reliability over the {description_of(region)}{', after scaling' if scaled else ''}"
        figure.suptitle(literal(title), fontsize=10)
        grid = figure.add_gridspec(2 * groups, columns, height_ratios=[2.6, 1] * groups)
        most = max((int(np.max(np.asarray(table.count), initial=0)) for table in tables.values()), default=0)
        for index, (task, table) in enumerate(tables.items()):
            row, column = divmod(index, columns)
            upper = figure.add_subplot(grid[2 * row, column])
            lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
            _reliability(upper, table, colours[task], (bands or {}).get(task))
            upper.set_title(literal(task), fontsize=fitting(task))
            _bin_counts(lower, table, colours[task], most)
            lower.set_xlabel("predicted probability")
            for axes, label in ((upper, "observed frequency"), (lower, "voxels")):
                if column:
                    axes.tick_params(labelleft=False)
                else:
                    axes.set_ylabel(label)
    return figure


def reliability_points(table: BinTable) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """The points of a reliability diagram: the filled bins of a table, `(filled,)` each.

    Returns:
        Mean predicted probability, observed frequency, and where a bin holds fewer than `FEW_VOXELS` voxels.
    """
    count = np.asarray(table.count, dtype=np.float64)
    filled = count > 0
    probability = np.asarray(table.probability)[filled] / count[filled]
    observed = np.asarray(table.positives)[filled] / count[filled]
    return probability, observed, count[filled] < FEW_VOXELS


def _reliability(axes: Axes, table: BinTable, colour: str, band: FrequencyBand | None) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, zorder=1)
    probability, observed, few = reliability_points(table)
    axes.vlines(probability, probability, observed, color=LINE, linewidth=3, zorder=1.5)
    text = f"ECE {ece(table):.3f}\nACE {ace(table):.3f}" if len(observed) else "no voxels"
    if band is not None:
        low, high = band.ends[:, np.asarray(table.count) > 0]
        axes.fill_between(probability, low, high, color=colour, alpha=0.22, linewidth=0, zorder=2)
        if not band.reliable:
            for end in (low, high):
                axes.plot(probability, end, color=colour, linewidth=0.7, linestyle=(0, (3, 2)), zorder=2)
        text += f"\nn = {band.patients}" if len(observed) else ""
    axes.plot(probability, observed, color=colour, linewidth=1.1, zorder=3)
    axes.scatter(probability, observed, s=16, color=np.where(few, "white", colour), edgecolor=colour, zorder=4)
    heights = [observed] if band is None else [observed, *band.ends[:, np.asarray(table.count) > 0]]
    free = _free_corner(np.tile(probability, len(heights)), np.concatenate(heights))
    x, y, across, up = {"lower right": (0.97, 0.04, "right", "bottom"), "upper left": (0.05, 0.96, "left", "top")}[free]
    ground = {"facecolor": "white", "alpha": 0.65, "linewidth": 0, "pad": 1}
    axes.text(x, y, text, transform=axes.transAxes, ha=across, va=up, linespacing=1.35, bbox=ground)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.tick_params(labelbottom=False)


def _free_corner(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Which of the two corners off the diagonal holds fewer points, for the text."""
    upper, lower = np.sum((x < 0.5) & (y > 0.6)), np.sum((x > 0.5) & (y < 0.4))
    return "lower right" if upper > lower else "upper left"


def _bin_counts(axes: Axes, table: BinTable, colour: str, most: int) -> None:
    count = np.asarray(table.count)
    edges = np.linspace(0, 1, len(count) + 1)
    axes.bar(edges[:-1], count, width=np.diff(edges) * 0.86, align="edge", color=colour, alpha=0.55)
    axes.set_ylim(0.7, max(2 * most, 10))
    axes.set_yscale("log")
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.yaxis.set_minor_formatter(NullFormatter())
