"""Comparison of the arms of an experiment: `compare.json` and its tables, from finished runs alone."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medmtl.experiment.analysis.block import MEAN, compare_block
from medmtl.experiment.analysis.classes import compare_classes, made_comparable
from medmtl.experiment.analysis.finished import FinishedRun
from medmtl.experiment.analysis.metrics import describe
from medmtl.experiment.analysis.records import Records, pooled_tables, read_records
from medmtl.experiment.plan.protocol import EVERY_CASE
from medmtl.files import write_table, write_text
from medmtl.report.compare.page import write_pages
from medmtl.report.compare.reading import budget

SCHEMA = 2


def compare(records: Records, level: float = 0.05) -> dict[str, Any]:
    """Compare the arms of an experiment, task by task and over all tasks.

    A case's value is its mean over seeds and folds, of an arm over those that all arms of the task have; means are over
    cases, and over tasks weighted equally; intervals and tests are by patient (`experiment.analysis.statistics`). Of a
    pair, the later arm of the protocol is compared with the earlier one, run by run of the same seed and fold. Holm's
    correction is over all tasks and pairs of one metric and one training-set size; the mean over tasks is a family of
    its own. That mean is given for arms, and for pairs, that have every task: means over different tasks cannot be
    compared.

    Args:
        records: the finished runs.
        level: of significance; intervals cover 1 minus that.

    Returns:
        The content of `compare.json`, which strict JSON can hold: what is undefined is None. `arms` and `metrics`
        describe what is compared: key -> label and look, or label, unit, direction and digits. `classes` is there where
        a task has several: task -> class -> row, see `compare_classes`.
    """
    metrics = records.metrics
    sizes: dict[int | None, list[FinishedRun]] = defaultdict(list)
    for run in records.runs:
        sizes[run.cell.cases].append(run)
    refused, missing, notes = [], [*records.missing], []
    blocks, intervals = {}, set()
    for size in sorted(sizes, key=lambda size: size or 0):
        runs, of_classes = made_comparable(sizes[size])
        found = compare_block(runs, records.arms, metrics, level)
        where = "" if size is None else f"With {size} training cases a task at most: "
        blocks[size] = found.rows
        refused += [{**entry, "reason": where + entry["reason"]} for entry in found.refused]
        missing += [where + sentence for sentence in found.missing]
        notes += [where + sentence for sentence in (*of_classes, *found.notes)]
        rows = (*found.rows["tasks"].values(), found.rows[MEAN])
        intervals |= {pair["n"] for row in rows for pair in row["pairs"] if pair["low"] is not None}
    whole = blocks.pop(None, {"tasks": {}, MEAN: {"arms": {}, "pairs": []}})
    classes = compare_classes(sizes[None], records.arms, level) if None in sizes else {}
    budgets = {run.cell.budget for run in records.runs}
    return {
        "schema": SCHEMA,
        "experiment": records.experiment,
        "data_note": records.data_note,
        "level": level,
        "budget": next({"notion": one.notion, "text": one.text} for one in budgets) if len(budgets) == 1 else None,
        "arms": records.arms,
        "metrics": describe(metrics),
        **whole,
        **({"classes": classes} if classes else {}),
        "sizes": {str(size): block for size, block in blocks.items()},
        "refused": refused,
        "missing": missing,
        "notes": [*records.notes, *_caveats(records.runs, intervals, level), *notes],
        "runs": [
            {
                "name": run.name,
                "arm": run.cell.arm,
                "task": run.cell.task,
                "seed": run.cell.seed,
                "fold": run.cell.fold,
                "cases": run.cell.cases,
                "steps": run.steps,
                "fingerprint": run.fingerprint,
            }
            for run in records.runs
        ],
    }


def write_compare(folder: Path, level: float = 0.05) -> tuple[dict[str, Any], Path]:
    """Compare the finished runs of an experiment, and write everything into its folder `compare`.

    Args:
        folder: the experiment.
        level: of significance.

    Returns:
        What `compare.json` holds, and the path of `compare.html`.

    Raises:
        RunError: there is no finished run.
    """
    records = read_records(folder)
    comparison = compare(records, level)
    out = folder / "compare"
    write_text(out / "compare.json", json.dumps(comparison, indent=1, allow_nan=False) + "\n")
    _write_rows(out / "compare.csv", arm_rows(comparison))
    _write_rows(out / "pairs.csv", pair_rows(comparison))
    tables = pooled_tables(run for run in records.runs if run.cell.cases is None)
    return comparison, write_pages(comparison, tables, out)


def arm_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One flat row an arm, task and metric: `compare.csv`."""
    return [
        {"cases": size, "task": task, "arm": arm, "metric": metric, **value}
        for size, task, row in _rows(comparison)
        for arm, metrics in row["arms"].items()
        for metric, value in metrics.items()
    ]


