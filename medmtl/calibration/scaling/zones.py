"""Two zones of a volume by the predicted mask, each with a scaling of its own.

A network errs in other ways in and around its mask than far away, where nearly all voxels of a volume are. Zones derive
from the prediction alone: they are known for every image, and a scaling is fitted on what it is applied to.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from medmtl.calibration.metrics.regions import band
from medmtl.calibration.scaling.histogram import LogitHistogram, logit_histogram
from medmtl.calibration.scaling.parametric import Monotone, Scaling, Temperature
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.errors import DataError

NEAR, FAR = ZONES = ("near", "far")

# Up to this distance from the mask a voxel is near, mm between voxel centres.
MARGIN_MM = 5.0


def zone_masks(probability: Tensor, spacing_mm: Sequence[float], known: Tensor | None = None) -> dict[str, Tensor]:
    """The zones of a volume.

    Args:
        probability: of foreground, before scaling, `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.
        known: voxels that are wanted, bool `(H, W, D)`; None for all.

    Returns:
        Zone -> bool `(H, W, D)` on the CPU: near, where it is 0.5 or more and up to 5 mm from there, and far. With an
        empty mask all is far.
    """
    near = band(probability.as_subclass(Tensor).cpu() >= 0.5, spacing_mm, MARGIN_MM)
    zones = {NEAR: near, FAR: ~near}
    return zones if known is None else {name: zone & known.cpu() for name, zone in zones.items()}


def keep_side(scaled: Tensor, inside: Tensor) -> Tensor:
    """Scaled probabilities, clipped to the side of 0.5 on which the network's were.

    Args:
        scaled: any shape.
        inside: where the network's are 0.5 or more, bool of the same shape.
    """
    return torch.where(inside, scaled.clamp(min=0.5), scaled.clamp(max=_below_half(scaled.dtype)))


@dataclass(frozen=True, eq=False)
class ZoneHistograms:
    """Logits of volumes by zone and label.

    Attributes:
        zones: zone -> histogram.
        cases: volumes.
    """

    zones: Mapping[str, LogitHistogram]
    cases: int

    @classmethod
    def empty(cls) -> "ZoneHistograms":
        """No volumes."""
        return cls(dict.fromkeys(ZONES, LogitHistogram.empty()), cases=0)

    @classmethod
    def of(cls, probability: Tensor, label: Tensor, zones: Mapping[str, Tensor]) -> "ZoneHistograms":
        """The histograms of one volume.

        Args:
            probability: of foreground in [0, 1], on the image's own grid, `(H, W, D)`.
            label: 1 or True where there is foreground, `(H, W, D)`.
            zones: its `zone_masks`.
        """
        counted = {name: logit_histogram(probability, label, zone) for name, zone in zones.items()}
        return cls(counted, cases=int(any(zone.voxels for zone in counted.values())))

    def __add__(self, other: "ZoneHistograms") -> "ZoneHistograms":
        """Pool two sets of volumes."""
        return ZoneHistograms(
            {name: own + other.zones[name] for name, own in self.zones.items()}, self.cases + other.cases
        )

    @property
    def voxels(self) -> int:
        """Voxels of all zones."""
        return sum(zone.voxels for zone in self.zones.values())

    def with_one_of(self, others: Sequence["ZoneHistograms"]) -> "ZoneHistograms":
        """Add one more volume of as many voxels in each zone as the mean volume has, with the logits of other tasks.

        Each of the other tasks has the same share in it. A zone without foreground cannot be fitted, and this adds what
        there is of it elsewhere.
        """
        return ZoneHistograms({name: self._zone_with(name, others) for name in self.zones}, self.cases + 1)

    def _zone_with(self, name: str, others: Sequence["ZoneHistograms"]) -> LogitHistogram:
        own, found = self.zones[name], [other.zones[name] for other in others if other.zones[name].voxels]
        if not found:
            return own
        voxels = max(own.voxels, 1) / max(self.cases, 1)
        return sum((each.weighted(voxels / (each.voxels * len(found))) for each in found), own)


@dataclass(frozen=True, eq=False)
class ByZone(Scaling):
    """A scaling for each zone of the network's mask; a voxel stays on its side of 0.5, so that the mask is kept.

    Args:
        near: where the network says 0.5 or more, and within 5 mm of there.
        far: beyond.

    Example:
        >>> scaling = ByZone(near=Temperature(2.0), far=Temperature(0.5))
        >>> line = torch.tensor([[[0.9, 0.25, 0.25]]])
        >>> [round(p, 2) for p in scaling(line, spacing_mm=(1, 1, 4)).flatten().tolist()]
        [0.75, 0.37, 0.1]
    """

    method: ClassVar[str] = "by_zone"
    near: Scaling
    far: Scaling

    @torch.no_grad()
    def __call__(
        self, probability: Tensor, working: WorkingVolume | None = None, spacing_mm: Sequence[float] | None = None
    ) -> Tensor:
        """See `Scaling.__call__`."""
        if spacing_mm is None:
            raise DataError("zones depend on the distance between voxels, which is not given", fix="pass spacing_mm")
        probability = probability.as_subclass(Tensor).cpu()
        near = zone_masks(probability, spacing_mm)[NEAR]
        # Most voxels are far: picking them would take longer than scaling the others as well.
        scaled = self.far(probability, working).clamp(max=_below_half(probability.dtype))
        scaled[near] = keep_side(self.near.within(near, probability, working), probability[near] >= 0.5)
        return scaled

    def nll(self, histograms: ZoneHistograms) -> float:
        """Mean NLL of some volumes after scaling, nats; NaN without voxels.

        Local temperatures, which are no function of the logit alone, count as the single one around which they lie.
        """
        total = 0.0
        for name, histogram in histograms.zones.items():
            scaling = getattr(self, name)
            of_logits = (
                scaling.of_logits if isinstance(scaling, Monotone) else Temperature(scaling.temperature).of_logits
            )
            logits, _, _ = histogram.points()
            total += histogram.nll(keep_side(of_logits(logits), logits >= 0))
        return total / histograms.voxels if histograms.voxels else math.nan

    def parameters(self) -> dict[str, Any]:
        """See `Scaling.parameters`, by zone."""
        return {name: getattr(self, name).parameters() for name in ZONES}

    def state_dict(self) -> dict[str, Any]:
        """See `Scaling.state_dict`, with the states of the zones."""
        return {"method": self.method, **{name: getattr(self, name).state_dict() for name in ZONES}}

    def __str__(self) -> str:
        return "; ".join(f"{name} {getattr(self, name)}" for name in ZONES)


def _below_half(dtype: torch.dtype) -> float:
    """The largest number below 0.5."""
    half = torch.tensor(0.5, dtype=dtype)
    return float(half.nextafter(torch.zeros_like(half)))
