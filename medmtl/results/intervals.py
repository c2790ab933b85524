"""Intervals of the calibration of a test, by patient, and of what scaling changed in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmtl.bootstrap import CaseDraws
from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.intervals import INTERVAL_METRICS, resampled_metrics
from medmtl.results.case import CaseResult

# Kinds of bins, as attributes of `CaseResult`.
BEFORE, AFTER = "calibration", "calibration_scaled"

# Verdicts on a change by scaling, in the words of the comparison of arms.
BETTER, WORSE, NOTHING, TOO_FEW = "better", "worse", "no evidence", "no evidence: n too small"

# How kinds of bins add up: the value itself, and after less before.
ONE, CHANGE = (1,), (-1, 1)

# task -> patient and bins of each kind, of each case
Cases = Mapping[str, Sequence[tuple[str, list[BinTable]]]]


def calibration_intervals(results: Mapping[str, Sequence[CaseResult]]) -> dict[str, dict[str, Any]]:
    """Intervals of the pooled calibration of some tasks, each counting once, and of what scaling changed in it.

    Resamples draw patients; both sides of a change are measured on the same ones, so that it is paired. The interval is
    that of `Resamples`, moved so that the resamples' mean falls on the pooled value: errors of opposite sign cancel
    less in a resample than in all patients, so that resampled ECE and ACE are too large. As they are, their interval
    may even lie above the value. Of 6 to 24 patients with reliability curves of their own, moved intervals covered the
    ECE and ACE of their population in 91 to 99 % of 400 samples, mirrored ones (2 x value - quantile) in 79 to 95 %.

    Changes are skewed, and few patients do not show the tail. Where one side was as over-confident as the other was
    under-confident, so that the truth was no change, intervals of 6 to 24 patients held it in 90 to 98 % of 300 or more
    samples for ACE, in 84 to 91 % for NLL and in 75 to 88 % for ECE; nearly all others favoured the over-confident
    side. So a verdict is a hint; the comparison of arms requires a test as well.

    Args:
        results: task -> its cases; a single one for the intervals of a task.

    Returns:
        `calibration_intervals` and `calibration_scaled_intervals`, region -> metric -> `{"low", "high", "n",
        "reliable"}`, of the figures of those names without `_intervals`; and `scaling_gain`, region -> metric ->
        `{"difference", "low", "high", "n", "reliable", "verdict"}`, after less before, in which below 0 is better.
        Metrics are `INTERVAL_METRICS`, `n` counts patients, and `reliable` says whether they are enough for a verdict,
        see `Resamples.reliable`. There is no interval where a task has a single patient.
    """
    found: dict[str, dict[str, Any]] = {f"{BEFORE}_intervals": {}, f"{AFTER}_intervals": {}, "scaling_gain": {}}
    cases = [result for own in results.values() for result in own]
    for region in dict.fromkeys(region for result in cases for region in result.calibration):
        for kind in (BEFORE, AFTER):
            chosen = _choose(results, region, [kind])
            if chosen:
                found[f"{kind}_intervals"][region] = {
                    metric: {key: value for key, value in estimate.items() if key != "difference"}
                    for metric, estimate in _estimates(chosen, ONE).items()
                }
        chosen = _choose(results, region, [BEFORE, AFTER])
        if chosen:
            gain = _estimates(chosen, CHANGE)
            found["scaling_gain"][region] = {name: {**one, "verdict": _verdict(one)} for name, one in gain.items()}
    return found


def _choose(results: Mapping[str, Sequence[CaseResult]], region: str, kinds: Sequence[str]) -> Cases:
    """The cases with voxels in the region, of those tasks that have any."""
    chosen: dict[str, list[tuple[str, list[BinTable]]]] = {}
    for task, cases in results.items():
        for result in cases:
            tables = [getattr(result, kind).get(region) for kind in kinds]
            if all(table is not None and table.voxels for table in tables):
                chosen.setdefault(task, []).append((result.person, tables))
    return chosen


def _estimates(cases: Cases, signs: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By metric: the sum over kinds of sign times metric, its mean over tasks, and the interval of that."""
    patients = {task: [patient for patient, _ in own] for task, own in cases.items()}
    value = _measured(cases, signs, {task: np.ones((1, len(own))) for task, own in cases.items()})
    draws = CaseDraws.of(patients)
    n = len({patient for own in patients.values() for patient in own})
    if draws is None:
        none = {"low": None, "high": None, "n": n, "reliable": False}
        return {metric: {"difference": float(value[metric][0]), **none} for metric in INTERVAL_METRICS}
    resampled = _measured(cases, signs, draws.weights)
    found = {}
    for metric in INTERVAL_METRICS:
        middle = float(value[metric][0])
        low, high = draws.of_patients.interval(resampled[metric]) - (np.nanmean(resampled[metric]) - middle)
        low = max(low, 0.0) if signs == ONE else low
        ends = {"low": float(low), "high": float(high), "n": n, "reliable": draws.of_patients.reliable}
        found[metric] = {"difference": middle, **ends}
    return found


def _measured(
    cases: Cases, signs: Sequence[int], weights: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """By metric, `(resamples,)`."""
    total = {metric: np.zeros(1) for metric in INTERVAL_METRICS}
    for task, own in cases.items():
        for kind, sign in enumerate(signs):
            found = resampled_metrics([tables[kind] for _, tables in own], weights[task])
            total = {metric: value + sign * found[metric] / len(cases) for metric, value in total.items()}
    return total


def _verdict(gain: Mapping[str, Any]) -> str:
    if not gain["reliable"]:
        return TOO_FEW
    if gain["high"] < 0:
        return BETTER
    return WORSE if gain["low"] > 0 else NOTHING
