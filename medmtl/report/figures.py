"""The figures of the report, each a matplotlib `Figure` of its own: legible on a page and in a paper's column."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from medmtl.calibration.bins import BinTable
from medmtl.calibration.metrics import ace, ece
from medmtl.report.results import CaseResult, tasks_of
from medmtl.report.theme import (
    FOREIGN,
    INK,
    LINE,
    QUIET,
    REGIONS,
    SCORE_AXES,
    SCORES,
    WIDTH_INCHES,
    fitting,
    literal,
    panel_grid,
    style,
    task_colours,
)

FEW_VOXELS = 100


def reliability_diagram(tables: Mapping[str, BinTable], region: str, scaled: bool = False) -> Figure:
    """Observed frequency against predicted probability, a panel a task, with the voxels of each bin beneath.

    Args:
        tables: task -> bins, of all tasks of the run (their order gives the colours).
        region: the region that the bins count, "whole" or "band".
        scaled: whether they were taken after scaling.
    """
    colours = task_colours(list(tables))
    with style():
        columns, groups = panel_grid(len(tables), at_most=5)
        panel = min(2.2 if columns > 1 else 3.1, (WIDTH_INCHES - 0.5) / columns)
        size = (0.5 + panel * columns, (1.45 * panel + 0.55) * groups + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        title = f"Reliability over the {REGIONS.get(region, region)}{', after scaling' if scaled else ''}"
        figure.suptitle(title, fontsize=10)
        grid = figure.add_gridspec(2 * groups, columns, height_ratios=[2.6, 1] * groups)
        most = max((int(np.max(np.asarray(table.count), initial=0)) for table in tables.values()), default=0)
        for index, (task, table) in enumerate(tables.items()):
            row, column = divmod(index, columns)
            upper = figure.add_subplot(grid[2 * row, column])
            lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
            _reliability(upper, table, colours[task])
            upper.set_title(literal(task), fontsize=fitting(task))
            _bin_counts(lower, table, colours[task], most)
            lower.set_xlabel("predicted probability")
            for axes, label in ((upper, "observed frequency"), (lower, "voxels")):
                if column:
                    axes.tick_params(labelleft=False)
                else:
                    axes.set_ylabel(label)
    return figure


def spectra(signatures: Mapping[str, NDArray[np.float64]], layer: str, tasks: Sequence[str]) -> Figure:
    """Spectral signatures side by side, a column a source, and beneath how they differ from the mean of the tasks.

    Args:
        signatures: source -> signatures `(cases, K)`: log singular values, L2-normalised.
        layer: the layer of the network that they describe.
        tasks: all tasks of the run in order (for the colours); other sources are drawn in grey.
    """
    signatures = {source: values for source, values in signatures.items() if len(values)}
    colours = {**dict.fromkeys(signatures, FOREIGN), **task_colours(tasks)}
    medians = {source: np.median(values, axis=0) for source, values in signatures.items()}
    known = [medians[task] for task in tasks if task in medians] or list(medians.values())
    centre = np.mean(known, axis=0) if known else np.zeros(1)
    with style():
        columns, groups = panel_grid(len(signatures), at_most=6)
        width = 0.8 + columns * min(2.2 if columns > 1 else 3.1, (WIDTH_INCHES - 0.8) / columns)
        figure = Figure(figsize=(width, 3.3 * groups + 0.5), layout="constrained")
        figure.suptitle(f"Spectral signatures of layer {literal(layer)}", fontsize=10)
        figure.supxlabel("rank of the singular value", fontsize=8.5)
        grid = figure.add_gridspec(2 * groups, columns)
        leftmost: dict[int, Axes] = {}
        for index, (source, values) in enumerate(signatures.items()):
            row, column = divmod(index, columns)
            others = [median for other, median in medians.items() if other != source]
            for level, offset in enumerate((np.zeros(1), centre)):
                axes = figure.add_subplot(grid[2 * row + level, column], sharey=leftmost.get(level))
                leftmost.setdefault(level, axes)
                _spectra(axes, values - offset, [median - offset for median in others], colours[source])
                axes.tick_params(labelleft=not column, labelbottom=level == 1)
                if level == 0:
                    axes.set_title(literal(source), fontsize=fitting(source), pad=16)
                    axes.text(0.5, 1.03, f"n = {len(values)}", transform=axes.transAxes, ha="center", color=QUIET)
                if not column:
                    axes.set_ylabel(("log singular value\n(unit length)", "difference from\nthe tasks' mean")[level])
    return figure


def score_distributions(results: Sequence[CaseResult], name: str, threshold: float | None) -> Figure:
    """One out-of-distribution score of every case, a row a source.

    Args:
        results: all cases.
        name: the score, "spectral", "entropy" or "max_softmax".
        threshold: cases above it are flagged; None or infinite = no line is drawn.
    """
    values: dict[str, list[float]] = {}
    for result in sorted(results, key=lambda result: result.expected):
        values.setdefault(result.source, []).append(result.scores.get(name, math.nan))
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.95 + 0.32 * max(len(values), 1)), layout="constrained")
        axes = figure.add_subplot()
        strips(axes, values, task_colours(tasks_of(results)))
        axes.set_title(SCORES.get(name, name), loc="left")
        axes.set_xlabel(f"{SCORE_AXES.get(name, name)}   (higher = more foreign)")
        if threshold is not None and math.isfinite(threshold):
            axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
            axes.set_title("flagged right of the dashed line", loc="right", fontsize="small", fontweight="normal")
    return figure


def dice_by_task(results: Sequence[CaseResult]) -> Figure:
    """Dice of every test case, a row a task."""
    values: dict[str, list[float]] = {task: [] for task in tasks_of(results)}
    for result in results:
        if result.expected == "in" and result.dice is not None:
            values[result.source].append(result.dice)
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.75 + 0.32 * max(len(values), 1)), layout="constrained")
        axes = figure.add_subplot()
        strips(axes, values, task_colours(list(values)))
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("Dice")
    return figure


def roc(results: Sequence[CaseResult]) -> Figure:
    """Receiver operating characteristic of every score, with out of distribution as the positive class."""
    names = list(dict.fromkeys(score for result in results for score in result.scores))
    looks = ((INK, "-", 2.2), ("#7A8290", (0, (5, 2)), 1.6), ("#7A8290", (0, (1, 1.2)), 1.6), ("#A8AEB8", "-", 1.2))
    with style():
        figure = Figure(figsize=(4.8, 4.3), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, zorder=0)
        for index, name in enumerate(names):
            scored = [r for r in results if math.isfinite(r.scores.get(name, math.nan))]
            foreign = [result.expected == "out" for result in scored]
            if len(set(foreign)) < 2:
                continue
            values = [result.scores[name] for result in scored]
            false_alarms, detections, _ = roc_curve(foreign, values, drop_intermediate=False)
            colour, dashes, width = looks[index % len(looks)]
            label = f"{SCORES.get(name, name)}, AUROC {roc_auc_score(foreign, values):.3f}"
            (line,) = axes.plot(false_alarms, detections, color=colour, linestyle=dashes, linewidth=width, label=label)
            line.set_zorder(9 - index)
        if len(axes.lines) > 1:
            axes.legend(loc="lower right")
        else:
            axes.text(0.5, 0.5, "needs familiar and foreign cases", ha="center", va="center", color=QUIET)
        axes.set(xlabel="familiar cases flagged", ylabel="foreign cases flagged", aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
    return figure


def reliability_points(table: BinTable) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """What a reliability diagram draws of a table: its filled bins, `(filled,)` each.

    Returns:
        Mean predicted probability, observed frequency, and where a bin holds fewer than `FEW_VOXELS` voxels.
    """
    count = np.asarray(table.count, dtype=np.float64)
    filled = count > 0
    probability = np.asarray(table.probability)[filled] / count[filled]
    observed = np.asarray(table.positives)[filled] / count[filled]
    return probability, observed, count[filled] < FEW_VOXELS


def _reliability(axes: Axes, table: BinTable, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, zorder=1)
    probability, observed, few = reliability_points(table)
    axes.bar(
        probability,
        observed - probability,
        bottom=probability,
        width=0.8 / max(len(table.count), 1),
        color=colour,
        alpha=0.28,
        zorder=2,
    )
    axes.plot(probability, observed, color=colour, linewidth=1.1, zorder=3)
    axes.scatter(probability, observed, s=16, color=np.where(few, "white", colour), edgecolor=colour, zorder=4)
    text = f"ECE {ece(table):.3f}\nACE {ace(table):.3f}" if len(observed) else "no voxels"
    above = bool(np.mean(observed - probability) > 0) if len(observed) else False
    x, y, across, up = (0.97, 0.04, "right", "bottom") if above else (0.05, 0.96, "left", "top")
    axes.text(x, y, text, transform=axes.transAxes, ha=across, va=up, linespacing=1.35)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.tick_params(labelbottom=False)


def _spectra(axes: Axes, values: NDArray[np.float64], others: Sequence[NDArray[np.float64]], colour: str) -> None:
    ranks = np.arange(1, values.shape[1] + 1)
    for other in others:
        axes.plot(ranks, other, color=LINE, linewidth=0.9, zorder=1)
    axes.plot(ranks, values.T, color=colour, linewidth=0.5, alpha=0.4, zorder=2)
    axes.plot(ranks, np.median(values, axis=0), color=colour, linewidth=1.8, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _bin_counts(axes: Axes, table: BinTable, colour: str, most: int) -> None:
    count = np.asarray(table.count)
    edges = np.linspace(0, 1, len(count) + 1)
    axes.bar(edges[:-1], count, width=np.diff(edges) * 0.86, align="edge", color=colour, alpha=0.55)
    axes.set_ylim(0.7, max(2 * most, 10))
    axes.set_yscale("log")
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def strips(axes: Axes, values: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    """A row a source: every case a dot, a bar from the lower to the upper quartile, a line at the median."""
    generator = np.random.default_rng(0)
    labels = []
    for row, (source, cases) in enumerate(values.items()):
        colour = colours.get(source, FOREIGN)
        known = np.array([value for value in cases if math.isfinite(value)])
        undefined = len(cases) - len(known)
        labels.append(f"{literal(source)}  (n = {len(known)}{f', {undefined} undefined' if undefined else ''})")
        if known.size:
            lower, middle, upper = np.quantile(known, (0.25, 0.5, 0.75))
            axes.barh(row, upper - lower, left=lower, height=0.56, color=colour, alpha=0.2, linewidth=0)
            axes.plot([middle, middle], [row - 0.28, row + 0.28], color=colour, linewidth=2, solid_capstyle="butt")
        heights = row + generator.uniform(-0.2, 0.2, known.size)
        size = 22 if known.size <= 50 else 8
        axes.scatter(known, heights, s=size, color=colour, alpha=0.85, edgecolor="white", linewidth=0.4, zorder=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
