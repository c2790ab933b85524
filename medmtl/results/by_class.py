"""What a test found of each class of a task, and of recognising the task, as `report.json` and `cases.csv` hold it."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from medmtl.accuracy import ACCURACY, RECOGNISED
from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.definitions import BinMetric, summarise
from medmtl.results.case import CaseResult, is_number
from medmtl.results.spread import mean_of, spread_of

FOREGROUND_DICE = "foreground_dice"


def classes_of(results: Iterable[CaseResult]) -> list[str]:
    """The classes of some cases, in the order of those that have most; none where tasks have one."""
    ordered = sorted(results, key=lambda result: -len(result.classes))
    return list(dict.fromkeys(name for result in ordered for name in result.classes))


def class_bins(results: Iterable[CaseResult], region: str, scaled: bool = False) -> dict[str, BinTable]:
    """Class -> the bins of all cases together over one region, after scaling if `scaled`, of those that have some."""
    cases = list(results)
    found = {}
    for name in classes_of(cases):
        both = [case.class_calibration_scaled if scaled else case.class_calibration for case in cases]
        own = [classes.get(name, {}) for classes in both]
        tables = [regions[region] for regions in own if region in regions]
        if tables:
            found[name] = reduce(add, tables)
    return found


def class_regions(results: Iterable[CaseResult]) -> list[str]:
    """The regions over which classes were binned."""
    binned = [regions for result in results for regions in result.class_calibration.values()]
    return list(dict.fromkeys(region for regions in binned for region in regions))


def classes_report(results: Sequence[CaseResult], metrics: Mapping[str, BinMetric]) -> dict[str, Any]:
    """What is reported of a task with several classes; nothing of one with a single class.

    Args:
        results: the cases of the task.
        metrics: the calibration metrics, by key.

    Returns:
        `foreground_dice`, of all classes as one, over `foreground_cases`, those that mark all; and `classes`: class ->
        `cases` (whose label marks it), the accuracy as that of the task, `calibration` and `calibration_per_case` of
        its probability against all else, and `calibration_scaled` where it was scaled.
    """
    regions = class_regions(results)
    pooled = {region: class_bins(results, region) for region in regions}
    after = {region: class_bins(results, region, scaled=True) for region in regions}
    found: dict[str, Any] = {}
    for name in classes_of(results):
        own = [result.classes[name] for result in results if name in result.classes]
        tables = [result.class_calibration.get(name, {}) for result in results]
        calibration, per_case = {}, {}
        scaled = {region: summarise(after[region][name], metrics) for region in regions if name in after[region]}
        for region in (region for region in regions if name in pooled[region]):
            cases = [summarise(table[region], metrics) for table in tables if region in table]
            calibration[region] = summarise(pooled[region][name], metrics)
            per_case[region] = {metric: mean_of(case[metric] for case in cases) for metric in metrics}
        found[name] = {
            "cases": len(own),
            **{metric: spread_of([values.get(metric) for values in own]) for metric in ACCURACY},
            "calibration": calibration,
            "calibration_per_case": per_case,
            **({"calibration_scaled": scaled} if scaled else {}),
        }
    if not found:
        return {}
    together = [result.foreground_dice for result in results]
    judged = sum(value is not None for value in together)
    return {FOREGROUND_DICE: spread_of(together), "foreground_cases": judged, "classes": found}


def routing_report(results: Iterable[CaseResult]) -> dict[str, Any]:
    """Dice with the task told beside Dice with the task recognised, of a network with an output for each task.

    Args:
        results: all cases.

    Returns:
        Nothing where it was not measured. Else `cases` (with a Dice), `dice_told` and `dice_recognised` (means over
        these), `wrong` (how many got the head of another task) and `wrong_cases`, each `dataset`, `case`,
        `nearest_task`, `dice_told` and `dice_recognised`.
    """
    routed = [result for result in results if result.dice_recognised is not None]
    if not routed:
        return {}
    measured = [result for result in routed if is_number(result.dice) and is_number(result.dice_recognised)]
    wrong = [result for result in routed if result.nearest_task != result.dataset]
    return {
        "cases": len(routed),
        "dice_told": mean_of(result.dice for result in measured),
        "dice_recognised": mean_of(result.dice_recognised for result in measured),
        "wrong": len(wrong),
        "wrong_cases": [
            {
                "dataset": result.dataset,
                "case": result.case,
                "nearest_task": result.nearest_task,
                "dice_told": result.dice,
                "dice_recognised": result.dice_recognised,
            }
            for result in wrong
        ],
    }


def class_columns(results: Sequence[CaseResult]) -> list[dict[str, float | None]]:
    """Columns of `cases.csv`, a row a case: `CLASS/METRIC` and `foreground_dice`, and `dice_recognised`.

    Returns:
        A row for each case, all with the same keys; those of classes only where a task has several, and the last one
        only where it was measured.
    """
    several = classes_of(results)
    routed = any(result.dice_recognised is not None for result in results)
    rows = []
    for result in results:
        row: dict[str, float | None] = {}
        for name in several:
            row |= {f"{name}/{metric}": result.classes.get(name, {}).get(metric) for metric in ACCURACY}
        row |= {FOREGROUND_DICE: result.foreground_dice} if several else {}
        row |= {RECOGNISED: result.dice_recognised} if routed else {}
        rows.append(row)
    return rows
