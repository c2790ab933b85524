"""Reliability bins: counts and sums per bin of probability, from which all calibration metrics are computed.

Counts are int64 and sums float64: a float32 counter stops at 2^24 voxels a bin, which one CT volume exceeds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmtl.calibration.pieces import PIECE, class_of, foreground_of, pieces
from medmtl.errors import ConfigError, DataError
from medmtl.typed import typed

# Neighbouring voxels are added to separate copies of the table: most fall into the same bin, and each addition would
# otherwise wait for the previous one.
LANES = 4

NLL_FLOOR = 1e-12
_MOST = 2**62  # voxels; more is no number of int64, or not with the next volume

# Equal bins over [0, 1], or explicit edges.
Bins = int | Tensor


@dataclass(frozen=True, eq=False)
class BinTable:
    """Counts and sums of a set of voxels per bin of foreground probability; tables of volumes add up to their pool.

    Attributes:
        count: voxels per bin, `(bins,)` int64.
        positives: foreground voxels per bin, `(bins,)` int64.
        probability: sum of the foreground probability p per bin, `(bins,)` float64.
        squared_error: sum of (p - y)^2 over all voxels, with y = 1 for foreground and 0 otherwise.
        negative_log_likelihood: sum of -log max(q, 1e-12) over all voxels, with q = p for foreground and 1 - p
            otherwise. NaN, as `squared_error` is, for `scores=False`.

    Example:
        >>> first = bin_volume(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]), bins=2)
        >>> second = bin_volume(torch.tensor([0.8]), torch.tensor([0]), bins=2)
        >>> (first + second).count.tolist(), (first + second).positives.tolist()
        ([1, 2], [0, 1])
    """

    count: Tensor
    positives: Tensor
    probability: Tensor
    squared_error: float
    negative_log_likelihood: float

    def __add__(self, other: "BinTable") -> "BinTable":
        """Pool two sets of voxels."""
        if len(self.count) != len(other.count):
            raise DataError(
                f"tables of {len(self.count)} and {len(other.count)} bins cannot be pooled", fix="bin all volumes alike"
            )
        return BinTable(
            count=self.count + other.count,
            positives=self.positives + other.positives,
            probability=self.probability + other.probability,
            squared_error=self.squared_error + other.squared_error,
            negative_log_likelihood=self.negative_log_likelihood + other.negative_log_likelihood,
        )

    @property
    def voxels(self) -> int:
        """Voxels in all bins together."""
        return int(self.count.sum())

    def to_dict(self) -> dict[str, Any]:
        """The table as lists and numbers, for JSON."""
        return {
            "count": self.count.tolist(),
            "positives": self.positives.tolist(),
            "probability": self.probability.tolist(),
            "squared_error": self.squared_error,
            "negative_log_likelihood": self.negative_log_likelihood,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "BinTable":
        """The inverse of `to_dict`, bit for bit.

        Raises:
            ValueError: it is no table.
        """
        kept = typed(_Kept, state, "a table of bins")
        lengths = {len(kept.count), len(kept.positives), len(kept.probability)}
        if len(lengths) > 1 or max(map(abs, [*kept.count, *kept.positives]), default=0) > _MOST:
            raise ValueError("a table of bins has columns of several lengths, or more voxels than can be")
        return cls(
            count=torch.tensor(kept.count, dtype=torch.int64),
            positives=torch.tensor(kept.positives, dtype=torch.int64),
            probability=torch.tensor(kept.probability, dtype=torch.float64),
            squared_error=kept.squared_error,
            negative_log_likelihood=kept.negative_log_likelihood,
        )


@dataclass(frozen=True)
class _Kept:
    """A table as `to_dict` gives it; see `BinTable`."""

    count: list[int]
    positives: list[int]
    probability: list[float]
    squared_error: float
    negative_log_likelihood: float


def edges(bins: Bins) -> Tensor:
    """Edges of bins over [0, 1].

    Bin m holds edges[m] <= p < edges[m + 1]; the last bin holds p = 1 as well. Values are compared as
    float64, whatever the type of p.

    Args:
        bins: number of bins of equal width; or the edges themselves, checked and returned.

    Returns:
        `(bins + 1,)` float64, ascending from 0 to 1.

    Raises:
        ConfigError: there is no bin, or edges do not ascend from 0 to 1.

    Example:
        >>> edges(4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if isinstance(bins, Tensor):
        given = bins.to("cpu", torch.float64)
        if given.ndim != 1 or len(given) < 2 or given[0] != 0 or given[-1] != 1 or not (given.diff() > 0).all():
            raise ConfigError("edges of bins do not ascend from 0 to 1", fix="give all of them, 0 and 1 included")
        return given
    if bins < 1:
        raise ConfigError(f"bins={bins}: calibration needs at least one bin", fix="use 15, say")
    # A quotient is rounded once: an edge that float32 can hold, as 1/2, is exact.
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def fine_edges(bins: int = 4096) -> Tensor:
    """Edges of many small bins, narrow near 0 and 1: equal in log p / (1 - p) between 1e-7 and 1 - 1e-7.

    `adaptive_ece` needs such a table, whose size does not depend on the number of voxels. No bin is wider than
    8 / (bins - 2).

    Args:
        bins: number of bins, at least 3.

    Returns:
        `(bins + 1,)` float64, ascending from 0 to 1.
    """
    inner = torch.sigmoid(torch.linspace(-16, 16, bins - 1, dtype=torch.float64))
    return torch.cat([torch.zeros(1, dtype=torch.float64), inner, torch.ones(1, dtype=torch.float64)])


@torch.no_grad()
def bin_volume(
    probability: Tensor, label: Tensor, region: Tensor | None = None, bins: Bins = 15, scores: bool = True
) -> BinTable:
    """Bin the foreground probability of a volume against its label.

    Computed on the CPU, piece by piece: the result is the same for every device, and a volume of any size and memory
    layout needs a few MB beyond its own.

    Args:
        probability: probability of foreground in [0, 1], any shape, float32 or float64.
        label: 1 or True where there is foreground, 0 or False elsewhere, of the same shape.
        region: True for the voxels that count, bool, of the same shape; None counts all.
        bins: equal bins of probability, or their edges; see `edges`.
        scores: also add up the sums for Brier score and NLL, which takes two thirds more time.

    Returns:
        The table of the voxels in the region, on the CPU.

    Raises:
        DataError: shapes differ, a probability in the region is not in [0, 1], or a label there is neither 0 nor 1.

    Example:
        >>> probability = torch.tensor([0.1, 0.2, 0.7, 0.8])
        >>> table = bin_volume(probability, label=torch.tensor([0, 1, 1, 1]), bins=2)
        >>> table.count.tolist(), table.positives.tolist()
        ([2, 2], [1, 2])
    """
    tally = _Tally(bins, scores)
    for p, y in pieces([probability], label, region):
        tally.add(p, foreground_of(y))
    return tally.table()


@torch.no_grad()
def bin_classes(
    probability: Tensor, label: Tensor, region: Tensor | None = None, bins: Bins = 15, scores: bool = True
) -> list[BinTable]:
    """Bin the probability of every class against whether a voxel is of that class, one table a class.

    Args:
        probability: of the classes, `(C, *spatial)`, in [0, 1].
        label: class numbers from 0 to C - 1, `(*spatial)`.
        region: True for the voxels that count, bool `(*spatial)`; None counts all.
        bins: as for `bin_volume`.
        scores: as for `bin_volume`. The Brier scores of all classes add up to the multi-class one, in [0, 2].

    Returns:
        The table of each class.

    Raises:
        DataError: as for `bin_volume`, or a label in the region is no class.

    Example:
        >>> probability = torch.tensor([[0.7, 0.1], [0.2, 0.1], [0.1, 0.8]])  # three classes, two voxels
        >>> [table.positives.tolist() for table in bin_classes(probability, torch.tensor([0, 2]), bins=2)]
        [[0, 1], [0, 0], [0, 1]]
    """
    tallies = [_Tally(bins, scores) for _ in probability]
    for *by_class, y in pieces(list(probability), label, region):
        number = class_of(y, len(tallies))
        for value, (tally, p) in enumerate(zip(tallies, by_class, strict=True)):
            tally.add(p, number == value)
    return [tally.table() for tally in tallies]


@torch.no_grad()
def bin_top_label(
    probability: Tensor, label: Tensor, region: Tensor | None = None, bins: Bins = 15, scores: bool = True
) -> BinTable:
    """Bin the largest class probability against whether that class is the true one (Guo et al., ICML 2017).

    The first of tied classes is the predicted one. Arguments and errors as for `bin_classes`.

    Returns:
        The table, in which a voxel is positive where the predicted class is the true one.
    """
    tally = _Tally(bins, scores)
    for *by_class, y in pieces(list(probability), label, region):
        confidence, predicted = torch.stack(by_class).max(0)
        tally.add(confidence, predicted == class_of(y, len(by_class)))
    return tally.table()


@torch.no_grad()
def bin_true_class(
    probability: Tensor, label: Tensor, region: Tensor | None = None, bins: Bins = 15, scores: bool = True
) -> BinTable:
    """Bin the probability of the true class. Arguments and errors as for `bin_classes`.

    Returns:
        The table, in which every voxel is positive: its `nll` is the multi-class NLL. Its ECE and its other metrics of
        bins are no measure of calibration.
    """
    tally = _Tally(bins, scores)
    for *by_class, y in pieces(list(probability), label, region):
        p = torch.stack(by_class).gather(0, class_of(y, len(by_class))[None])[0]
        tally.add(p, torch.ones_like(p, dtype=torch.bool))
    return tally.table()


class _Tally:
    """Accumulates pieces of volumes into a table."""

    def __init__(self, bins: Bins, scores: bool) -> None:
        self.edges = edges(bins)
        self.equal = not isinstance(bins, Tensor)
        self.scores = scores
        self.bins = len(self.edges) - 1
        self.lane = torch.arange(PIECE, dtype=torch.int32) % LANES * (2 * self.bins)
        self.counts = torch.zeros(LANES * 2 * self.bins, dtype=torch.int64)
        self.sums = torch.zeros(LANES * 2 * self.bins, dtype=torch.float64)
        self.squared_error = self.negative_log_likelihood = 0.0 if scores else float("nan")

    def add(self, probability: Tensor, foreground: Tensor) -> None:
        """Add up to `PIECE` voxels: probability in [0, 1] and bool foreground, `(voxels,)`."""
        p = probability.double()
        slot = self._bin_of(p, exact=probability.dtype != torch.float64)
        slot.add_(foreground, alpha=self.bins).add_(self.lane[: len(p)])
        self.counts += torch.bincount(slot, minlength=len(self.counts))
        self.sums += torch.bincount(slot, weights=p, minlength=len(self.sums))
        if self.scores:
            likelihood = (p - (~foreground).view(torch.uint8)).abs_()  # p or 1 - p
            self.squared_error += (1 - likelihood).square_().sum().item()
            # NumPy's logarithm: torch's uses all threads even for a piece.
            self.negative_log_likelihood -= float(np.log(likelihood.clamp_(min=NLL_FLOOR).numpy()).sum())

    def table(self) -> BinTable:
        """The table of all voxels added so far."""
        by_label = self.counts.view(LANES, 2, self.bins).sum(0)
        return BinTable(
            count=by_label.sum(0),
            positives=by_label[1].clone(),
            probability=self.sums.view(LANES, 2, self.bins).sum((0, 1)),
            squared_error=self.squared_error,
            negative_log_likelihood=self.negative_log_likelihood,
        )

    def _bin_of(self, p: Tensor, exact: bool) -> Tensor:
        """Number of the bin of every voxel, int32; `exact` if p was made from a type of at most 24 significant bits."""
        if not self.equal:
            return torch.bucketize(p, self.edges[1:-1], out_int32=True, right=True)
        if exact:  # so is its product with the number of bins, in float64
            return (p * self.bins).to(torch.int32).clamp_(max=self.bins - 1)
        # Rounding may have lifted p x bins to the next bin, never to the one after, and by the factor never lowered it.
        index = (p * (self.bins * (1 + 1e-12))).to(torch.int32).clamp_(max=self.bins - 1)
        return index.add_(p < self.edges[:-1].index_select(0, index), alpha=-1)
