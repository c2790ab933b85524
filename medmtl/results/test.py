"""The result of testing a run, and the contents of `report.json` and `cases.csv` that are derived from it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.definitions import METRICS, BinMetric, summarise
from medmtl.data.facts import DataFacts
from medmtl.files import write_table
from medmtl.ood.detectors import SCORES
from medmtl.ood.mask_rule import ACCEPTABLE
from medmtl.ood.metrics.auroc_interval import auroc_interval
from medmtl.ood.metrics.detection import detection_metrics
from medmtl.ood.metrics.false_alarms import FlaggedPeople, flagged_people
from medmtl.ood.score import OODScore, in_words
from medmtl.quantity import Quantity
from medmtl.results.accuracy_intervals import accuracy_intervals
from medmtl.results.by_class import class_columns, classes_report, routing_report
from medmtl.results.case import CaseResult, is_number, people_of, pooled_bins, tasks_of
from medmtl.results.intervals import calibration_intervals
from medmtl.results.spread import mean_of, spread_of

SCHEMA = 2
DESCRIBED = ("label", "unit", "higher_is_better", "digits", "short")  # of a `Quantity`
LOGGED = ("auroc", "aupr_out")  # of each OOD score
KINDS = ("calibration", "calibration_per_case", "calibration_scaled")


@dataclass(frozen=True)
class EvaluationResult:
    """The result of testing a run.

    Attributes:
        run: name of the run.
        cases: all cases, tasks in the order of the configuration.
        alpha: the false alarm rate that the verdicts were set to allow, in (0, 1).
        ood_score: key of the score that the verdicts follow; None without an OOD detector.
        threshold: of that score; None without enough held-out cases for a verdict.
        calibration_patients: patients of each group of held-out ones that share a threshold; p is at least
            1 / (patients + 1).
        promise: of which in-distribution images at most a share of alpha is flagged, and whether exactly, see
            `ConformalRule.stated`; None without a verdict.
        mask_threshold: of the disagreement with the mask of the mirrored image; None where masks are not checked.
        scaling: the post-hoc scaling that was applied, see `ScalingCallback.summary`; None without one.
        preprocessings: of the trained tasks, as text.
        metrics: the calibration metrics, by key.
        scores: the OOD scores, by key; one that is not among them is called by its key.
        data: what is known of the data of each task.
    """

    run: str
    cases: Sequence[CaseResult]
    alpha: float
    ood_score: str | None = None
    threshold: float | None = None
    calibration_patients: Sequence[int] = ()
    promise: str | None = None
    mask_threshold: float | None = None
    scaling: Mapping[str, Any] | None = None
    preprocessings: Sequence[str] = ()
    metrics: Mapping[str, BinMetric] = field(default_factory=lambda: METRICS)
    scores: Mapping[str, OODScore] = field(default_factory=lambda: SCORES)
    data: Mapping[str, DataFacts] = field(default_factory=dict)

    @property
    def quantities(self) -> dict[str, Quantity]:
        """All that was measured, by key: accuracy, calibration metrics and the OOD scores that cases have."""
        names = dict.fromkeys(name for case in self.cases for name in case.scores)
        return {
            **ACCURACY,
            **{key: metric.quantity for key, metric in self.metrics.items()},
            **{name: self.score(name) for name in names},
        }

    def score(self, name: str) -> OODScore:
        """The description of an OOD score."""
        return self.scores.get(name) or OODScore(key=name, label=in_words(name))


def build_report(evaluation: EvaluationResult) -> dict[str, Any]:
    """The content of `report.json`, which strict JSON can hold: a number that does not exist is None, never NaN.

    Standard deviations are over cases with n - 1 in the denominator. `calibration` pools the voxels of all cases of
    a task, `calibration_per_case` is the mean over its cases, and `calibration_scaled` pools them after scaling. Their
    intervals and `scaling_gain` are those of `calibration_intervals`, those of accuracy of `accuracy_intervals`.
    `metrics` describes all that was measured.

    A task with several classes has `classes` and `foreground_dice`, see `classes_report`; its other figures of accuracy
    are means over the classes, and those of calibration of all classes as one. `routing` is there for a network with an
    output for each task, see `routing_report`.

    `ood` counts cases and people. In `scores`, `low`, `high` and `reliable` are of `auroc`, see `auroc_interval`.
    `false_alarms` counts people with a flagged in-distribution image, `detections` those with a flagged OOD one, with
    exact intervals, as in each of `datasets`; see `flagged_people`.
    """
    results = evaluation.cases
    cases = {task: [result for result in results if result.dataset == task] for task in tasks_of(results)}
    tasks = {task: _task(task, own, evaluation.metrics) for task, own in cases.items()}
    means = {
        **{metric: mean_of(task[metric]["mean"] for task in tasks.values()) for metric in ACCURACY},
        "accuracy_intervals": accuracy_intervals(cases),
        **{kind: _mean_over_tasks(tasks, kind, evaluation.metrics) for kind in KINDS},
        **calibration_intervals(cases),
    }
    routing = routing_report(results)
    report = {
        "schema": SCHEMA,
        "run": evaluation.run,
        "metrics": {key: _description(quantity) for key, quantity in evaluation.quantities.items()},
        "preprocessing": list(evaluation.preprocessings),
        "data": {task: asdict(facts) for task, facts in evaluation.data.items()},
        "tasks": tasks,
        "mean": means,
        "scaling": evaluation.scaling,
        **({"routing": routing} if routing else {}),
        "ood": _detection(evaluation),
    }
    plain: dict[str, Any] = _without_nan(report)
    return plain


def logged_detection(ood: Mapping[str, Any]) -> dict[str, float]:
    """What loggers get of `ood` in `report.json`, by key; what does not exist is left out.

    `test/ood/SCORE/auroc` and `aupr_out` of each score; of the verdict `test/ood/verdict/auroc`, of the score that
    gives it, `false_alarm_rate` and `detection_rate`; and of each dataset `test/DATASET/rejected_rate`.
    """
    found = {f"{name}/{key}": score[key] for name, score in ood["scores"].items() for key in LOGGED}
    verdict = ood["verdict"]
    found |= {f"verdict/{key}": verdict[key] for key in ("false_alarm_rate", "detection_rate")}
    found["verdict/auroc"] = found.get(f"{verdict['score']}/auroc")
    logged = {f"test/ood/{key}": value for key, value in found.items()}
    for name, own in ood["datasets"].items():
        logged[f"test/{name}/rejected_rate"] = own["rejected"] / own["decided"] if own["decided"] else None
    return {key: float(value) for key, value in logged.items() if value is not None}


def cases_table(results: Sequence[CaseResult], metrics: Mapping[str, BinMetric] = METRICS) -> list[dict[str, Any]]:
    """One flat row a case, all with the same keys; None where a case has no such value.

    Args:
        results: the cases.
        metrics: the calibration metrics, by key.
    """
    regions = list(dict.fromkeys(region for result in results for region in result.calibration))
    scaled_regions = list(dict.fromkeys(region for result in results for region in result.calibration_scaled))
    scores = list(dict.fromkeys(score for result in results for score in result.scores))
    rows = []
    for result, of_classes in zip(results, class_columns(results), strict=True):
        row: dict[str, Any] = {
            "dataset": result.dataset,
            "case": result.case,
            "patient": result.patient,
            "expected": result.expected,
            **{metric: getattr(result, metric) for metric in ACCURACY},
            **of_classes,
        }
        for region in regions:
            found = summarise(result.calibration[region], metrics) if region in result.calibration else {}
            row |= {f"{metric}_{region}": found.get(metric) for metric in metrics}
        row |= {score: result.scores.get(score) for score in scores}
        row |= {
            "p_value": result.p_value,
            "rejected": result.rejected,
            "nearest_task": result.nearest_task,
            "preprocessing": result.preprocessing,
            "mask_reliable": result.mask_reliable,
            "mask_disagreement": result.mask_disagreement,
            "reasons": "; ".join(result.reasons),
        }
        for region in scaled_regions:
            scaled = result.calibration_scaled
            found = summarise(scaled[region], metrics) if region in scaled else {}
            row |= {f"{metric}_{region}_scaled": found.get(metric) for metric in metrics}
        rows.append(row)
    return rows


def write_cases(path: Path, results: Sequence[CaseResult], metrics: Mapping[str, BinMetric] = METRICS) -> None:
    """Write `cases_table` as CSV: empty where there is no value, `nan` for an undefined one."""
    rows = cases_table(results, metrics)
    write_table(path, list(rows[0]) if rows else ["dataset", "case"], rows)


def _task(name: str, results: Sequence[CaseResult], metrics: Mapping[str, BinMetric]) -> dict[str, Any]:
    regions = list(dict.fromkeys(region for result in results for region in result.calibration))
    pooled, per_case, scaled = {}, {}, {}
    for region in regions:
        cases = [summarise(result.calibration[region], metrics) for result in results if region in result.calibration]
        per_case[region] = {metric: mean_of(case[metric] for case in cases) for metric in metrics}
        table = pooled_bins(results, region)
        if table is not None:
            pooled[region] = summarise(table, metrics)
        table = pooled_bins(results, region, scaled=True)
        if table is not None:
            scaled[region] = summarise(table, metrics)
    return {
        "cases": len(results),
        "people": people_of(results),
        **{metric: spread_of([getattr(result, metric) for result in results]) for metric in ACCURACY},
        "accuracy_intervals": accuracy_intervals({name: results}),
        **classes_report(results, metrics),
        "calibration": pooled,
        "calibration_per_case": per_case,
        "calibration_scaled": scaled,
        **calibration_intervals({name: results}),
    }


def _detection(evaluation: EvaluationResult) -> dict[str, Any]:
    results = evaluation.cases
    inside = [result for result in results if result.expected == "in"]
    outside = [result for result in results if result.expected == "out"]
    names = list(dict.fromkeys(score for result in results for score in result.scores))
    false_alarms = [result.rejected for result in inside if result.rejected is not None]
    detections = [result.rejected for result in outside if result.rejected is not None]
    notes = []
    if not outside:
        notes.append("No out-of-distribution cases were tested.")
    if results and evaluation.ood_score is None:
        notes.append("The checkpoint holds no signature bank: no spectral score and no verdict.")
    elif results and not false_alarms and not detections:
        notes.append("No verdict could be given: too few validation cases to set a threshold.")
    return {
        "in_cases": len(inside),
        "in_people": people_of(inside),
        "out_cases": len(outside),
        "out_people": people_of(outside),
        "scores": {name: _score_metrics(name, inside, outside) for name in names} if outside else {},
        "verdict": {
            "alpha": evaluation.alpha,
            "score": evaluation.ood_score,
            "threshold": evaluation.threshold,
            "calibration_patients": list(evaluation.calibration_patients),
            "promise": evaluation.promise,
            "false_alarm_rate": mean_of(false_alarms),
            "detection_rate": mean_of(detections),
            "false_alarms": sum(false_alarms),
            "in_decided": len(false_alarms),
            "detections": sum(detections),
            "out_decided": len(detections),
        },
        "masks": _masks(inside, evaluation),
        "false_alarms": asdict(_flagged(inside)),
        "detections": asdict(_flagged(outside)),
        "datasets": {dataset: _verdicts(results, dataset) for dataset in dict.fromkeys(r.dataset for r in results)},
        "note": " ".join(notes) or None,
    }


def _masks(inside: Sequence[CaseResult], evaluation: EvaluationResult) -> dict[str, Any]:
    """How many doubtful and other masks of in-distribution images were called not reliable, or their image OOD."""
    known = [result for result in inside if is_number(result.dice) and result.mask_reliable is not None]
    doubtful = [result for result in known if (result.dice or 0.0) < ACCEPTABLE]
    acceptable = [result for result in known if result not in doubtful]
    return {
        "alpha": evaluation.alpha,
        "threshold": evaluation.mask_threshold,
        "acceptable_dice": ACCEPTABLE,
        "doubtful": len(doubtful),
        "doubtful_found": sum(result.mask_reliable is False for result in doubtful),
        "doubtful_found_by_either": sum(
            result.mask_reliable is False or result.rejected is True for result in doubtful
        ),
        "acceptable": len(acceptable),
        "acceptable_flagged": sum(result.mask_reliable is False for result in acceptable),
    }


def _score_metrics(name: str, inside: Sequence[CaseResult], outside: Sequence[CaseResult]) -> dict[str, Any]:
    """`detection_metrics` over the cases whose score is a number, the interval of AUROC, and how many are not."""
    known = [[r for r in side if is_number(r.scores.get(name))] for side in (inside, outside)]
    found = detection_metrics(*([r.scores[name] for r in side] for side in known))
    people = [[r.person for r in side] for side in known]
    auroc = auroc_interval(found["auroc"], people[0], [people[1]])
    return {
        **found,
        "low": auroc.low,
        "high": auroc.high,
        "reliable": auroc.reliable,
        "undefined": len(inside) + len(outside) - len(known[0]) - len(known[1]),
    }


def _verdicts(results: Sequence[CaseResult], dataset: str) -> dict[str, Any]:
    own = [result for result in results if result.dataset == dataset]
    decided = [result.rejected for result in own if result.rejected is not None]
    return {
        "expected": own[0].expected,
        "cases": len(own),
        "decided": len(decided),
        "rejected": sum(decided),
        **asdict(_flagged(own)),
    }


def _flagged(results: Sequence[CaseResult]) -> FlaggedPeople:
    return flagged_people([result.rejected for result in results], [result.person for result in results])


def _mean_over_tasks(
    tasks: Mapping[str, Mapping[str, Any]], kind: str, metrics: Iterable[str]
) -> dict[str, dict[str, float | None]]:
    regions = list(dict.fromkeys(region for task in tasks.values() for region in task[kind]))
    return {
        region: {
            metric: mean_of(task[kind][region][metric] for task in tasks.values() if region in task[kind])
            for metric in metrics
        }
        for region in regions
    }


def _description(quantity: Quantity) -> dict[str, Any]:
    """A quantity as `report.json` holds it, under its key."""
    return {name: value for name, value in asdict(quantity).items() if name in DESCRIBED}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