def pair_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One flat row a pair of arms, task and metric: `pairs.csv`."""
    return [{"cases": size, "task": task, **pair} for size, task, row in _rows(comparison) for pair in row["pairs"]]


def print_comparison(console: Console, comparison: Mapping[str, Any]) -> None:
    """Print Dice of every arm and task, and the verdicts at the largest training sets."""
    blocks = {size: block for size, block in _blocks(comparison).items() if block["tasks"]}
    for size, block in blocks.items():
        title = f"Dice with {1 - comparison['level']:.0%} intervals"
        title += "" if size == EVERY_CASE else f", {size} training cases a task at most"
        rows: dict[str, Any] = {}
        for task, row in block["tasks"].items():
            own = block.get("classes", {}).get(task, {})
            rows |= {task: row, **{f"{task}/{name}": of_class for name, of_class in own.items()}}
        rows |= {"mean over tasks": block[MEAN]} if len(block["tasks"]) > 1 else {}
        arms = [arm for arm in comparison["arms"] if any(arm in row["arms"] for row in rows.values())]
        caption = f"{budget(comparison)} {comparison['data_note']}".strip()
        table = Table("task", *arms, title=title, caption=caption, title_justify="left", caption_justify="left")
        for task, row in rows.items():
            table.add_row(task, *(_cell(row["arms"].get(arm, {}).get("dice")) for arm in arms))
        console.print(table)
    *_, largest = blocks.values()
    for sentence in verdict_sentences(largest):
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    refused = [
        f"{entry['a']} and {entry['b']} are not compared on {entry['task']}: {entry['reason']}."
        for entry in comparison["refused"]
    ]
    for sentence in [*refused, *comparison["missing"], *comparison["notes"]]:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)


def verdict_sentences(block: Mapping[str, Any]) -> list[str]:
    """The verdicts on each pair of arms: on Dice in every task, and on the other metrics where there is evidence.

    Args:
        block: `tasks` and `mean` of the comparison, or of one of its sizes.
    """
    found: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for task, row in block["tasks"].items():
        for pair in row["pairs"]:
            by_verdict = found.setdefault((pair["a"], pair["b"]), {}).setdefault(pair["metric"], {})
            by_verdict.setdefault(pair["verdict"], []).append(task)
    overall = {(pair["a"], pair["b"], pair["metric"]): pair["verdict"] for pair in block[MEAN]["pairs"]}
    sentences = []
    for (a, b), metrics in found.items():
        compared = sum(map(len, metrics["dice"].values()))
        verdicts = [
            f"{verdict} ({'all tasks' if len(tasks) == compared > 1 else ', '.join(tasks)})"
            for verdict, tasks in sorted(metrics["dice"].items())
        ]
        if compared > 1 and (a, b, "dice") in overall:
            verdicts.append(f"{overall[a, b, 'dice']} (mean over tasks)")
        others = [
            f"{metric} {verdict} ({', '.join(tasks)})"
            for metric, by_verdict in metrics.items()
            for verdict, tasks in sorted(by_verdict.items())
            if metric != "dice" and verdict in ("better", "worse")
        ]
        rest = "; ".join(others) or "no evidence in any other metric"
        sentences.append(f"{a} against {b}: Dice {', '.join(verdicts)}; {rest}.")
    return sentences


def _caveats(runs: Sequence[FinishedRun], intervals: Collection[int], level: float) -> list[str]:
    """Limits of the tests and intervals, given the numbers of patients that have an interval."""
    notes = []
    if len({run.cell.seed for run in runs}) == 1:
        notes.append("One seed: the tests are about other patients, not about other training runs.")
    if len({run.cell.fold for run in runs}) > 1:
        notes.append(
            "Cross-validation: models of different folds share training cases; the tests treat them as independent."
        )
    if any(n < 5 for n in intervals):
        notes.append(
            "Intervals of 2, 3 or 4 patients cover the mean in about 50, 75 and 88 % of samples, not in "
            f"{100 * (1 - level):g} %: read them as the spread of the cases."
        )
    return notes


def _blocks(comparison: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Training cases a task -> `tasks` and `mean`, from few to all."""
    return {**comparison["sizes"], EVERY_CASE: comparison}


def _rows(comparison: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Training cases a task, task (or `mean`), and what was found."""
    for size, block in _blocks(comparison).items():
        for task, row in block["tasks"].items():
            yield size, task, row
        for task, by_class in block.get("classes", {}).items():
            for name, row in by_class.items():
                yield size, f"{task}/{name}", row
        yield size, MEAN, block[MEAN]  # apart: a task may have that name too


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_table(path, list(rows[0]) if rows else ["cases", "task"], rows)


def _cell(value: Mapping[str, Any] | None) -> str:
    """A mean with its interval, for the terminal."""
    if value is None or value["mean"] is None:
        return "-"
    interval = "" if value["low"] is None else f" [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{value['mean']:.3f}{interval}"
