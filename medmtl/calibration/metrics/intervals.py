"""Bootstrap intervals by patient of pooled calibration metrics and reliability curves.

A resample pools the bins of the cases that it draws, each as often as it is drawn; voxels are not needed again. Metrics
are those of `definitions`, computed for all resamples at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmtl.bootstrap import CaseDraws
from medmtl.calibration.metrics.bins import BinTable

# Lower is better for all of these. MCE is left out: it and its spread derive from the emptiest bin.
INTERVAL_METRICS = ("nll", "ece", "ace", "brier")


@dataclass(frozen=True, eq=False)
class FrequencyBand:
    """Bootstrap interval of a reliability curve.

    Attributes:
        ends: lower and upper end of the observed frequency in each bin, `(2, bins)`; NaN where fewer than two patients
            have voxels in the bin.
        patients: their number.
        reliable: whether they are enough, see `Resamples.reliable`.
    """

    ends: NDArray[np.float64]
    patients: int
    reliable: bool


def resampled_metrics(tables: Sequence[BinTable], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """NLL, ECE, ACE and Brier score of cases pooled with weights.

    Args:
        tables: one a case, of the same bins.
        weights: how often each case counts, `(resamples, cases)`.

    Returns:
        By the names of `INTERVAL_METRICS`, `(resamples,)` each; NaN for a resample without voxels.

    Example:
        >>> tables = [bin_volume(torch.tensor([p]), torch.tensor([1])) for p in (0.6, 0.9)]
        >>> resampled_metrics(tables, np.array([[1.0, 1.0], [2.0, 0.0]]))["ece"].round(3).tolist()
        [0.25, 0.4]
    """
    count = _pooled(weights, [table.count.tolist() for table in tables])
    excess = _pooled(weights, [(table.positives - table.probability).tolist() for table in tables])
    voxels, gaps = count.sum(axis=1), np.abs(excess)
    with np.errstate(invalid="ignore"):
        each = np.divide(gaps, count, out=np.zeros_like(gaps), where=count > 0)
        found = {
            "nll": _pooled(weights, [table.negative_log_likelihood for table in tables]) / voxels,
            "ece": gaps.sum(axis=1) / voxels,
            "ace": each.sum(axis=1) / (count > 0).sum(axis=1),
            "brier": _pooled(weights, [table.squared_error for table in tables]) / voxels,
        }
    return {name: found[name] for name in INTERVAL_METRICS}


def frequency_band(tables: Sequence[BinTable], patients: Sequence[str], level: float = 0.05) -> FrequencyBand:
    """Bootstrap interval of the observed frequency in each bin, pooled over the cases of resampled patients.

    Args:
        tables: one a case of a task, at least one, of the same bins.
        patients: patient of each case.
        level: 1 minus the coverage, pointwise for each bin.
    """
    names, whose = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = np.array([table.count.tolist() for table in tables])
    positives = np.array([table.positives.tolist() for table in tables])
    ends = np.full((2, count.shape[1]), np.nan)
    draws = CaseDraws.of({"": patients})
    if draws is None:
        return FrequencyBand(ends, len(names), reliable=False)
    voxels = np.zeros((len(names), count.shape[1]))
    np.add.at(voxels, whose, count)
    shown = np.count_nonzero(voxels, axis=0) > 1
    weights = draws.weights[""]
    with np.errstate(invalid="ignore"):  # no drawn patient has voxels in the bin
        frequency = _pooled(weights, positives[:, shown]) / _pooled(weights, count[:, shown])
    ends[:, shown] = draws.of_patients.interval(frequency, level)
    return FrequencyBand(ends, len(names), draws.of_patients.reliable)


def _pooled(weights: NDArray[np.float64], values: ArrayLike) -> NDArray[np.float64]:
    """Weighted sums over cases, `(resamples, ...)`; not by BLAS, whose order of summation depends on its threads."""
    return np.einsum("rc,c...->r...", weights, np.asarray(values, dtype=np.float64))
