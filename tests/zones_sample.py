"""Voxels on a line, so that all zones have some: half of the first part lies in the mask, and none of the rest."""

import torch
from torch import Tensor

from medmtl.calibration.scaling.zones import ZoneHistograms, zone_masks

SPACING_MM = (1.0, 1.0, 1.0)


def on_a_line(probability: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Arrange voxels `(n,)` as a volume `(n, 1, 1)`: near, then far."""
    inside, outside = (probability >= 0.5).nonzero()[:, 0], (probability < 0.5).nonzero()[:, 0]
    first = torch.stack([inside[: len(outside) // 2], outside[: len(inside)][: len(outside) // 2]], dim=1).flatten()
    rest = torch.cat([inside[len(outside) // 2 :], outside[len(first) // 2 :]])
    order = torch.cat([first, rest])
    return probability[order].view(-1, 1, 1), label[order].view(-1, 1, 1)


def histograms(probability: Tensor, label: Tensor) -> ZoneHistograms:
    """The histograms of a volume of `SPACING_MM`."""
    return ZoneHistograms.of(probability, label, zone_masks(probability, SPACING_MM))
