"""A fine histogram of logits by label, from which the monotone scalings are fitted."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medmtl.calibration.metrics.bins import NLL_FLOOR
from medmtl.calibration.pieces import foreground_of, pieces
from medmtl.errors import DataError

BINS = 4096

# Probabilities are float32, which has no value between 1 - 2^-24 and 1, but many near 0.
HIGHEST = 1 - 2.0**-25

# Range of log(p / (1 - p)), -27.6 to 17.3.
LOW = math.log(NLL_FLOOR / (1 - NLL_FLOOR))
HIGH = math.log(HIGHEST / (1 - HIGHEST))
WIDTH = (HIGH - LOW) / BINS

# Logits are rounded to 2^-20. Sums of up to 3e8 voxels a bin are then exact in float64, so that they do not depend on
# the order of the volumes or the number of processes.
STEPS = 2.0**20


@dataclass(frozen=True, eq=False)
class LogitHistogram:
    """Counts and sums of logits in equal bins, by label: 131 kB whatever the number of voxels.

    A fit uses the mean logit m of each bin and label. For a function of logits with second derivative up to c the error
    is at most c w^2 / 8 a voxel, with the bins' width w = 0.011; the NLL at temperature T has c = 1 / (4 T^2), so it is
    too small by at most 3.8e-6 / T^2 nats.

    Attributes:
        count: voxels by label (0, 1) and bin, `(2, bins)` int64; float64 where they are weighted.
        total: sums of their logits, `(2, bins)` float64.
        cases: volumes with at least one voxel.
    """

    count: Tensor
    total: Tensor
    cases: int

    @classmethod
    def empty(cls) -> "LogitHistogram":
        """No voxels."""
        return cls(torch.zeros(2, BINS, dtype=torch.int64), torch.zeros(2, BINS, dtype=torch.float64), cases=0)

    def __add__(self, other: "LogitHistogram") -> "LogitHistogram":
        """Pool two sets of voxels."""
        return LogitHistogram(self.count + other.count, self.total + other.total, self.cases + other.cases)

    def weighted(self, weight: float) -> "LogitHistogram":
        """The histogram with every voxel counted `weight` times."""
        return LogitHistogram(self.count.double() * weight, self.total * weight, self.cases)

    @property
    def voxels(self) -> int:
        """Voxels of both labels."""
        return int(self.count.sum())

    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean logit, label and count of every bin and label with voxels.

        Returns:
            Three `(points,)` float64.
        """
        filled = self.count > 0
        label = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, BINS)
        return self.total[filled] / self.count[filled], label[filled], self.count[filled].double()

    def nll(self, probability: Tensor) -> float:
        """Negative log-likelihood of all voxels together, nats.

        Args:
            probability: of foreground, of each of `points`, `(points,)` float64.
        """
        _, label, count = self.points()
        likelihood = torch.where(label > 0, probability, 1 - probability).clamp(min=NLL_FLOOR)
        return float(-(count * likelihood.log()).sum())

    def require_both_labels(self) -> None:
        """Check that there are voxels of both labels.

        Raises:
            DataError: there are not.
        """
        background, foreground = (float(label.sum()) for label in self.count)
        if not background + foreground:
            raise DataError("the region holds no voxel of a validation case")
        if not background or not foreground:
            raise DataError(f"the region holds no {'foreground' if background else 'background'}")


def to_logits(probability: Tensor) -> Tensor:
    """The logit log(p / (1 - p)), float64, of probabilities clipped to [1e-12, 1 - 2^-25]."""
    return torch.logit(probability.double().clamp(NLL_FLOOR, HIGHEST))


@torch.no_grad()
def logit_histogram(probability: Tensor, label: Tensor, region: Tensor | None = None) -> LogitHistogram:
    """The histogram of one volume; computed on the CPU, piece by piece, as by `bin_volume`.

    Args:
        probability: probability of foreground in [0, 1], any shape, float32 or float64.
        label: 1 or True where there is foreground, 0 or False elsewhere, of the same shape.
        region: True for the voxels that count, bool, of the same shape; None counts all.

    Raises:
        DataError: shapes differ, a probability in the region is not in [0, 1], or a label there is neither 0 nor 1.
    """
    count = torch.zeros(2 * BINS, dtype=torch.int64)
    total = torch.zeros(2 * BINS, dtype=torch.float64)
    for p, y in pieces([probability], label, region):
        logits = to_logits(p).mul_(STEPS).round_().div_(STEPS)
        slot = ((logits - LOW) / WIDTH).to(torch.int32).clamp_(0, BINS - 1).add_(foreground_of(y), alpha=BINS)
        count += torch.bincount(slot, minlength=2 * BINS)
        total += torch.bincount(slot, weights=logits, minlength=2 * BINS)
    return LogitHistogram(count.view(2, BINS), total.view(2, BINS), cases=int(count.any()))
