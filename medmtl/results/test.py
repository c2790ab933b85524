"""What a test found, case by case, and the numbers of `report.json` and `cases.csv` that follow from it."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.definitions import METRICS, summarise
from medmtl.files import written_whole
from medmtl.ood.metrics.detection import detection_metrics
from medmtl.results.intervals import calibration_intervals

SCHEMA = 1


@dataclass(frozen=True)
class CaseResult:
    """What a test found for one case.

    Attributes:
        case: the case's name, unique within its dataset.
        dataset: the task or the folder it comes from.
        expected: "in" for the test cases of a trained task, "out" for other anatomy and held-out tasks.
        dice: Dice of the segmentation; None without a label, NaN for a label without foreground.
        hd95_mm: 95 % Hausdorff distance of the surfaces, mm; None and NaN as for Dice.
        asd_mm: average symmetric surface distance, mm; None and NaN as for Dice.
        calibration: region -> reliability bins of the case; empty without a label.
        scores: name of an out-of-distribution score -> its value, higher = more out of distribution.
        p_value: conformal p-value of the score that judges; None without a signature bank.
        rejected: the verdict, True for out of distribution; None where none can be given.
        nearest_task: the task that the case looks most like.
        preprocessing: the preprocessing under which the case was scored.
        patient: who it is, where several cases or tasks show the same person.
        calibration_scaled: as `calibration`, after scaling; empty without one.
    """

    case: str
    dataset: str
    expected: Literal["in", "out"]
    dice: float | None
    hd95_mm: float | None
    asd_mm: float | None
    calibration: Mapping[str, BinTable]
    scores: Mapping[str, float]
    p_value: float | None
    rejected: bool | None
    nearest_task: str | None
    preprocessing: str | None
    patient: str | None = None
    calibration_scaled: Mapping[str, BinTable] = field(default_factory=dict)

    @property
    def person(self) -> str:
        """Whose case it is: one that names no patient is a patient of its own."""
        return self.patient or self.case


def tasks_of(results: Iterable[CaseResult]) -> list[str]:
    """The in-distribution tasks, in the order in which they first appear."""
    return list(dict.fromkeys(result.dataset for result in results if result.expected == "in"))


def pooled_bins(results: Iterable[CaseResult], region: str, scaled: bool = False) -> BinTable | None:
    """The bins of all cases together over one region, perhaps after scaling; None if no case has that region."""
    cases = [result.calibration_scaled if scaled else result.calibration for result in results]
    tables = [case[region] for case in cases if region in case]
    return reduce(add, tables) if tables else None


def best_and_worst(results: Iterable[CaseResult]) -> dict[str, CaseResult]:
    """The cases of highest and lowest Dice.

    Args:
        results: cases of one task; those without a Dice are passed over.

    Returns:
        `{"best": ..., "worst": ...}`, `{"only": ...}` for a single case, or nothing.
    """
    ranked = sorted((result for result in results if _is_number(result.dice)), key=lambda result: result.dice or 0.0)
    if len(ranked) == 1:
        return {"only": ranked[0]}
    return {"best": ranked[-1], "worst": ranked[0]} if ranked else {}


def build_report(
    run: str,
    results: Sequence[CaseResult],
    alpha: float,
    scaling: Mapping[str, Any] | None = None,
    ood_detector: str | None = None,
) -> dict[str, Any]:
    """The content of `report.json`.

    Standard deviations are over cases with n - 1 in the denominator. `calibration` pools the voxels of all cases of
    a task, `calibration_per_case` is the mean over its cases, and `calibration_scaled` pools them after scaling. Their
    intervals and `scaling_gain` are those of `calibration_intervals`. A number that does not exist is None, never NaN.

    Args:
        run: name of the run.
        results: all cases.
        alpha: the false alarm rate that the verdicts were set to allow, in (0, 1).
        scaling: what was fitted after the training, see `ScalingCallback.summary`.
        ood_detector: name of the score that the verdicts follow.

    Returns:
        A dict that strict JSON can hold.
    """
    cases = {task: [result for result in results if result.dataset == task] for task in tasks_of(results)}
    tasks = {task: _task(task, own) for task, own in cases.items()}
    means = {
        **{metric: _mean(task[metric]["mean"] for task in tasks.values()) for metric in ACCURACY},
        "calibration": _mean_over_tasks(tasks, "calibration"),
        **{kind: _mean_over_tasks(tasks, kind) for kind in ("calibration_per_case", "calibration_scaled")},
        **calibration_intervals(cases),
    }
    report = {
        "schema": SCHEMA,
        "run": run,
        "tasks": tasks,
        "mean": means,
        "scaling": scaling,
        "ood": _detection(results, alpha, ood_detector),
    }
    plain: dict[str, Any] = _without_nan(report)
    return plain


def cases_table(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """One flat row a case, all with the same keys; None where a case has no such value."""
    regions = list(dict.fromkeys(region for result in results for region in result.calibration))
    scaled_regions = list(dict.fromkeys(region for result in results for region in result.calibration_scaled))
    scores = list(dict.fromkeys(score for result in results for score in result.scores))
    rows = []
    for result in results:
        row: dict[str, Any] = {
            "dataset": result.dataset,
            "case": result.case,
            "patient": result.patient,
            "expected": result.expected,
            **{metric: getattr(result, metric) for metric in ACCURACY},
        }
        for region in regions:
            metrics = summarise(result.calibration[region]) if region in result.calibration else {}
            row |= {f"{metric}_{region}": metrics.get(metric) for metric in METRICS}
        row |= {score: result.scores.get(score) for score in scores}
        row |= {
            "p_value": result.p_value,
            "rejected": result.rejected,
            "nearest_task": result.nearest_task,
            "preprocessing": result.preprocessing,
        }
        for region in scaled_regions:
            scaled = result.calibration_scaled
            metrics = summarise(scaled[region]) if region in scaled else {}
            row |= {f"{metric}_{region}_scaled": metrics.get(metric) for metric in METRICS}
        rows.append(row)
    return rows


def write_cases(path: Path, results: Sequence[CaseResult]) -> None:
    """Write `cases_table` as CSV: empty where there is no value, `nan` for an undefined one."""
    rows = cases_table(results)
    with written_whole(path) as beside, beside.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["dataset", "case"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _task(name: str, results: Sequence[CaseResult]) -> dict[str, Any]:
    regions = list(dict.fromkeys(region for result in results for region in result.calibration))
    pooled, per_case, scaled = {}, {}, {}
    for region in regions:
        cases = [summarise(result.calibration[region]) for result in results if region in result.calibration]
        per_case[region] = {metric: _mean(case[metric] for case in cases) for metric in METRICS}
        table = pooled_bins(results, region)
        if table is not None:
            pooled[region] = summarise(table)
        table = pooled_bins(results, region, scaled=True)
        if table is not None:
            scaled[region] = summarise(table)
    return {
        "cases": len(results),
        **{metric: _spread([getattr(result, metric) for result in results]) for metric in ACCURACY},
        "calibration": pooled,
        "calibration_per_case": per_case,
        "calibration_scaled": scaled,
        **calibration_intervals({name: results}),
    }


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and deviation over the cases that have a number, and how many have none though they have a label."""
    defined = [value for value in values if value is not None and math.isfinite(value)]
    return {
        "mean": _mean(defined),
        "std": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        "undefined": sum(value is not None for value in values) - len(defined),
    }


