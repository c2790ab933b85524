"""Reliability bins: the small table of counts and sums that all calibration metrics of a volume derive from.

Counts are int64 and sums float64: a float32 counter stops at 2^24 voxels a bin, which one CT volume exceeds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from medmtl.errors import ConfigError, DataError

# Voxels binned at a time. Temporaries of this size stay in the processor's cache; and below 32,768 elements torch keeps
# to one thread, so that sums do not depend on the number of threads and nothing waits for a busy core.
PIECE = 32_000

# Neighbouring voxels are counted in separate copies of the table: most fall into the same bin, and each addition would
# otherwise wait for the one before.
LANES = 4

NLL_FLOOR = 1e-12


@dataclass(frozen=True, eq=False)
class BinTable:
    """What is kept of a set of voxels: per bin of foreground probability how many, how many foreground, and sums.

    Attributes:
        count: voxels per bin, `(bins,)` int64.
        positives: foreground voxels per bin, `(bins,)` int64.
        probability: sum of the foreground probability p per bin, `(bins,)` float64.
        squared_error: sum of (p - y)^2 over all voxels, with y = 1 for foreground and 0 otherwise.
        negative_log_likelihood: sum of -log max(q, 1e-12) over all voxels, with q = p for foreground and 1 - p
            otherwise.
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
        """The table that `to_dict` gave, bit for bit."""
        return cls(
            count=torch.tensor(state["count"], dtype=torch.int64),
            positives=torch.tensor(state["positives"], dtype=torch.int64),
            probability=torch.tensor(state["probability"], dtype=torch.float64),
            squared_error=state["squared_error"],
            negative_log_likelihood=state["negative_log_likelihood"],
        )


