"""The figures of a comparison of arms, each a matplotlib `Figure` of its own, in the style of the test report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.regions import description_of
from medmtl.look import Look
from medmtl.report.compare.reading import (
    ALL_CASES,
    MEAN,
    arms_of,
    blocks_by_size,
    find_pair,
    interval_of,
    label_of,
    look_of,
    metric_of,
    pairs_of,
    rows_of,
    tasks_of,
    value_of,
)
from medmtl.report.reliability import reliability_points
from medmtl.report.style import (
    INK,
    LINE,
    QUIET,
    WIDTH_INCHES,
    fitting,
    literal,
    panel_grid,
    style,
    task_colours,
)


def forest(comparison: Mapping[str, Any], metric: str, of: str = "") -> Figure:
    """Paired differences with their intervals: a panel a pair of arms, a row a task, the mean over tasks beneath.

    A marker is filled where the verdict is better or worse, open otherwise.

    Args:
        comparison: what `compare.json` holds.
        metric: key of the metric.
        of: what the rows are, where they are no tasks, for the title.
    """
    rows = rows_of(comparison)
    pairs = pairs_of(comparison, comparison["arms"])
    colours = {**task_colours(tasks_of(comparison)), MEAN: INK}
    with style():
        columns, groups = panel_grid(len(pairs), at_most=3)
        figure = Figure(figsize=(WIDTH_INCHES, (1.25 + 0.25 * len(rows)) * groups + 0.45), layout="constrained")
        title = f"Paired differences in {metric_of(comparison, metric).axis}{of and f', {of}'}"
        figure.suptitle(literal(title), fontsize=10)
        grid = figure.add_gridspec(groups, columns)
        first: Axes | None = None
        for index, (a, b) in enumerate(pairs):
            axes = figure.add_subplot(grid[divmod(index, columns)], sharex=first, sharey=first)
            first = first or axes
            _differences(axes, {name: find_pair(row, a, b, metric) for name, row in rows.items()}, colours)
            first_label, second = (literal(label_of(comparison, arm)) for arm in (a, b))
            size = min(8.5, 225 / max(len(first_label), len(f"against {second}")))
            axes.set_title(f"{first_label}\nagainst {second}", loc="left", fontsize=size, linespacing=1.3)
            higher = metric_of(comparison, metric).higher_is_better
            left, right = (second, first_label) if higher else (first_label, second)
            _favours(axes, left, right, one_line=columns == 1)
            axes.tick_params(axis="y", labelleft=not index % columns, labelsize=min(map(fitting, rows)))
        if first is None:
            _write(figure.add_subplot(), "no two arms were compared")
        else:
            first.set_yticks(range(len(rows)), [literal(name) for name in rows])
            first.set_ylim(len(rows) - 0.5, -0.5)
    return figure


def arm_means(comparison: Mapping[str, Any], metric: str = "dice") -> Figure:
    """Every arm's mean with its interval, a row a task, the mean over tasks at the foot.

    Args:
        comparison: what `compare.json` holds.
        metric: key of the metric.
    """
    rows, arms = rows_of(comparison), arms_of(comparison, comparison["arms"])
    colours = {**task_colours(tasks_of(comparison)), MEAN: QUIET}
    with style():
        step = 0.15 * max(len(arms), 2) + 0.12
        figure = Figure(figsize=(WIDTH_INCHES, 0.95 + step * max(len(rows), 1)), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, row) in enumerate(rows.items()):
            axes.axhspan(index - 0.46, index + 0.46, color=colours[name], alpha=0.1, linewidth=0, zorder=0)
            for arm, shift in zip(arms, _shifts(len(arms), 0.72), strict=True):
                _whisker(axes, value_of(row, arm, metric), index + shift, look_of(comparison, arm))
        axes.set_yticks(range(len(rows)), [literal(name) for name in rows], fontsize=min(map(fitting, rows), default=8))
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(metric_of(comparison, metric).axis)
        _legend(figure, comparison, arms, joined=False)
    return figure


def learning_curves(comparison: Mapping[str, Any], metric: str = "dice") -> Figure:
    """A metric against training cases a task, at most: a panel a task and one for the mean, a line an arm.

    Args:
        comparison: what `compare.json` holds, with runs of at least two sizes.
        metric: key of the metric.
    """
    blocks = blocks_by_size(comparison)
    tasks = tasks_of(comparison)
    panels = [*tasks, MEAN] if len(tasks) > 1 else tasks
    arms = [arm for arm in comparison["arms"] if any(arms_of(block, [arm]) for block in blocks.values())]
    places = _places(list(blocks))
    colours = {**task_colours(tasks), MEAN: INK}
    with style():
        columns, groups = panel_grid(len(panels), at_most=3)
        figure = Figure(figsize=(WIDTH_INCHES, 2.2 * groups + 0.75), layout="constrained")
        first: Axes | None = None
        for index, name in enumerate(panels):
            axes = figure.add_subplot(groups, columns, index + 1, sharex=first, sharey=first)
            first = first or axes
            rows = {size: rows_of(block).get(name) for size, block in blocks.items()}
            for arm, shift in zip(arms, _shifts(len(arms), 0.24), strict=True):
                values = {places[size] + shift: value_of(row, arm, metric) for size, row in rows.items() if row}
                _curve(axes, values, look_of(comparison, arm))
            axes.set_title(literal(name), fontsize=fitting(name))
            axes.spines["top"].set(visible=True, color=colours[name], linewidth=2.5)
            axes.set_xticks(list(places.values()), list(places))
            axes.margins(x=0.08)
            axes.grid(axis="y")
            axes.tick_params(labelleft=not index % columns)
        figure.supxlabel("training cases a task, at most", fontsize=8.5)
        figure.supylabel(metric_of(comparison, metric).axis, fontsize=8.5)
        _legend(figure, comparison, arms, joined=True)
    return figure


def reliability_side_by_side(
    comparison: Mapping[str, Any], tables: Mapping[str, Mapping[str, BinTable]], region: str
) -> Figure:
    """Observed frequency against predicted probability, a panel an arm, a line a task.

    Args:
        comparison: what `compare.json` holds.
        tables: arm -> task -> bins pooled over cases, folds and seeds.
        region: the region that the bins count, "whole" or "band".
    """
    tasks = tasks_of(comparison)
    colours = task_colours(tasks)
    with style():
        columns, groups = panel_grid(len(tables), at_most=3)
        panel = min(3.1, (WIDTH_INCHES - 0.5) / columns)
        width = max(0.5 + panel * columns, 5.2)
        drawn = [task for task in tasks if any(task in by_task for by_task in tables.values())]
        beside = max(1, min(5, int(width / (0.8 + 0.075 * max(map(len, drawn), default=0)))))  # names in a line
        height = (panel + 0.55) * groups + 0.45 + 0.19 * math.ceil(len(drawn) / beside)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(f"Reliability over the {description_of(region)}", fontsize=10)
        first: Axes | None = None
        for index, (arm, by_task) in enumerate(tables.items()):
            axes = figure.add_subplot(groups, columns, index + 1, sharex=first, sharey=first)
            first = first or axes
            axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, zorder=1)
            for task, table in by_task.items():
                probability, observed, few = reliability_points(table)
                colour = colours[task]
                axes.plot(probability, observed, color=colour, linewidth=1.3, zorder=2)
                inside = np.where(few, "white", colour)
                axes.scatter(probability, observed, s=13, color=inside, edgecolor=colour, zorder=3)
            axes.set_title(literal(label_of(comparison, arm)))
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
            axes.set_xlabel("predicted probability")
            axes.tick_params(labelleft=not index % columns)
            if not index % columns:
                axes.set_ylabel("observed frequency")
        handles = [Line2D([], [], color=colours[task], linewidth=2, label=literal(task)) for task in drawn]
        figure.legend(handles=handles, loc="outside lower center", ncols=beside, borderaxespad=1.2)
    return figure


def _favours(axes: Axes, left: str, right: str, one_line: bool) -> None:
    """Label under the axis which arm each side favours; on two lines in a narrow panel."""
    words: dict[str, Any] = {"textcoords": "offset points", "va": "top", "fontsize": 7.5}
    axes.annotate(f"\N{LEFTWARDS ARROW} favours {left}", (0, 0), (0, -19), "axes fraction", ha="left", **words)
    below = -19 if one_line else -31
    axes.annotate(f"favours {right} \N{RIGHTWARDS ARROW}", (1, 0), (0, below), "axes fraction", ha="right", **words)


def _differences(axes: Axes, pairs: Mapping[str, Mapping[str, Any] | None], colours: Mapping[str, str]) -> None:
    """The rows of one panel of the forest, and beside each row its number of patients."""
    axes.axvline(0, color=QUIET, linewidth=0.9, zorder=1)
    if MEAN in pairs:
        axes.axhline(len(pairs) - 1.5, color=LINE, linewidth=0.8, zorder=0)
    beside = axes.get_yaxis_transform()
    small: dict[str, Any] = {"fontsize": 7, "color": QUIET, "textcoords": "offset points"}
    axes.annotate("n", (1, 1), (3, 2), "axes fraction", va="bottom", **small)
    for index, (name, pair) in enumerate(pairs.items()):
        if pair is None or pair["difference"] is None:
            words = "not compared" if pair is None else "undefined"
            axes.annotate(words, (0, index), (3, 0), beside, va="center", **small)
            continue
        colour, interval = colours[name], interval_of(pair)
        if interval is not None:
            axes.plot(interval, [index, index], color=colour, linewidth=1.6, zorder=2)
        inside = colour if pair["verdict"] in ("better", "worse") else "white"
        axes.scatter(pair["difference"], index, s=34, color=inside, edgecolor=colour, linewidth=1.4, zorder=3)
        axes.annotate(str(pair["n"]), (1, index), (3, 0), beside, va="center", **small)
    axes.margins(x=0.08)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _whisker(axes: Axes, value: Mapping[str, Any], height: float, look: Look) -> None:
    if value["mean"] is None:
        return
    interval = interval_of(value)
    if interval is not None:
        axes.plot(interval, [height, height], color=look.shade, linewidth=1.3, zorder=2)
    axes.plot(value["mean"], height, **_marks(look), zorder=3)


def _curve(axes: Axes, values: Mapping[float, Mapping[str, Any]], look: Look) -> None:
    known = {place: value for place, value in values.items() if value["mean"] is not None}
    for place, value in known.items():
        interval = interval_of(value)
        if interval is not None:
            axes.plot([place, place], interval, color=look.shade, linewidth=0.8, alpha=0.7, zorder=1)
    means = [value["mean"] for value in known.values()]
    axes.plot(list(known), means, linestyle=look.dashes, linewidth=1.4, **_marks(look), zorder=2)


def _marks(look: Look) -> dict[str, Any]:
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    return {"color": look.shade, "marker": look.marker, "markersize": 6.5, **edge}


def _legend(figure: Figure, comparison: Mapping[str, Any], arms: Sequence[str], joined: bool) -> None:
    handles = []
    for arm in arms:
        look = look_of(comparison, arm)
        label = literal(label_of(comparison, arm))
        handles.append(Line2D([], [], linestyle=look.dashes if joined else "-", label=label, **_marks(look)))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(3, max(len(arms), 1)), handlelength=3)


def _places(sizes: Sequence[str]) -> dict[str, float]:
    """Position of each size: the logarithm of the cases, all cases one doubling after the last."""
    places = {size: math.log2(int(size)) for size in sizes if size != ALL_CASES}
    after = max(places.values(), default=0.0) + 1
    return places | ({ALL_CASES: after} if ALL_CASES in sizes else {})


def _shifts(count: int, over: float) -> list[float]:
    """Offsets that set `count` marks beside each other, centred on their place."""
    return [(index - (count - 1) / 2) * over / max(count, 1) for index in range(count)]


def _write(axes: Axes, words: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=QUIET)
