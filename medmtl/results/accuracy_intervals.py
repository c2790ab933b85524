"""Intervals of the mean accuracy of a test, by patient."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmtl.accuracy import ACCURACY
from medmtl.bootstrap import CaseDraws
from medmtl.results.case import CaseResult, is_number, people_of


def accuracy_intervals(results: Mapping[str, Sequence[CaseResult]]) -> dict[str, dict[str, Any]]:
    """Intervals of the mean accuracy over some tasks, each counting once.

    Patients are drawn with all their cases, see `Resamples`, whose expanded percentile interval it is.

    Args:
        results: task -> its cases; a single one for the intervals of a task.

    Returns:
        Metric -> `{"low", "high", "n", "reliable"}`: the ends of the 95 % interval, None where a task has fewer than
        two patients with a value; the patients; and whether they are enough for an interval that covers 95 %.
    """
    return {metric: _interval(results, metric) for metric in ACCURACY}


def _interval(results: Mapping[str, Sequence[CaseResult]], metric: str) -> dict[str, Any]:
    known = {task: [case for case in cases if is_number(getattr(case, metric))] for task, cases in results.items()}
    found = {"low": None, "high": None, "n": people_of(case for own in known.values() for case in own)}
    draws = CaseDraws.of({task: [case.person for case in own] for task, own in known.items()}) if known else None
    if draws is None:
        return {**found, "reliable": False}
    means = []
    with np.errstate(invalid="ignore"):  # a task of which no patient was drawn: a resample without a mean
        for task, own in known.items():
            values = np.array([getattr(case, metric) for case in own], dtype=np.float64)
            means.append(draws.weights[task] @ values / draws.weights[task].sum(axis=1))
    low, high = draws.of_patients.interval(np.mean(means, axis=0))
    return {**found, "low": float(low), "high": float(high), "reliable": draws.of_patients.reliable}
