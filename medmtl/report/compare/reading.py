"""How the figures, the page and the LaTeX table of a comparison read `compare.json`, and write its numbers.

A block is `{"tasks": {TASK: row}, "mean": row}`: the comparison itself (all training cases) or one of its `sizes`. A
row holds a task's `arms` and `pairs`. `arms` and `metrics` of the comparison describe what is compared, by key.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from medmtl.look import Look
from medmtl.quantity import Quantity
from medmtl.report.html import bracketed

ALL_CASES = "all"
MEAN = "mean over tasks"
_NOTHING: Mapping[str, Any] = {"mean": None, "low": None, "high": None, "n": 0, "undefined": 0}


def label_of(comparison: Mapping[str, Any], arm: str) -> str:
    """How pages and figures call an arm."""
    return str(comparison["arms"][arm]["label"])


def look_of(comparison: Mapping[str, Any], arm: str) -> Look:
    """How figures draw an arm."""
    return Look.from_dict(comparison["arms"][arm]["look"])


def metric_of(comparison: Mapping[str, Any], metric: str) -> Quantity:
    """The description of a metric."""
    return Quantity(metric, **comparison["metrics"][metric])


def tasks_of(comparison: Mapping[str, Any]) -> list[str]:
    """All tasks of all sizes, in the order that gives them their colours."""
    blocks = (comparison, *(comparison.get("sizes") or {}).values())
    return list(dict.fromkeys(task for block in blocks for task in block["tasks"]))


def rows_of(block: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of a block: one a task and, where there are several tasks, their mean."""
    tasks = dict(block["tasks"])
    return {**tasks, MEAN: block["mean"]} if len(tasks) > 1 and block["mean"] else tasks


def classes_of(comparison: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Task with several classes -> a comparison of the arms on these, each in the place of a task."""
    found = comparison.get("classes") or {}
    return {task: {**comparison, "tasks": by_class, "mean": None, "sizes": {}} for task, by_class in found.items()}


def arms_of(block: Mapping[str, Any], arms: Iterable[str]) -> list[str]:
    """Those of `arms` that some task of the block has."""
    present = {arm for row in block["tasks"].values() for arm in row["arms"]}
    return [arm for arm in arms if arm in present]


def pairs_of(block: Mapping[str, Any], arms: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs (a, b) that were compared for some task, a being the later of the arms."""
    present = {(pair["a"], pair["b"]) for row in block["tasks"].values() for pair in row["pairs"]}
    return [(a, b) for b, a in combinations(arms, 2) if (a, b) in present]


def find_pair(row: Mapping[str, Any], a: str, b: str, metric: str) -> Mapping[str, Any] | None:
    """The difference of two arms in a metric; None where they were not compared."""
    return next((pair for pair in row["pairs"] if (pair["a"], pair["b"], pair["metric"]) == (a, b, metric)), None)


def value_of(row: Mapping[str, Any], arm: str, metric: str) -> Mapping[str, Any]:
    """Mean, interval and number of patients of an arm; nulls where it has none."""
    found: Mapping[str, Any] = row["arms"].get(arm, {}).get(metric, _NOTHING)
    return found


def interval_of(value: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of an arm's mean or of a difference; None where one patient gives none."""
    return None if value["low"] is None or value["high"] is None else (value["low"], value["high"])


def blocks_by_size(comparison: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Training cases a task, at most -> block, from few to `ALL_CASES`; blocks without any run are left out."""
    few: Mapping[str, Mapping[str, Any]] = comparison.get("sizes") or {}
    blocks = {size: few[size] for size in sorted(few, key=int)} | {ALL_CASES: comparison}
    return {size: block for size, block in blocks.items() if any(row["arms"] for row in block["tasks"].values())}


def with_interval(value: Mapping[str, Any], metric: Quantity, key: str = "mean") -> str:
    """A mean and its interval for a table: "0.912 [0.880, 0.940]"; a dash where there is none.

    Args:
        value: of an arm or of a pair.
        metric: the metric, for the digits.
        key: "mean" of an arm, or "difference" of a pair, which gets a sign.
    """
    return bracketed(value[key], value, metric.digits, signed=key == "difference")


def intervals(comparison: Mapping[str, Any]) -> str:
    """How the intervals are made, and how often those of few patients cover the mean, as a sentence."""
    coverage = f"{100 * (1 - comparison['level']):.3g} %"
    return (
        f"Intervals: {coverage} expanded percentile bootstrap by patient (Hesterberg 2015); with 2, 3 or 4 patients "
        f"they cover about 50, 75 and 88 %, not {coverage}."
    )


def budget(comparison: Mapping[str, Any]) -> str:
    """The budget of the runs as a sentence, for every table."""
    if comparison["budget"] is None:
        return "Budgets differ between the runs: only runs of one budget are compared with each other."
    return f"Budget: {comparison['budget']['text']}."


def protocol(comparison: Mapping[str, Any]) -> str:
    """How many seeds and folds the numbers come from, as a sentence."""
    runs = comparison["runs"]
    seeds = {run["seed"] for run in runs}
    folds = {run["fold"] for run in runs if run["fold"] is not None}
    parts = [f"{len(seeds)} seed{'s' * (len(seeds) != 1)}", f"{len(folds)} fold{'s' * (len(folds) != 1)}"]
    return f"From {' and '.join(parts[: 2 if folds else 1])}; differences are of the same test cases."


def patients(rows: Iterable[Mapping[str, Any]], metrics: Iterable[str]) -> str:
    """How many patients the means of some rows are over, at least and at most: "9 to 12", or "9"."""
    counts = {arm[metric]["n"] for row in rows for arm in row["arms"].values() for metric in metrics if metric in arm}
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low} to {high}" if low < high else str(low)