def edges(bins: int) -> Tensor:
    """Edges of equal bins over [0, 1].

    Bin m holds edges[m] <= p < edges[m + 1]; the last bin holds p = 1 as well.

    Args:
        bins: how many.

    Returns:
        `(bins + 1,)` float64, from 0 to 1.

    Raises:
        ConfigError: there is no bin.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins}: calibration needs at least one bin", fix="use 15, say")
    return torch.linspace(0, 1, bins + 1, dtype=torch.float64)


@torch.no_grad()
def bin_volume(probability: Tensor, label: Tensor, region: Tensor | None = None, bins: int = 15) -> BinTable:
    """Bin the foreground probability of a volume against its label.

    The work is done on the CPU, piece by piece: the result is the same on every device, and a volume of any size and
    memory layout needs a few MB beyond its own.

    Args:
        probability: probability of foreground in [0, 1], any shape, float32 or float64.
        label: 1 or True where there is foreground, 0 or False elsewhere, of the same shape.
        region: True for the voxels that count, bool, of the same shape; None counts all.
        bins: equal bins of probability, see `edges`.

    Returns:
        The table of the voxels in the region, on the CPU.

    Raises:
        DataError: shapes differ, a probability in the region is not in [0, 1], or a label there is neither 0 nor 1.
    """
    lower = edges(bins)[:-1]
    lane = torch.arange(PIECE, dtype=torch.int32) % LANES * (2 * bins)
    counts = torch.zeros(LANES * 2 * bins, dtype=torch.int64)
    sums = torch.zeros(LANES * 2 * bins, dtype=torch.float64)
    squared_error = negative_log_likelihood = 0.0
    for p, foreground in _pieces(probability, label, region):
        # Rounding may have lifted p x bins to the next bin, never to the one after, and by the factor never lowered it.
        index = (p * (bins * (1 + 1e-12))).to(torch.int32).clamp_(max=bins - 1)
        index.add_(p < lower.index_select(0, index), alpha=-1)
        slot = index.add_(foreground, alpha=bins).add_(lane[: len(p)])
        counts += torch.bincount(slot, minlength=len(counts))
        sums += torch.bincount(slot, weights=p, minlength=len(sums))
        likelihood = (p - (~foreground).view(torch.uint8)).abs_()  # p or 1 - p
        squared_error += (1 - likelihood).square_().sum().item()
        # NumPy's logarithm, because torch's gives even a piece to all threads.
        negative_log_likelihood -= float(np.log(likelihood.clamp_(min=NLL_FLOOR).numpy()).sum())
    by_label = counts.view(LANES, 2, bins).sum(0)
    return BinTable(
        count=by_label.sum(0),
        positives=by_label[1].clone(),
        probability=sums.view(LANES, 2, bins).sum((0, 1)),
        squared_error=squared_error,
        negative_log_likelihood=negative_log_likelihood,
    )


class CalibrationBins(Metric):
    """The reliability bins of all voxels seen so far, over all processes, in memory that does not grow.

    Args:
        bins: equal bins of probability, see `edges`.
    """

    is_differentiable = False
    full_state_update = False
    count: Tensor
    positives: Tensor
    probability: Tensor
    squared_error: Tensor
    negative_log_likelihood: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        sums = torch.zeros_like(edges(bins)[:-1])
        self.bins = bins
        self.add_state("count", sums.long(), dist_reduce_fx="sum")
        self.add_state("positives", sums.long(), dist_reduce_fx="sum")
        self.add_state("probability", sums, dist_reduce_fx="sum")
        self.add_state("squared_error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("negative_log_likelihood", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probability: Tensor, label: Tensor, region: Tensor | None = None) -> None:
        """Add the voxels of a volume; arguments as for `bin_volume`."""
        table = bin_volume(probability, label, region, self.bins)
        # Not in place: tables that `compute` gave share these tensors.
        self.count = self.count + table.count.to(self.count.device)
        self.positives = self.positives + table.positives.to(self.positives.device)
        self.probability = self.probability + table.probability.to(self.probability.device)
        self.squared_error = self.squared_error + table.squared_error
        self.negative_log_likelihood = self.negative_log_likelihood + table.negative_log_likelihood

    def compute(self) -> BinTable:
        """The table of all voxels seen so far, on the CPU."""
        return BinTable(
            count=self.count.cpu(),
            positives=self.positives.cpu(),
            probability=self.probability.cpu(),
            squared_error=self.squared_error.item(),
            negative_log_likelihood=self.negative_log_likelihood.item(),
        )

    def _wrap_compute(self, compute: Callable[[], BinTable]) -> Callable[[], BinTable]:
        # torchmetrics takes a result apart to squeeze its tensors, which a frozen table refuses: hide it in a function.
        def hidden() -> Callable[[], BinTable]:
            table = compute()
            return lambda: table

        wrapped = super()._wrap_compute(hidden)
        return lambda: wrapped()()


def _pieces(probability: Tensor, label: Tensor, region: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Probability (float64) and label (bool) of the voxels in the region, 1-D and on the CPU, up to `PIECE` a time."""
    volumes = [probability, label] if region is None else [probability, label, region]
    if any(volume.shape != probability.shape for volume in volumes):
        shapes = ", ".join(str(tuple(volume.shape)) for volume in volumes)
        raise DataError(f"probability, label and region differ in shape: {shapes}", fix="bring them to one grid")
    # A subclass (MONAI's MetaTensor) would drag its metadata through every operation.
    for p, y, *inside in _split([volume.as_subclass(Tensor) for volume in volumes]):
        p, y = p.to("cpu", torch.float64), y.cpu()
        if inside:
            chosen = inside[0].cpu().bool()
            p, y = p.masked_select(chosen), y.masked_select(chosen)
        if len(p):
            yield _probability(p), _foreground(y)


def _probability(p: Tensor) -> Tensor:
    low, high = torch.aminmax(p)
    if not (low >= 0 and high <= 1):  # a NaN makes both NaN
        wrong = p[~((p >= 0) & (p <= 1))][0].item()
        raise DataError(f"probability {wrong} is not in [0, 1]", fix="bin softmax or sigmoid outputs, not logits")
    return p


def _foreground(y: Tensor) -> Tensor:
    foreground = y.bool()
    if y.dtype != torch.bool and not torch.equal(foreground.to(y.dtype), y):
        wrong = y[foreground.to(y.dtype) != y][0].item()
        raise DataError(f"label value {wrong} is neither 0 nor 1", fix="pass label == value for the organ's value")
    return foreground


def _split(volumes: list[Tensor]) -> Iterator[list[Tensor]]:
    """Flat pieces of at most `PIECE` voxels, copying no more than that even where the layout in memory differs."""
    voxels = volumes[0].numel()
    if voxels <= PIECE:
        yield [volume.reshape(-1) for volume in volumes]
        return
    rows = PIECE * len(volumes[0]) // voxels
    for parts in zip(*(volume.split(rows) if rows > 1 else volume.unbind() for volume in volumes), strict=True):
        yield from _split(list(parts))
