"""Calibration metrics of a table of reliability bins, for the probability of foreground.

In bin m, with n_m of n voxels, a_m is the share of foreground and e_m the mean probability. A table without voxels has
no metric: NaN.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from medmtl.calibration.bins import BinTable


def ece(table: BinTable) -> float:
    """Expected calibration error, sum over bins of n_m / n |a_m - e_m| (Naeini et al., AAAI 2015)."""
    return float((table.positives - table.probability).abs().sum()) / table.voxels if table.voxels else math.nan


def ace(table: BinTable) -> float:
    """Average calibration error, mean of |a_m - e_m| over the bins that hold voxels (Neumann et al., 2018).

    Adaptive calibration error, of bins of equal mass, goes by the same letters; this is not it.
    """
    return float(_gaps(table).mean()) if table.voxels else math.nan


def mce(table: BinTable) -> float:
    """Maximum calibration error, the largest |a_m - e_m| (Naeini et al., AAAI 2015)."""
    return float(_gaps(table).max()) if table.voxels else math.nan


def brier(table: BinTable) -> float:
    """Brier score, mean of (p - y)^2 over voxels; half of the form that sums over both classes."""
    return table.squared_error / table.voxels if table.voxels else math.nan


def nll(table: BinTable) -> float:
    """Negative log-likelihood, mean of -log max(q, 1e-12) over voxels, q being the probability of the true class."""
    return table.negative_log_likelihood / table.voxels if table.voxels else math.nan


METRICS: Mapping[str, Callable[[BinTable], float]] = MappingProxyType(
    {"ece": ece, "ace": ace, "mce": mce, "brier": brier, "nll": nll}
)


def summarise(table: BinTable) -> dict[str, float]:
    """All metrics of a table, by name."""
    return {name: metric(table) for name, metric in METRICS.items()}


def _gaps(table: BinTable) -> Tensor:
    """|a_m - e_m| of the bins that hold voxels, `(bins,)` or fewer, float64."""
    filled = table.count > 0
    return (table.positives - table.probability)[filled].abs() / table.count[filled]
