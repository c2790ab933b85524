"""The AUROC of every condition of an out-of-distribution benchmark: heat map and severity curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medmtl.report.ood.numbers import (
    Condition,
    detectors_by_mean,
    score_label,
    shift_label,
    shown_by_name,
    tied,
)
from medmtl.report.style import (
    INK,
    QUIET,
    SCORE_LOOKS,
    WIDTH_INCHES,
    fitting,
    literal,
    panel_grid,
    style,
)

PALE = "#CDD2DA"
GROUP_TITLES = {"far": "Far", "near": "Near", "covariate": "Covariate, by severity", "nonsense": "Nonsense"}
_COLOURS, _SCALE = colormaps["cividis"], Normalize(0.5, 1.0)
_LIGHT_FROM = 0.78  # cells of higher AUROC are light enough for dark numbers
_ROW_INCHES = 0.19


def heat_map(
    values: Mapping[str, Mapping[Condition, float]], statistics: Mapping[str, Any], dark: bool = False
) -> Figure:
    """AUROC of every detector on every condition: a column a detector, the best in the mean first, a row a condition.

    Controls are in a separate strip below.

    Args:
        values: detector -> condition -> AUROC against the in-distribution images.
        statistics: what `ood.json` holds, for the order.
        dark: on dark paper; a page cannot invert it as it does other figures, since its colours have a meaning.
    """
    names = [name for name in detectors_by_mean(statistics) if name in values]
    conditions = list(dict.fromkeys(where for by_condition in values.values() for where in by_condition))
    rows: list[str | Condition] = []
    for group, title in GROUP_TITLES.items():
        members = [where for where in conditions if where.group == group]
        rows += [title, *members] if members else []
    controls: list[str | Condition] = [where for where in conditions if where.group == "control"]
    strip = ["Controls: 0.5 is right", *controls] if controls else []
    with style(dark):
        height = _ROW_INCHES * (len(rows) + len(strip)) + 2.4
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        parts = [part for part in (rows, strip) if part] or [["in-distribution images only"]]
        grid = figure.add_gridspec(len(parts), 1, height_ratios=[len(part) for part in parts])
        panels = [figure.add_subplot(grid[index]) for index in range(len(parts))]
        for axes, part in zip(panels, parts, strict=True):
            _cells(axes, part, [values[name] for name in names], statistics)
        marks = dict.fromkeys(tied(statistics), " (tied)") | dict.fromkeys(names[:1], " (best)")
        labels = [literal(f"{score_label(statistics, name)}{marks.get(name, '')}") for name in names]
        top = panels[0]
        top.tick_params(labeltop=True, labelbottom=False)
        top.set_xticks(np.arange(len(names)) + 0.5, labels, rotation=55, ha="left", rotation_mode="anchor")
        look: dict[str, Any] = {"location": "bottom", "extend": "min", "aspect": 40, "shrink": 0.6, "pad": 0.01}
        bar = figure.colorbar(ScalarMappable(_SCALE, _COLOURS), ax=panels, **look)
        bar.set_label("AUROC against the in-distribution images (0.5: chance, 1: perfect separation)")
        bar.outline.set_visible(False)
    return figure


def severity_curves(values: Mapping[str, Mapping[Condition, float]], statistics: Mapping[str, Any]) -> Figure:
    """AUROC against severity, a panel a shift, a line a detector; few by name, the rest pale.

    Args:
        values: detector -> condition -> AUROC against the in-distribution images.
        statistics: what `ood.json` holds, for what is shown by name.
    """
    shown = shown_by_name(statistics)
    order = [name for name in values if name not in shown] + shown[::-1]
    levels: dict[str, list[int]] = {}
    for where in next(iter(values.values()), {}):
        if where.group == "covariate" and where.severity:
            levels.setdefault(where.name, []).append(where.severity)
    with style():
        columns, groups = panel_grid(len(levels), at_most=4)
        figure = Figure(figsize=(WIDTH_INCHES, 1.75 * groups + 0.9), layout="constrained")
        first: Axes | None = None
        for index, (shift, severities) in enumerate(levels.items()):
            axes = figure.add_subplot(groups, columns, index + 1, sharex=first, sharey=first)
            first = first or axes
            axes.axhline(0.5, color=QUIET, linewidth=0.8, zorder=0)
            for name in order:
                heights = [values[name].get(Condition("covariate", shift, level), math.nan) for level in severities]
                axes.plot(severities, heights, **look_of(name, shown))
            axes.set_title(literal(shift_label(statistics, shift)), fontsize=fitting(shift))
            axes.set_xticks(severities)
            axes.grid(axis="y")
            axes.tick_params(labelleft=not index % columns, labelbottom=index + columns >= len(levels))
        figure.supxlabel("severity", fontsize=8.5)
        figure.supylabel("AUROC against the in-distribution images", fontsize=8.5)
        legend_of_scores(figure, shown, statistics)
    return figure


def look_of(name: str, shown: Sequence[str], markers: bool = True) -> dict[str, Any]:
    """How a detector's line is drawn: pale if it is not among those shown by name."""
    if name not in shown:
        return {"color": PALE, "linewidth": 0.8}
    look = SCORE_LOOKS[shown.index(name)]
    width = 2.2 if name == shown[0] else 1.5
    drawn: dict[str, Any] = {"color": look.shade, "linestyle": look.dashes, "linewidth": width}
    if markers:
        drawn |= {"marker": look.marker, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
    return drawn


def legend_of_scores(
    figure: Figure, shown: Sequence[str], statistics: Mapping[str, Any], columns: int = 3, more: Sequence[Line2D] = ()
) -> None:
    """Name the lines above the panels."""
    handles = [Line2D([], [], label=literal(score_label(statistics, name)), **look_of(name, shown)) for name in shown]
    handles += more
    if len(statistics["detectors"]) > len(shown):
        handles.append(Line2D([], [], color=PALE, linewidth=0.8, label="all others"))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=3)


