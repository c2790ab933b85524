"""A comparison of arms as files: `figures/*.png`, `compare.tex` and one self-contained page, `compare.html`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.regions import description_of
from medmtl.files import write_text
from medmtl.quantity import Quantity
from medmtl.report.compare.figures import arm_means, forest, learning_curves, reliability_side_by_side
from medmtl.report.compare.latex import latex_table
from medmtl.report.compare.reading import (
    MEAN,
    arms_of,
    blocks_by_size,
    budget,
    classes_of,
    find_pair,
    intervals,
    label_of,
    metric_of,
    pairs_of,
    patients,
    protocol,
    rows_of,
    tasks_of,
    value_of,
    with_interval,
)
from medmtl.report.html import Picture, render
from medmtl.report.style import task_colours
from medmtl.report.test.write import write_figures

# Shown in full, with a forest plot; the other metrics are folded.
MAIN_METRICS = ("dice", "hd95_mm", "ace_band")


def write_pages(
    comparison: Mapping[str, Any], tables: Mapping[str, Mapping[str, Mapping[str, BinTable]]], folder: Path
) -> Path:
    """Write figures, LaTeX table and page; figures of an earlier comparison are removed.

    Args:
        comparison: what `compare.json` holds.
        tables: region -> arm -> task -> bins pooled over cases, folds and seeds; {} draws no reliability diagram.
        folder: where they go, `compare` in the folder of the experiment.

    Returns:
        The path of `compare.html`.
    """
    figures = write_figures(folder / "figures", _draw(comparison, tables), comparison["data_note"])
    write_text(folder / "compare.tex", latex_table(comparison))
    blocks = blocks_by_size(comparison)
    metrics = {key: metric_of(comparison, key) for key in comparison["metrics"]}
    page = render(
        "compare.html.j2",
        comparison=comparison,
        blocks=blocks,
        sentences=_sentences(comparison),
        budget=budget(comparison),
        intervals=intervals(comparison).replace(" %", "\N{NO-BREAK SPACE}%"),
        protocol=protocol(comparison),
        data_note=comparison["data_note"],
        figures={name: Picture.of(png) for name, png in figures.items()},
        colours=task_colours(tasks_of(comparison)),
        main=[metric for metric in MAIN_METRICS if metric in comparison["metrics"]],
        metrics=metrics,
        class_metrics=[metric for metric in ACCURACY if metric in metrics],
        arm_names={arm: label_of(comparison, arm) for arm in comparison["arms"]},
        regions={region: description_of(region) for region in tables},
        rows_of=rows_of,
        arms_of=arms_of,
        pairs_of=pairs_of,
        find_pair=find_pair,
        value_of=value_of,
        patients=patients,
        with_interval=with_interval,
        p_value=p_value,
    )
    write_text(folder / "compare.html", page)
    return folder / "compare.html"


def headline(comparison: Mapping[str, Any]) -> str:
    """The verdicts in Dice, as sentences.

    Of every pair with multi-task training, and of transfer and dedicated; of all pairs where there is none of these.
    """
    return " ".join(_sentences(comparison))


def p_value(value: float | None) -> str:
    """A p-value for a table cell; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _draw(
    comparison: Mapping[str, Any], tables: Mapping[str, Mapping[str, Mapping[str, BinTable]]]
) -> dict[str, Figure]:
    drawn = {}
    if arms_of(comparison, comparison["arms"]):
        drawn["arm-means"] = arm_means(comparison)
    if pairs_of(comparison, comparison["arms"]):
        for metric in MAIN_METRICS:
            drawn[f"forest-{metric}"] = forest(comparison, metric)
    for task, classes in classes_of(comparison).items():
        drawn[f"classes-arm-means-{task}"] = arm_means(classes)
        for metric in (metric for metric in MAIN_METRICS if metric in ACCURACY and pairs_of(classes, classes["arms"])):
            drawn[f"classes-forest-{metric}-{task}"] = forest(classes, metric, of=f"classes of {task}")
    if len(blocks_by_size(comparison)) > 1:
        drawn["learning-curves"] = learning_curves(comparison)
    for region, by_arm in tables.items():
        known = {arm: by_arm[arm] for arm in comparison["arms"] if by_arm.get(arm)}
        if known:
            drawn[f"reliability-{region}"] = reliability_side_by_side(comparison, known, region)
    return drawn


def _sentences(comparison: Mapping[str, Any]) -> list[str]:
    pairs = pairs_of(comparison, comparison["arms"])
    main = [pair for pair in pairs if "multitask" in pair]
    main += [pair for pair in pairs if set(pair) == {"transfer", "dedicated"}]
    if pairs:
        return [_sentence(comparison, a, b) for a, b in main or pairs]
    present = arms_of(comparison, comparison["arms"])
    if not present:
        return ["No finished run with all training cases was found."]
    return [
        f"Only {label_of(comparison, present[0])} was tested."
        if len(present) == 1
        else "No two arms could be compared."
    ]


def _sentence(comparison: Mapping[str, Any], a: str, b: str) -> str:
    """The verdicts on a pair in Dice, counted over tasks, and the one on their mean."""
    first, second = label_of(comparison, a), label_of(comparison, b)
    pairs = {task: find_pair(row, a, b, "dice") for task, row in comparison["tasks"].items()}
    verdicts = {task: pair["verdict"] for task, pair in pairs.items() if pair is not None}
    total = len(verdicts)
    better, worse = (sum(verdict == word for verdict in verdicts.values()) for word in ("better", "worse"))
    rest = total - better - worse
    small = sum("too small" in verdict for verdict in verdicts.values())
    where = f"on {next(iter(verdicts))}" if total == 1 else f"on all {total} tasks"
    why = f" (n too small{f' on {small}' if total > 1 else ''})" if small else ""
    if rest == total:
        text = f"there is no evidence that {first} was better or worse in Dice "
        text += f"{where if total == 1 else f'on any of {total} tasks'}{why}"
    else:
        found = [(word, count) for word, count in (("better", better), ("worse", worse)) if count]
        word, count = found[0]
        text = f"{first} was {word} in Dice {where if count == total else f'on {count} of {total} tasks'}"
        text += "".join(f", {word} on {count}" for word, count in found[1:])
        if rest:
            text += f"; on the other {rest if rest > 1 else 'one'} there is no evidence{why}"
    mean = rows_of(comparison).get(MEAN)
    overall = None if mean is None else find_pair(mean, a, b, "dice")
    if overall is not None and overall["difference"] is not None:
        text += _over_all_tasks(overall, metric_of(comparison, "dice"), none_before=rest == total)
    left_out = [task for task, pair in pairs.items() if pair is None]
    return f"Against {second}, {text}." + (f" Not compared: {', '.join(left_out)}." if left_out else "")


def _over_all_tasks(pair: Mapping[str, Any], metric: Quantity, none_before: bool) -> str:
    """The verdict on the mean over tasks as the end of a sentence, which may have found no evidence before."""
    difference, _, _ = with_interval(pair, metric, "difference").partition(" [")
    if pair["verdict"] in ("better", "worse"):
        return f"; over all tasks it was {pair['verdict']} ({difference})"
    why = ", n too small" if "too small" in pair["verdict"] else ""
    return f"{', nor over all tasks' if none_before else '; over all tasks there is no evidence'} ({difference}{why})"
