"""The comparison of the arms on each task and over all tasks, at one training-set size."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, TypeVar

from medmtl.experiment.analysis.finished import FinishedRun
from medmtl.experiment.analysis.pairing import Pairing, pair_runs, runs_in_common
from medmtl.experiment.analysis.statistics import (
    compare_paired,
    decide,
    estimate_mean,
    holm,
    patients_needed,
    smallest_holm,
)
from medmtl.quantity import Quantity

MEAN = "mean"

Key = TypeVar("Key")


@dataclass
class Sample:
    """One value a case, with its patient and task.

    Attributes:
        values: a case's mean over seeds and folds of what is defined; NaN where nothing is.
        patients: one a case.
        tasks: one a case.
        undefined: how many values, each of a case in a run, are undefined.
    """

    values: list[float] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    undefined: int = 0

    @classmethod
    def of(cls, task: str, measured: Iterable[tuple[str, str, float]]) -> "Sample":
        """The sample of a task from (case, patient, value) of several runs."""
        by_case: dict[tuple[str, str], list[float]] = defaultdict(list)
        for case, patient, value in measured:
            by_case[case, patient].append(value)
        sample = cls()
        for (_, patient), values in by_case.items():
            defined = [value for value in values if math.isfinite(value)]
            sample.values.append(math.fsum(defined) / len(defined) if defined else math.nan)
            sample.patients.append(patient)
            sample.tasks.append(task)
            sample.undefined += len(values) - len(defined)
        return sample

    @classmethod
    def joined(cls, samples: Iterable["Sample"]) -> "Sample":
        """The samples of several tasks as one."""
        whole = cls()
        for sample in samples:
            whole.values += sample.values
            whole.patients += sample.patients
            whole.tasks += sample.tasks
            whole.undefined += sample.undefined
        return whole


Samples = Mapping[str, Sample]  # by metric


@dataclass(frozen=True)
class Block:
    """The comparison at one training-set size.

    Attributes:
        rows: `{"tasks": {TASK: row}, "mean": row}`; a row is `{"arms": {ARM: {METRIC: ...}}, "pairs": [...]}`.
        refused: pairs of arms that were not compared, `{"task", "a", "b", "reason"}`.
        missing: what was left out, in sentences.
        notes: what a reader should know, in sentences.
    """

    rows: dict[str, Any]
    refused: list[dict[str, str]]
    missing: list[str]
    notes: list[str]


def compare_block(
    runs: Sequence[FinishedRun], order: Iterable[str], metrics: Mapping[str, Quantity], level: float
) -> Block:
    """Compare the arms.

    Args:
        runs: the finished runs of one training-set size.
        order: the arms; of a pair, the later one is compared with the earlier one.
        metrics: what they are compared by.
        level: of significance.
    """
    present = {run.cell.arm for run in runs}
    arms = [arm for arm in order if arm in present]
    # The run that tests most tasks gives their order.
    tasks = list(dict.fromkeys(task for run in sorted(runs, key=lambda run: -len(run.cases)) for task in run.cases))
    of = {
        task: {arm: [run for run in runs if run.cell.arm == arm and task in run.cases] for arm in arms}
        for task in tasks
    }
    pairings = {
        task: {(a, b): pair_runs(task, a, b, of[task][a], of[task][b]) for b, a in combinations(arms, 2)}
        for task in tasks
    }
    in_common = {
        task: runs_in_common(task, {arm: found for arm, found in by_arm.items() if found})
        for task, by_arm in of.items()
    }
    arm_samples = {
        task: {arm: _of_arm(task, found, metrics) for arm, found in by_arm.items()}
        for task, (by_arm, _) in in_common.items()
    }
    pair_samples = {
        task: {arms: _of_pair(task, found, metrics) for arms, found in by_arms.items() if found.refused is None}
        for task, by_arms in pairings.items()
    }
    rows = {task: _row(arm_samples[task], pair_samples[task], level) for task in tasks}
    mean = _row(_joined(arm_samples), _joined(pair_samples), level)
    decide_rows(list(rows.values()), metrics, level)
    decide_rows([mean], metrics, level)
    refused, missing = _left_out(pairings, of)
    missing += [sentence for _, sentences in in_common.values() for sentence in sentences]
    return Block({"tasks": rows, MEAN: mean}, refused, missing, _notes(rows, mean, metrics, level))


def _of_arm(task: str, runs: Sequence[FinishedRun], metrics: Iterable[str]) -> Samples:
    return {
        metric: Sample.of(
            task, ((case.case, case.patient, case.values[metric]) for run in runs for case in run.cases[task])
        )
        for metric in metrics
    }


def _of_pair(task: str, pairing: Pairing, metrics: Iterable[str]) -> Samples:
    """Differences of the same case, seed and fold."""
    measured: dict[str, list[tuple[str, str, float]]] = {metric: [] for metric in metrics}
    for first, second in pairing.runs:
        other = {case.case: case for case in second.cases[task]}
        for case in first.cases[task]:
            for metric in measured:
                difference = case.values[metric] - other[case.case].values[metric]
                measured[metric].append((case.case, case.patient, difference))
    return {metric: Sample.of(task, found) for metric, found in measured.items()}


def _joined(samples: Mapping[str, Mapping[Key, Samples]]) -> dict[Key, Samples]:
    """The samples of all tasks as one, for those arms or pairs that every task has."""
    by_task = list(samples.values())
    everywhere = [key for key in by_task[0] if all(key in found for found in by_task)]
    return {
        key: {metric: Sample.joined(found[key][metric] for found in by_task) for metric in by_task[0][key]}
        for key in everywhere
    }


def _row(arms: Mapping[str, Samples], pairs: Mapping[tuple[str, str], Samples], level: float) -> dict[str, Any]:
    row: dict[str, Any] = {"arms": {}, "pairs": []}
    for arm, samples in arms.items():
        row["arms"][arm] = {
            metric: {
                **asdict(estimate_mean(sample.values, sample.patients, sample.tasks, level)),
                "undefined": sample.undefined,
            }
            for metric, sample in samples.items()
        }
    for (a, b), samples in pairs.items():
        for metric, sample in samples.items():
            paired = compare_paired(sample.values, sample.patients, sample.tasks, level)
            estimate = paired.estimate
            row["pairs"].append(
                {
                    "a": a,
                    "b": b,
                    "metric": metric,
                    "difference": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n": estimate.n,
                    "p": paired.p,
                    "p_holm": None,
                    "smallest_p_holm": None,
                    "rank_biserial": paired.rank_biserial,
                    "cohen_dz": paired.cohen_dz,
                    "verdict": None,
                }
            )
    return row


def decide_rows(rows: Sequence[dict[str, Any]], metrics: Mapping[str, Quantity], level: float) -> None:
    """Fill in the adjusted p-values and the verdicts: the pairs of all rows are one family a metric.

    Args:
        rows: of a `Block`, changed in place.
        metrics: what they are compared by.
        level: of significance.
    """
    for metric, about in metrics.items():
        family = [pair for row in rows for pair in row["pairs"] if pair["metric"] == metric]
        p_values = [pair["p"] for pair in family]
        smallest = smallest_holm(p_values, [pair["n"] for pair in family])
        for pair, pair["p_holm"], pair["smallest_p_holm"] in zip(family, holm(p_values), smallest, strict=True):
            pair["verdict"] = decide(
                pair["difference"],
                pair["low"],
                pair["high"],
                pair["rank_biserial"],
                pair["p_holm"],
                pair["smallest_p_holm"],
                "higher" if about.higher_is_better else "lower",
                level,
            )


def _left_out(
    pairings: Mapping[str, Mapping[tuple[str, str], Pairing]], of: Mapping[str, Mapping[str, Sequence[FinishedRun]]]
) -> tuple[list[dict[str, str]], list[str]]:
    """Refused pairs, and sentences on the runs that have no partner and the arms that lack a task."""
    refused, missing = [], []
    for task, by_arms in pairings.items():
        for (a, b), pairing in by_arms.items():
            if pairing.refused is not None:
                refused.append({"task": task, "a": a, "b": b, "reason": pairing.refused})
            if pairing.left_out is not None:
                missing.append(f"{a} and {b} on {task}: without a partner and left out: {pairing.left_out}.")
    for arm in next(iter(of.values())):
        lacking = [task for task, by_arm in of.items() if not by_arm[arm]]
        if lacking:
            missing.append(f"{arm} has no finished run on {', '.join(lacking)}, so that it has no mean over tasks.")
    return refused, missing


def _notes(
    rows: Mapping[str, Mapping[str, Any]], mean: Mapping[str, Any], metrics: Collection[str], level: float
) -> list[str]:
    notes = []
    for task, row in rows.items():
        counts = {metric: sum(arm[metric]["undefined"] for arm in row["arms"].values()) for metric in metrics}
        if any(counts.values()):
            found = ", ".join(f"{count} of {metric}" for metric, count in counts.items() if count)
            notes.append(f"{task}: undefined values were left out: {found}.")
    tests = max(
        sum(pair["metric"] == metric and pair["p"] is not None for row in rows.values() for pair in row["pairs"])
        for metric in metrics
    )
    if any((pair["smallest_p_holm"] or 0) > level for row in rows.values() for pair in row["pairs"]):
        needed = patients_needed(tests, level)
        notes.append(
            f"Among {tests} comparisons a metric, a difference can be found by itself from {needed} patients a task on."
        )
    if any(pair["n"] > 1 and pair["difference"] is not None and pair["low"] is None for pair in mean["pairs"]):
        notes.append(
            "Where a task has values of a single patient, their spread is unknown: "
            "the mean over tasks has no interval and is no evidence."
        )
    return notes