def _cells(
    axes: Axes,
    rows: Sequence[str | Condition],
    columns: Sequence[Mapping[Condition, float]],
    statistics: Mapping[str, Any],
) -> None:
    """The coloured cells with their numbers; a row that is a title stays empty."""
    values = np.full((len(rows), len(columns)), math.nan)
    for (row, column), _ in np.ndenumerate(values):
        where = rows[row]
        if isinstance(where, Condition):
            value = values[row, column] = columns[column].get(where, math.nan)
            text = f"{value:.2f}" if math.isfinite(value) else "\N{EN DASH}"
            colour = "white" if value < _LIGHT_FROM else INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=6.8, color=colour)
    axes.pcolormesh(
        np.ma.masked_invalid(values),
        cmap=_COLOURS,
        norm=_SCALE,
        edgecolors=mpl.rcParams["figure.facecolor"],
        linewidth=0.8,
    )
    labels, before = [], ""
    for row in rows:
        labels.append(row if isinstance(row, str) else _label(row, before, statistics))
        before = "" if isinstance(row, str) else row.name
    axes.set_yticks(np.arange(len(rows)) + 0.5, [literal(label) for label in labels])
    for row, tick in zip(rows, axes.get_yticklabels(), strict=True):
        tick.set_fontweight("bold" if isinstance(row, str) else "normal")
    axes.set_xticks([])
    axes.set_xlim(0, max(len(columns), 1))
    axes.set_ylim(len(rows), 0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _label(where: Condition, before: str, statistics: Mapping[str, Any]) -> str:
    """The label of a row: the shift with its first severity, then the severities alone."""
    condition = shift_label(statistics, where.name)
    if not where.severity:
        return condition
    return f"{where.severity}" if where.name == before else f"{condition}   {where.severity}"
