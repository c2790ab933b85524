"""mL1-ACE: the average calibration error of a patch as a loss (Barfoot et al., MICCAI 2024; arXiv 2506.03942).

Probabilities of a class are sorted into M equal bins over [0, 1]. In bin m, e_m is the mean probability and a_m the
share of voxels of the class. The loss is the mean of |a_m - e_m| over the non-empty bins, then over images and classes.
All bins have the same weight, however few voxels they hold, so that uncertain voxels are not outweighed by background.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from medmtl.errors import ConfigError
from medmtl.losses.labels import targets

# A bin of less weight is empty; soft bins can hold any share of a voxel.
EMPTY = 0.01

# Voxels processed at a time on a CPU: temporaries of this size stay in its cache. Whole images took 6 times as long.
PIECE = 32_000

# Neighbouring voxels are added to separate copies of the sums: most fall into the same bin, and each addition would
# otherwise wait for the previous one.
LANES = 4


class ML1ACE(nn.Module):
    """Average calibration error of each image, mean over images and foreground classes, in [0, 1].

    It does not measure overlap, so it is combined with a loss that does, see `WeightedSum`. In a short training
    on phantoms a weight of 0.3 beside Dice + CE cost no Dice, and a weight of 1 cost 0.09.

    Hard bins, m / M <= p < (m + 1) / M (the last one holds p = 1 as well), pass gradients through e_m only. Soft bins
    divide a voxel between the two nearest of the centres (m + 1/2) / M, linearly by distance, so that gradients pass
    through a_m too; beyond the outermost centres a voxel belongs to the outermost bin.

    An image without foreground counts as 0, as in the authors' code: the gap of its soft bins is e_m, which stays near
    the bin centre whatever the probabilities, so that its gradients are uninformative.

    Args:
        bins: M.
        soft: soft bins instead of hard ones.
        absent: also count the gaps of images without the class.

    Example:
        >>> logits = torch.tensor([-2.0, -2.0, 2.0, 2.0]).view(1, 1, 4)  # probabilities 0.119 and 0.881
        >>> label = torch.tensor([0, 1, 1, 1]).view(1, 1, 4)
        >>> round(ML1ACE(bins=2, soft=False)(logits, label).item(), 4)  # mean of |1/2 - 0.119| and |1 - 0.881|
        0.25
    """

    def __init__(self, bins: int = 20, soft: bool = True, absent: bool = False) -> None:
        super().__init__()
        if bins < 1:
            raise ConfigError(f"bins={bins}: calibration needs at least one bin", fix="use 20, say")
        self.bins = bins
        self.soft = soft
        self.absent = absent

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of a batch of patches.

        Args:
            logits: `(B, 1, *spatial)`, of which the sigmoid is taken, or `(B, C, *spatial)`, of which the softmax is
                taken and channel 0 is background.
            label: `(B, 1, *spatial)`, any type: 0 and 1, or numbers of classes.

        Returns:
            A number, float32 also for half-precision logits.

        Raises:
            DataError: shapes differ, or a label value is not a class.
        """
        target = targets(logits, label)
        logits = logits.to(target.dtype)
        if logits.shape[1] == 1:
            probability = logits.sigmoid()
        else:
            probability, target = logits.softmax(1)[:, 1:], target[:, 1:]
        probability, target = (values.flatten(2).flatten(0, 1) for values in (probability, target))
        counted = (target > 0).any(1) | self.absent
        return _MeanGap.apply(probability, target, counted, self.bins, self.soft)


