"""The comparison of the arms on each class of a task, and on tasks whose classes not all runs tell apart."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from medmtl.accuracy import ACCURACY
from medmtl.experiment.analysis.block import compare_block, decide_rows
from medmtl.experiment.analysis.finished import FinishedRun, ScoredCase


def classes_in_common(runs: Iterable[FinishedRun], task: str) -> tuple[str, ...] | None:
    """The classes of a task that all runs measured; none where it has one class, None where the runs differ in them."""
    found = {run.classes_of(task) for run in runs if task in run.cases}
    same = {frozenset(names) for names in found}
    return next(iter(found), ()) if len(same) < 2 else None


def made_comparable(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], list[str]]:
    """The runs, in which a task whose classes not all of them tell apart is measured by its foreground.

    Dice of several classes is their mean, which is no match for the Dice of a foreground.

    Returns:
        The runs, and a sentence on each such task.
    """
    notes = []
    for task in dict.fromkeys(task for run in runs for task in run.cases):
        if classes_in_common(runs, task) is None:
            runs = [_by_foreground(run, task) for run in runs]
            notes.append(
                f"{task}: not all runs tell the same classes apart. Its Dice is that of all classes as one, and runs "
                "with several have no surface distances."
            )
    return list(runs), notes


def compare_classes(runs: Sequence[FinishedRun], order: Iterable[str], level: float) -> dict[str, dict[str, Any]]:
    """Compare the arms on each class, in the metrics of accuracy.

    Holm's correction is over all classes of all tasks and all pairs of one metric, a family of its own.

    Args:
        runs: the finished runs of one training-set size.
        order: the arms, as for `compare_block`.
        level: of significance.

    Returns:
        Task -> class -> row, see `Block`, of the tasks with several classes that all runs measured.
    """
    arms = list(order)
    found: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(task for run in runs for task in run.cases):
        own = [run for run in runs if task in run.cases]
        names = classes_in_common(own, task) or ()
        for name in names:
            of_class = [replace(run, cases={task: [_of_class(case, name) for case in run.cases[task]]}) for run in own]
            row = compare_block(of_class, arms, ACCURACY, level).rows["tasks"][task]
            found.setdefault(task, {})[name] = row
    decide_rows([row for rows in found.values() for row in rows.values()], ACCURACY, level)
    return found


def _of_class(case: ScoredCase, name: str) -> ScoredCase:
    own = case.classes.get(name, {})
    return replace(case, values={metric: own.get(metric, math.nan) for metric in ACCURACY})


def _by_foreground(run: FinishedRun, task: str) -> FinishedRun:
    if task not in run.cases or not run.classes_of(task):
        return run
    cases = [
        replace(case, values={**case.values, **dict.fromkeys(ACCURACY, math.nan), "dice": case.foreground_dice})
        for case in run.cases[task]
    ]
    return replace(run, cases={**run.cases, task: cases})
