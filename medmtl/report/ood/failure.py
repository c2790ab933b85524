"""Silent failure in the benchmark: does a score increase where the segmentation is bad?"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from medmtl.ood.metrics.failure import Rejection, rejection, risk_coverage
from medmtl.report.ood.figures import legend_of_scores, look_of
from medmtl.report.ood.numbers import score_label, shown_by_name, tasks_of
from medmtl.report.ood.scores import wide_axis
from medmtl.report.style import LINE, OOD_COLOUR, QUIET, WIDTH_INCHES, fitting, literal, style, task_colours
from medmtl.results.benchmark import THRESHOLD, Record

REJECTED_SHARE = 0.1  # of the images, in the sentence on the effect of rejection


def labelled(records: Iterable[Record], detector: str) -> list[Record]:
    """A detector's records of images that have a Dice; those that set the threshold are left out."""
    return [
        r
        for r in records
        if r.detector == detector
        and r.group not in THRESHOLD
        and r.dice is not None
        and math.isfinite(r.dice)
        and math.isfinite(r.score)
    ]


def rejecting(records: Iterable[Record], detector: str) -> Rejection | None:
    """The effect of rejecting a tenth of the labelled images; None if none would be left."""
    return rejection(*_points(labelled(records, detector)), REJECTED_SHARE)


def score_against_dice(records: Sequence[Record], names: Sequence[str], statistics: Mapping[str, Any]) -> Figure:
    """Dice of every labelled image against its score, a panel a detector, in the colour of the task.

    Args:
        records: all records.
        names: the detectors to show, at most three.
        statistics: what `ood.json` holds, for the rank correlations.
    """
    colours = task_colours(tasks_of(records))
    with style():
        width = WIDTH_INCHES if len(names) > 1 else 4.8
        figure = Figure(figsize=(width, 3.9), layout="constrained")
        first: Axes | None = None
        for index, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), index + 1, sharey=first)
            first = first or axes
            known = labelled(records, name)
            scores, dice = _points(known)
            edges = [colours.get(r.task, OOD_COLOUR) for r in known]
            inside = [edge if r.group == "in_distribution" else "none" for r, edge in zip(known, edges, strict=True)]
            axes.scatter(scores, dice, s=20, color=inside, edgecolor=edges, linewidth=0.8)
            wide_axis(axes, scores.tolist(), [r.score for r in known if r.group == "in_distribution"])
            correlation = statistics.get("failure", {}).get(name, {}).get("spearman")
            axes.set_title(
                literal(score_label(statistics, name)), loc="left", fontsize=fitting(score_label(statistics, name))
            )
            if correlation is not None:
                words = f"Spearman {correlation:.2f}".replace("-", "\N{MINUS SIGN}")
                axes.text(0.02, 0.03, words, transform=axes.transAxes)
            axes.set_xlabel("score   (higher = more out-of-distribution)")
            axes.set_ylim(-0.03, 1.03)
            axes.grid(axis="y")
            if not index:
                axes.set_ylabel("Dice")
            else:
                axes.tick_params(labelleft=False)
        marks: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
        handles = [Line2D([], [], color=colour, label=literal(task), **marks) for task, colour in colours.items()]
        handles.append(Line2D([], [], color=QUIET, label="as it is", **marks))
        handles.append(Line2D([], [], color=QUIET, markerfacecolor="none", label="shifted or near", **marks))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), handletextpad=0.2)
    return figure


def risk_coverage_curves(records: Sequence[Record], statistics: Mapping[str, Any]) -> Figure:
    """Mean risk of the accepted images against their share, a line a detector, and that of the best order.

    Args:
        records: all records.
        statistics: what `ood.json` holds: which detectors are shown by name.
    """
    shown = shown_by_name(statistics)
    with style():
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        most: list[Record] = []
        for name in [name for name in statistics["detectors"] if name not in shown] + shown[::-1]:
            known = labelled(records, name)
            most = max(most, known, key=len)
            if known:
                axes.plot(*risk_coverage(*_points(known)), **look_of(name, shown), markevery=0.11)
        if most:
            _, dice = _points(most)
            axes.plot(*risk_coverage(-dice, dice), color=LINE, linewidth=3, zorder=0)
            level = float(np.mean(1 - dice))
            axes.axhline(level, color=QUIET, linewidth=0.8, zorder=0)
            where: dict[str, Any] = {"xytext": (0, 2), "textcoords": "offset points"}
            axes.annotate("nothing rejected", (0.55, level), **where, color=QUIET, fontsize=7.5)
        axes.set(xlabel="share of images that is accepted", ylabel="risk: mean 1 \N{MINUS SIGN} Dice of the accepted")
        axes.set_xlim(0, 1.01)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y")
        best = Line2D([], [], color=LINE, linewidth=3, label="rejecting by Dice itself")
        legend_of_scores(figure, shown, statistics, columns=2, more=[best])
    return figure


def _points(known: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score and Dice of labelled images, `(n,)` each."""
    return np.array([r.score for r in known], dtype=np.float64), np.array([r.dice for r in known], dtype=np.float64)
