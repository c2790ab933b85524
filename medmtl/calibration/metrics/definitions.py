"""Calibration metrics of a table of reliability bins.

In bin m, with n_m of n voxels, a_m is the share of foreground and e_m the mean probability; a is the share of
foreground over all voxels. In the table of a class (`bin_classes`) foreground means that class, in that of the top
label (`bin_top_label`) a correct prediction. A metric maps a table of any number of bins to a float; `edges` defines
which bin an edge belongs to. Every metric of a table without voxels is NaN.

The functions are the metrics themselves. `METRICS` and `ALL_METRICS` hold them as `BinMetric`, with key, label, unit,
direction and digits, which tables, pages and figures read.

Example:
    >>> import torch
    >>> from medmtl.calibration import ace, bin_volume, brier, ece
    >>> table = bin_volume(torch.tensor([0.1, 0.1, 0.1, 0.8]), torch.tensor([0, 0, 1, 1]), bins=2)
    >>> round(ece(table), 4), round(ace(table), 4), round(brier(table), 4)
    (0.225, 0.2167, 0.2175)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.regions import Region
from medmtl.errors import ConfigError
from medmtl.quantity import Quantity


def ece(table: BinTable) -> float:
    """Expected calibration error, sum over bins of n_m / n |a_m - e_m|, in [0, 1] (Naeini et al., AAAI 2015).

    Example:
        >>> table = bin_volume(torch.tensor([0.1, 0.1, 0.1, 0.8]), torch.tensor([0, 0, 1, 1]), bins=2)
        >>> round(ece(table), 4)  # 3/4 |1/3 - 0.1| + 1/4 |1 - 0.8|
        0.225
    """
    return float((table.positives - table.probability).abs().sum()) / table.voxels if table.voxels else math.nan


def ace(table: BinTable) -> float:
    """Average calibration error, mean of |a_m - e_m| over the bins that hold voxels, in [0, 1] (Neumann et al., 2018).

    Adaptive calibration error, of bins of equal mass, has the same abbreviation; here it is `adaptive_ece`.

    Example:
        >>> table = bin_volume(torch.tensor([0.1, 0.1, 0.1, 0.8]), torch.tensor([0, 0, 1, 1]), bins=2)
        >>> round(ace(table), 4)  # (|1/3 - 0.1| + |1 - 0.8|) / 2
        0.2167
    """
    return float(_gaps(table).mean()) if table.voxels else math.nan


def mce(table: BinTable) -> float:
    """Maximum calibration error, the largest |a_m - e_m|, in [0, 1] (Naeini et al., AAAI 2015)."""
    return float(_gaps(table).max()) if table.voxels else math.nan


def rmsce(table: BinTable) -> float:
    """Root mean square calibration error, sqrt(sum n_m / n (a_m - e_m)^2), in [0, 1] (Hendrycks et al., ICLR 2019)."""
    return math.sqrt(reliability(table))


def gap(table: BinTable) -> float:
    """Signed gap, sum over bins of n_m / n (e_m - a_m), in [-1, 1]: mean probability less share of foreground.

    Above 0 foreground is over-estimated (of the top label: the network is over-confident), below 0 under-estimated. It
    does not depend on the bins, and errors of opposite sign cancel; ECE measures the size of miscalibration.
    """
    return float((table.probability - table.positives).sum()) / table.voxels if table.voxels else math.nan


def volume_ratio(table: BinTable) -> float:
    """Expected over true volume, sum of p over sum of y, 0 or more; 1 is best.

    Above 1 foreground is over-estimated. It does not depend on the bins. NaN without foreground.

    Example:
        >>> table = bin_volume(torch.tensor([0.1, 0.1, 0.2, 0.8]), torch.tensor([0, 0, 0, 1]), bins=2)
        >>> round(volume_ratio(table), 4)
        1.2
    """
    foreground = int(table.positives.sum())
    return float(table.probability.sum()) / foreground if foreground else math.nan


def brier(table: BinTable) -> float:
    """Brier score, mean of (p - y)^2 over voxels, in [0, 1] (Brier, 1950).

    Half of the form that sums over both classes. NaN for a table made with `scores=False`.
    """
    return table.squared_error / table.voxels if table.voxels else math.nan


def nll(table: BinTable) -> float:
    """Negative log-likelihood, mean of -log max(q, 1e-12) over voxels, q being the probability of the true class.

    In nats, in [0, 27.7]. NaN for a table made with `scores=False`.
    """
    return table.negative_log_likelihood / table.voxels if table.voxels else math.nan


def reliability(table: BinTable) -> float:
    """Reliability part of the Brier score, sum of n_m / n (e_m - a_m)^2, in [0, 1], 0 is best (Murphy, 1973)."""
    if not table.voxels:
        return math.nan
    filled = table.count > 0
    return float(((table.probability - table.positives)[filled].square() / table.count[filled]).sum()) / table.voxels


def resolution(table: BinTable) -> float:
    """Resolution part of the Brier score, sum of n_m / n (a_m - a)^2, in [0, 1/4], higher is better (Murphy, 1973)."""
    if not table.voxels:
        return math.nan
    filled = table.count > 0
    share = table.positives[filled].double() / table.count[filled]
    return float((table.count[filled] * (share - _share(table)).square()).sum()) / table.voxels


def uncertainty(table: BinTable) -> float:
    """Uncertainty part of the Brier score, a (1 - a), in [0, 1/4], independent of the prediction (Murphy, 1973)."""
    return _share(table) * (1 - _share(table))


def within_bins(table: BinTable) -> float:
    """Remainder of the Brier score: Brier = reliability - resolution + uncertainty + within_bins.

    It is the mean over voxels of (p - e_m)^2 - 2 (p - e_m)(y - a_m): variance of the probability within bins less twice
    its covariance with the label there, in [-1, 1]. 0 where all voxels of a bin have one probability (Stephenson,
    Coelho & Jolliffe, Weather and Forecasting 2008). NaN for a table made with `scores=False`.
    """
    return brier(table) - (reliability(table) - resolution(table) + uncertainty(table))


def adaptive_ece(table: BinTable, groups: int = 15) -> float:
    """Expected calibration error over groups of equal mass, in [0, 1] (Nguyen & O'Connor, 2015; Nixon et al., 2019).

    Voxels in the order of their probability are divided into groups of n / groups each; the value is the sum over
    groups of n_g / n |a_g - e_g|. Nothing is sorted: the table of many small bins (`fine_edges`) stands for the voxels,
    and a bin across a border between groups is divided in proportion. `adaptive_error` bounds the difference.

    Args:
        table: of many bins.
        groups: number of groups.

    Example:
        >>> table = bin_volume(torch.tensor([0.1, 0.2, 0.7, 0.8]), torch.tensor([0, 1, 1, 1]), bins=fine_edges())
        >>> round(adaptive_ece(table, groups=2), 4)  # 1/2 |1/2 - 0.15| + 1/2 |1 - 0.75|
        0.3
    """
    if not table.voxels:
        return math.nan
    border = np.linspace(0, table.voxels, groups + 1)
    excess = np.interp(border, _running(table.count), _running(table.positives - table.probability))
    return float(np.abs(np.diff(excess)).sum()) / table.voxels


def adaptive_error(table: BinTable, edges: Tensor, groups: int = 15) -> float:
    """Bound on the difference of `adaptive_ece` from that of sorted voxels, for any order of voxels of equal p.

    Sum over the bins k across a border between groups of n_k / n (2 a_k (1 - a_k) + w_k / 2), w_k being the bin's
    width. The parts of a bin that is divided in proportion are off together by at most 2 n_k a_k (1 - a_k) foreground
    voxels, and by n_k w_k / 2 in the sum of probabilities.

    Args:
        table: of many bins.
        edges: of its bins, `(bins + 1,)`.
        groups: as for `adaptive_ece`.
    """
    if not table.voxels:
        return math.nan
    count, running = table.count.numpy(), _running(table.count)
    border = np.linspace(0, table.voxels, groups + 1)[1:-1]
    cut = np.array([np.any((border > low) & (border < high)) for low, high in pairwise(running)])
    share = table.positives.numpy()[cut] / count[cut]
    width = np.diff(edges.numpy())[cut]
    return float((count[cut] * (2 * share * (1 - share) + width / 2)).sum()) / table.voxels


Metric = Callable[[BinTable], float]


class BinMetric(ABC):
    """A calibration metric: a function of a table, described like a `Quantity`.

    A user's own metric is a subclass with a constructor without arguments, named by `class_path` in
    `calibration.metrics`. `check_metric` tests it.

    Attributes:
        key: a valid identifier, since it becomes part of column names such as `ece_band`.
        label: name in tables and figures.
        unit: of its values; empty for a number without one.
        higher_is_better: whether a higher value is better; None where neither is.
        digits: after the decimal point.
        short: for the head of a narrow column; the label is used if empty.

    Example:
        >>> class OverConfidence(BinMetric):
        ...     key = "over_confidence"
        ...     label = "over-confidence"
        ...     higher_is_better = False
        ...
        ...     def __call__(self, table):
        ...         excess = (table.probability - table.positives).clamp(min=0).sum()
        ...         return float(excess) / table.voxels if table.voxels else math.nan
        >>> table = bin_volume(torch.tensor([0.1, 0.2, 0.7, 0.8]), torch.tensor([0, 1, 1, 0]), bins=2)
        >>> round(OverConfidence()(table), 4), round(METRICS["ece"](table), 4)
        (0.125, 0.3)
    """

    key: str
    label: str
    unit: str = ""
    higher_is_better: bool | None = None
    digits: int = 3
    short: str = ""

    @abstractmethod
    def __call__(self, table: BinTable) -> float:
        """The metric of a table; NaN where it is undefined."""

    @property
    def quantity(self) -> Quantity:
        """The description alone, for JSON and pages."""
        return Quantity(self.key, self.label, self.unit, self.higher_is_better, self.digits, self.short)

    def over(self, region: Region) -> Quantity:
        """The description of this metric over a region, a column of `cases.csv`: `ece_band`, "ECE in the band"."""
        return replace(
            self.quantity, key=f"{self.key}_{region.key}", label=f"{self.label} in the {region.label}", short=""
        )


class _BuiltIn(BinMetric):
    """A function of this module as a `BinMetric`."""

    def __init__(
        self, function: Metric, label: str, higher_is_better: bool | None = False, unit: str = "", short: str = ""
    ) -> None:
        self.function = function
        self.key = function.__name__
        self.label = label
        self.higher_is_better = higher_is_better
        self.unit = unit
        self.short = short

    def __call__(self, table: BinTable) -> float:
        return self.function(table)


def _by_key(*metrics: BinMetric) -> Mapping[str, BinMetric]:
    return MappingProxyType({metric.key: metric for metric in metrics})


# The built-in metrics that are reported for every region.
METRICS: Mapping[str, BinMetric] = _by_key(
    _BuiltIn(ece, "ECE"),
    _BuiltIn(ace, "ACE"),
    _BuiltIn(mce, "MCE"),
    _BuiltIn(brier, "Brier score", short="Brier"),
    _BuiltIn(nll, "NLL", unit="nats", short="NLL"),
    _BuiltIn(gap, "gap", higher_is_better=None),
    _BuiltIn(volume_ratio, "expected / true volume", higher_is_better=None, short="vol. ratio"),
)
# All metrics of any table; `adaptive_ece` needs one of small bins.
ALL_METRICS: Mapping[str, BinMetric] = _by_key(
    *METRICS.values(),
    _BuiltIn(rmsce, "RMSCE"),
    _BuiltIn(reliability, "reliability"),
    _BuiltIn(resolution, "resolution", higher_is_better=True),
    _BuiltIn(uncertainty, "uncertainty", higher_is_better=None),
    _BuiltIn(within_bins, "within-bin term", higher_is_better=None),
)


def metrics_with(own: Sequence[BinMetric]) -> dict[str, BinMetric]:
    """The built-in metrics that are reported, and a user's own after them, by key.

    Raises:
        ConfigError: one has no key or label, or its key is no valid identifier or taken.
    """
    metrics = dict(METRICS)
    for metric in own:
        name, key = type(metric).__name__, getattr(metric, "key", "")
        if not key or not getattr(metric, "label", ""):
            raise ConfigError(f"calibration.metrics: {name} has no key or no label", fix="set both in the class")
        if not key.isidentifier():
            raise ConfigError(
                f"calibration.metrics: the key {key!r} of {name} cannot be part of a column name",
                fix="use letters, digits and underscores",
            )
        if key in metrics or key in ALL_METRICS:
            raise ConfigError(f"calibration.metrics: the key {key} of {name} is taken", fix="choose another key")
        metrics[key] = metric
    return metrics


def summarise(table: BinTable, metrics: Mapping[str, Metric] = METRICS) -> dict[str, float]:
    """Metrics of a table, by key; the built-in ones that are reported, unless others are given.

    Example:
        >>> table = bin_volume(torch.tensor([0.1, 0.1, 0.1, 0.8]), torch.tensor([0, 0, 1, 1]), bins=2)
        >>> {key: round(value, 3) for key, value in summarise(table).items()}
        {'ece': 0.225, 'ace': 0.217, 'mce': 0.233, 'brier': 0.217, 'nll': 0.684, 'gap': -0.225, 'volume_ratio': 0.55}
    """
    return {name: metric(table) for name, metric in metrics.items()}


def _gaps(table: BinTable) -> Tensor:
    """|a_m - e_m| of the bins that hold voxels, `(bins,)` or fewer, float64."""
    filled = table.count > 0
    return (table.positives - table.probability)[filled].abs() / table.count[filled]


def _share(table: BinTable) -> float:
    """The share of foreground, a."""
    return int(table.positives.sum()) / table.voxels if table.voxels else math.nan


def _running(values: Tensor) -> NDArray[np.float64]:
    """Sums of the first 0, 1, ... bins, `(bins + 1,)`."""
    return np.concatenate([[0.0], np.cumsum(values.double().numpy())])
