"""The figures of the report of a test, each a matplotlib `Figure` that fits a page and a paper's column."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from medmtl.quantity import Quantity
from medmtl.report.style import (
    INK,
    LINE,
    OOD_COLOUR,
    QUIET,
    WIDTH_INCHES,
    fitting,
    literal,
    panel_grid,
    style,
    task_colours,
)
from medmtl.results.case import CaseResult, tasks_of


def spectra(signatures: Mapping[str, NDArray[np.float64]], layer: str, tasks: Sequence[str]) -> Figure:
    """Spectral signatures side by side, a column a dataset, and beneath how they differ from the mean of the tasks.

    Args:
        signatures: dataset -> signatures `(cases, K)`: log singular values, L2-normalised.
        layer: the layer of the network that they describe.
        tasks: all tasks of the run in order (for the colours); other datasets are drawn in grey.
    """
    signatures = {dataset: values for dataset, values in signatures.items() if len(values)}
    colours = {**dict.fromkeys(signatures, OOD_COLOUR), **task_colours(tasks)}
    medians = {dataset: np.median(values, axis=0) for dataset, values in signatures.items()}
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
        for index, (dataset, values) in enumerate(signatures.items()):
            row, column = divmod(index, columns)
            others = [median for other, median in medians.items() if other != dataset]
            for level, offset in enumerate((np.zeros(1), centre)):
                axes = figure.add_subplot(grid[2 * row + level, column], sharey=leftmost.get(level))
                leftmost.setdefault(level, axes)
                _spectra(axes, values - offset, [median - offset for median in others], colours[dataset])
                axes.tick_params(labelleft=not column, labelbottom=level == 1)
                if level == 0:
                    axes.set_title(literal(dataset), fontsize=fitting(dataset), pad=16)
                    axes.text(0.5, 1.03, f"n = {len(values)}", transform=axes.transAxes, ha="center", color=QUIET)
                if not column:
                    axes.set_ylabel(("log singular value\n(unit length)", "difference from\nthe tasks' mean")[level])
    return figure


def score_distributions(results: Sequence[CaseResult], score: Quantity, threshold: float | None) -> Figure:
    """One OOD score of every case, a row a dataset.

    Args:
        results: all cases.
        score: description of the score.
        threshold: cases above it are flagged; None or infinite = no line is drawn.
    """
    values: dict[str, list[float]] = {}
    for result in sorted(results, key=lambda result: result.expected):
        values.setdefault(result.dataset, []).append(result.scores.get(score.key, math.nan))
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.95 + 0.32 * max(len(values), 1)), layout="constrained")
        axes = figure.add_subplot()
        strips(axes, values, task_colours(tasks_of(results)))
        axes.set_title(score.label, loc="left")
        axes.set_xlabel(f"{score.axis}   (higher = more out-of-distribution)")
        if threshold is not None and math.isfinite(threshold):
            axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
            axes.set_title("flagged right of the dashed line", loc="right", fontsize="small", fontweight="normal")
    return figure


def dice_by_task(results: Sequence[CaseResult]) -> Figure:
    """Dice of every test case, a row a task."""
    values: dict[str, list[float]] = {task: [] for task in tasks_of(results)}
    for result in results:
        if result.expected == "in" and result.dice is not None:
            values[result.dataset].append(result.dice)
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.75 + 0.32 * max(len(values), 1)), layout="constrained")
        axes = figure.add_subplot()
        strips(axes, values, task_colours(list(values)))
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("Dice")
    return figure


def roc(results: Sequence[CaseResult], scores: Sequence[Quantity]) -> Figure:
    """Receiver operating characteristic of every score, with out-of-distribution as the positive class.

    Args:
        results: all cases.
        scores: descriptions of the scores.
    """
    looks = ((INK, "-", 2.2), ("#7A8290", (0, (5, 2)), 1.6), ("#7A8290", (0, (1, 1.2)), 1.6), ("#A8AEB8", "-", 1.2))
    with style():
        figure = Figure(figsize=(4.8, 4.3), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, zorder=0)
        for index, score in enumerate(scores):
            scored = [r for r in results if math.isfinite(r.scores.get(score.key, math.nan))]
            outside = [result.expected == "out" for result in scored]
            if len(set(outside)) < 2:
                continue
            values = [result.scores[score.key] for result in scored]
            false_alarms, detections, _ = roc_curve(outside, values, drop_intermediate=False)
            colour, dashes, width = looks[index % len(looks)]
            label = f"{score.label}, AUROC {roc_auc_score(outside, values):.3f}"
            (line,) = axes.plot(false_alarms, detections, color=colour, linestyle=dashes, linewidth=width, label=label)
            line.set_zorder(9 - index)
        if len(axes.lines) > 1:
            axes.legend(loc="lower right")
        else:
            axes.text(0.5, 0.5, "needs in-distribution and OOD cases", ha="center", va="center", color=QUIET)
        axes.set(xlabel="in-distribution cases flagged", ylabel="OOD cases flagged", aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _spectra(axes: Axes, values: NDArray[np.float64], others: Sequence[NDArray[np.float64]], colour: str) -> None:
    ranks = np.arange(1, values.shape[1] + 1)
    for other in others:
        axes.plot(ranks, other, color=LINE, linewidth=0.9, zorder=1)
    axes.plot(ranks, values.T, color=colour, linewidth=0.5, alpha=0.4, zorder=2)
    axes.plot(ranks, np.median(values, axis=0), color=colour, linewidth=1.8, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def strips(axes: Axes, values: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    """A row a dataset: every case a dot, a bar from the lower to the upper quartile, a line at the median."""
    generator = np.random.default_rng(0)
    labels = []
    for row, (dataset, cases) in enumerate(values.items()):
        colour = colours.get(dataset, OOD_COLOUR)
        known = np.array([value for value in cases if math.isfinite(value)])
        undefined = len(cases) - len(known)
        labels.append(f"{literal(dataset)}  (n = {len(known)}{f', {undefined} undefined' if undefined else ''})")
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