def _detection(results: Sequence[CaseResult], alpha: float, ood_detector: str | None) -> dict[str, Any]:
    inside = [result for result in results if result.expected == "in"]
    outside = [result for result in results if result.expected == "out"]
    names = list(dict.fromkeys(score for result in results for score in result.scores))
    false_alarms = [result.rejected for result in inside if result.rejected is not None]
    detections = [result.rejected for result in outside if result.rejected is not None]
    notes = []
    if not outside:
        notes.append("No out-of-distribution cases were tested.")
    if results and "spectral" not in names:
        notes.append("The checkpoint holds no signature bank: no spectral score and no verdict.")
    elif results and not false_alarms and not detections:
        notes.append("No verdict could be given: too few validation cases to set a threshold.")
    return {
        "in_cases": len(inside),
        "out_cases": len(outside),
        "scores": {name: _score_metrics(name, inside, outside) for name in names} if outside else {},
        "verdict": {
            "alpha": alpha,
            "score": ood_detector,
            "false_alarm_rate": _mean(false_alarms),
            "detection_rate": _mean(detections),
            "false_alarms": sum(false_alarms),
            "in_decided": len(false_alarms),
            "detections": sum(detections),
            "out_decided": len(detections),
        },
        "datasets": {dataset: _verdicts(results, dataset) for dataset in dict.fromkeys(r.dataset for r in results)},
        "note": " ".join(notes) or None,
    }


def _score_metrics(name: str, inside: Sequence[CaseResult], outside: Sequence[CaseResult]) -> dict[str, Any]:
    """`detection_metrics` over the cases whose score is a number, and how many are not."""
    known = [[r.scores[name] for r in side if _is_number(r.scores.get(name))] for side in (inside, outside)]
    undefined = len(inside) + len(outside) - len(known[0]) - len(known[1])
    return {**detection_metrics(np.array(known[0]), np.array(known[1])), "undefined": undefined}


def _verdicts(results: Sequence[CaseResult], dataset: str) -> dict[str, Any]:
    own = [result for result in results if result.dataset == dataset]
    decided = [result.rejected for result in own if result.rejected is not None]
    return {"expected": own[0].expected, "cases": len(own), "decided": len(decided), "rejected": sum(decided)}


def _mean_over_tasks(tasks: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, dict[str, float | None]]:
    regions = list(dict.fromkeys(region for task in tasks.values() for region in task[kind]))
    return {
        region: {
            metric: _mean(task[kind][region][metric] for task in tasks.values() if region in task[kind])
            for metric in METRICS
        }
        for region in regions
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is a number; None if nothing is."""
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(numbers)) if numbers else None


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