class _MeanGap(torch.autograd.Function):
    """The loss of probabilities and targets `(images, voxels)`, float32 or float64, where only `counted` images count.

    The loss depends on sums over bins only, so that the derivative with respect to a probability is a function of its
    bin, its position between two centres and its error: a small table of coefficients. Nothing of size bins x voxels is
    allocated. Sums are float64, because a float32 counter stops at 2^24 voxels.
    """

    @staticmethod
    def forward(ctx: Any, probability: Tensor, target: Tensor, counted: Tensor, bins: int, soft: bool) -> Tensor:
        sums = torch.stack([_sums(p, y, bins, soft) for p, y in zip(probability, target, strict=True)])
        weight, gap = sums[:, :2].unbind(1)  # of each bin: voxels, and the sum of p - y over them
        if soft:
            weight, gap = _to_centres(weight, sums[:, 2]), _to_centres(gap, sums[:, 3])
        filled = ~(weight < EMPTY)  # NaN is not empty: it must reach the loss
        weight, gap = weight.where(filled, 1), gap.where(filled, 0)
        share = counted[:, None] / (filled.sum(1, keepdim=True) * len(gap) * weight)  # of a bin's gap in the loss
        if ctx.needs_input_grad[0]:
            by_gap = gap.sign() * share
            coefficients = by_gap[:, None]
            if soft:
                lower, rise = _between_centres(by_gap)
                _, rise_by_weight = _between_centres(by_gap * gap / weight)
                coefficients = torch.stack([lower - bins * rise_by_weight, rise], 1)
            gradient = torch.empty_like(probability)
            for row, p, y, table in zip(gradient, probability, target, coefficients, strict=True):
                _gradient(row, p, y, table, bins, soft)
            ctx.save_for_backward(gradient)
        return (gap.abs() * share).sum().to(probability.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return above * gradient, None, None, None, None


def _sums(probability: Tensor, target: Tensor, bins: int, soft: bool) -> Tensor:
    """Sums over the voxels of an image in each slot: 1, p - y; with soft bins also both times the upper centre's share.

    Slots are the hard bins, or the M + 1 intervals between the centres of soft bins.
    """
    slots, device = bins + 1 if soft else bins, probability.device
    lane = torch.arange(_piece(probability), device=device) % LANES * slots
    sums = torch.zeros(4 if soft else 2, LANES * slots, dtype=torch.float64, device=device)
    one = torch.ones((), dtype=torch.float64, device=device)
    for p, y in _pieces(probability, target):
        slot, share, error = _place(p, y, bins, soft)
        slot += lane[: len(slot)]
        values = [one.expand_as(error), error]
        if soft:
            values += [share, share * error]
        for total, value in zip(sums, values, strict=True):
            total.scatter_add_(0, slot, value)
    return sums.view(-1, LANES, slots).sum(1)


def _gradient(out: Tensor, probability: Tensor, target: Tensor, coefficients: Tensor, bins: int, soft: bool) -> None:
    """Write the derivative of the loss with respect to each probability of an image into `out`."""
    for piece, p, y in _pieces(out, probability, target):
        slot, share, error = _place(p, y, bins, soft)
        derivative = coefficients[0].index_select(0, slot)
        if soft:
            derivative += coefficients[1].index_select(0, slot) * share.add_(error, alpha=bins)
        piece.copy_(derivative)


def _place(p: Tensor, y: Tensor, bins: int, soft: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Slot of each voxel, its share in the upper centre (meaningless for hard bins) and its error p - y, float64.

    Slot j of soft bins reaches from centre j - 1 to centre j.
    """
    p = p.double()
    position = p * bins + 0.5 if soft else p * bins
    # Clamped as an integer: NaN must reach the sums, not the index.
    slot = position.long().clamp_(0, bins if soft else bins - 1)
    return slot, position.frac_(), p - y.double()


def _piece(image: Tensor) -> int:
    """Voxels of a 1-D image computed at a time."""
    return PIECE if image.device.type == "cpu" else max(len(image), 1)


def _pieces(*images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of 1-D images of the same length."""
    return zip(*(image.split(_piece(image)) for image in images), strict=True)


def _to_centres(whole: Tensor, upper: Tensor) -> Tensor:
    """Sums at the M bin centres from sums over the M + 1 intervals: in all, and of the upper centre's share.

    The outermost intervals have one centre within [0, 1], which receives the share of the missing one too.
    """
    sums = pad(whole - upper, (0, 1)) + pad(upper, (1, 0))
    sums[:, 1] += sums[:, 0]
    sums[:, -2] += sums[:, -1]
    return sums[:, 1:-1]


def _between_centres(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Value at the lower centre of each of the M + 1 intervals, and the rise from there to the upper one."""
    values = torch.cat([centres[:, :1], centres, centres[:, -1:]], 1)
    return values[:, :-1], values.diff(dim=1)
