"""The scores of an out-of-distribution benchmark image by image: ROC curves and distributions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import roc_curve

from medmtl.report.ood.figures import GROUP_TITLES, look_of
from medmtl.report.ood.numbers import score_label, scores_of, shift_label, shown_by_name, tasks_of
from medmtl.report.style import INK, LINE, WIDTH_INCHES, literal, style, task_colours
from medmtl.report.test.figures import strips
from medmtl.results.benchmark import Record


def roc_by_group(records: Sequence[Record], groups: Sequence[str], statistics: Mapping[str, Any]) -> Figure:
    """Receiver operating characteristic of every detector, a panel a group of OOD images.

    Args:
        records: all records.
        groups: "far", "near", or both.
        statistics: what `ood.json` holds: the AUROC of each group, and what is shown by name.
    """
    shown = shown_by_name(statistics)
    names = [name for name in statistics["detectors"] if name not in shown] + shown[::-1]
    with style():
        size = (WIDTH_INCHES if len(groups) > 1 else 4.8, 5.0)
        figure = Figure(figsize=size, layout="constrained")
        for index, group in enumerate(groups):
            axes = figure.add_subplot(1, len(groups), index + 1)
            axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, zorder=0)
            for name in names:
                inside, shifted = scores_of(records, name)
                here = [values for where, values in shifted.items() if where.group == group]
                outside = np.concatenate(here) if here else np.zeros(0)
                if inside.size and outside.size:
                    truth = np.r_[np.zeros(inside.size), np.ones(outside.size)]
                    alarms, found, _ = roc_curve(truth, np.r_[inside, outside], drop_intermediate=False)
                    auroc = statistics["detectors"][name].get(group, {}).get("auroc")
                    words = "" if auroc is None else f", AUROC {auroc:.3f}"
                    label = f"{literal(score_label(statistics, name))}{words}" if name in shown else None
                    axes.plot(alarms, found, **look_of(name, shown, markers=False), label=label)
            axes.set_title(GROUP_TITLES[group], loc="left")
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="in-distribution images flagged")
            if not index:
                axes.set_ylabel("OOD images flagged")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(PercentFormatter(1.0))
            handles = [line for line in axes.lines[::-1] if not str(line.get_label()).startswith("_")]
            axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.02, -0.14), fontsize=7.5, handlelength=3)
    return figure


def scores_by_group(records: Sequence[Record], detector: str, line: float, statistics: Mapping[str, Any]) -> Figure:
    """A detector's score of every image, by its origin; in-distribution images in the colours of their tasks.

    Args:
        records: all records.
        detector: its name.
        line: images above it are flagged; infinite = no line is drawn.
        statistics: what `ood.json` holds, for labels and axes.
    """
    tasks = tasks_of(records)
    values: dict[str, list[float]] = {task: [] for task in tasks}
    for r in sorted(records, key=_order):
        if r.detector == detector and (r.group == "in_distribution" or r.group in GROUP_TITLES):
            values.setdefault(_row_of(r, statistics), []).append(r.score)
    inside = [score for task in tasks for score in values[task]]
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.95 + 0.26 * max(len(values), 1)), layout="constrained")
        axes = figure.add_subplot()
        strips(axes, values, task_colours(tasks))
        wide_axis(axes, [score for row in values.values() for score in row], inside)
        axes.set_title(literal(score_label(statistics, detector)), loc="left")
        axes.set_xlabel(f"{statistics['scores'][detector]['axis']}   (higher = more out-of-distribution)")
        if math.isfinite(line):
            axes.axvline(line, color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
            axes.set_title("flagged right of the dashed line", loc="right", fontsize="small", fontweight="normal")
    return figure


def wide_axis(axes: Axes, scores: Sequence[float], inside: Sequence[float]) -> None:
    """A logarithmic axis beyond the in-distribution scores, linear up to them, where OOD scores are much higher."""
    finite = np.abs([score for score in scores if math.isfinite(score)])
    reach = float(np.max(np.abs([s for s in inside if math.isfinite(s)]), initial=0.0))
    if finite.size and reach and finite.max() > 10 * reach:
        axes.set_xscale("symlog", linthresh=reach, linscale=1.5)


def _row_of(record: Record, statistics: Mapping[str, Any]) -> str:
    if record.group == "in_distribution":
        return record.task
    if record.group == "covariate":
        return f"covariate, severity {record.severity}" if record.severity else "covariate, no severity"
    return f"{record.group}: {shift_label(statistics, record.condition)}"


def _order(record: Record) -> int:
    groups = list(GROUP_TITLES)
    return groups.index(record.group) if record.group in groups else -1
