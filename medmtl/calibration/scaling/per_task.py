"""Post-hoc scaling by zone, fitted on validation cases for every task, and for all tasks together."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from medmtl.calibration.scaling.class_shares import FittedShares
from medmtl.calibration.scaling.local_temperature import LocalTemperature
from medmtl.calibration.scaling.parametric import Isotonic, Monotone, Platt, Scaling, Temperature
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.calibration.scaling.working_volume import VoxelSample
from medmtl.calibration.scaling.zones import ZONES, ByZone, ZoneHistograms
from medmtl.errors import DataError

logger = logging.getLogger(__name__)

# Fitted from a histogram alone.
METHODS: Mapping[str, type[Monotone]] = MappingProxyType({kind.method: kind for kind in (Temperature, Platt, Isotonic)})
KINDS: Mapping[str, type[Scaling]] = MappingProxyType({**METHODS, LocalTemperature.method: LocalTemperature})

UNCHANGED = Temperature(1.0)


@dataclass(frozen=True)
class Fitted:
    """A fitted scaling with its NLL on the voxels that it was fitted on.

    Attributes:
        scaling: the map; T = 1, the identity, in a zone where the fit was refused, and a single temperature where only
            local ones were.
        cases: validation cases.
        voxels: their voxels.
        nll_before: their mean NLL before scaling, nats.
        nll_after: after scaling; for local temperatures an estimate from the sampled voxels.
        refused: in which zones the fit was refused, and why; empty if in none.
    """

    scaling: Scaling
    cases: int
    voxels: int
    nll_before: float
    nll_after: float
    refused: str = ""

    @classmethod
    def on(
        cls,
        histograms: ZoneHistograms,
        method: str,
        samples: Mapping[str, Sequence[VoxelSample]] = MappingProxyType({}),
        others: Sequence[ZoneHistograms] = (),
    ) -> "Fitted":
        """Fit a method of `KINDS` in each zone; a failure is recorded in `refused`.

        Args:
            histograms: of the validation cases.
            method: its name.
            samples: zone -> voxels of the same cases, for local temperatures; a zone without them has a single one.
            others: histograms of other tasks. One more case of them is added where a zone cannot be fitted alone, as
                without foreground there, see `ZoneHistograms.with_one_of`.
        """
        before = ByZone(UNCHANGED, UNCHANGED).nll(histograms)
        zones: dict[str, Scaling] = dict.fromkeys(ZONES, UNCHANGED)
        gain, refused = 0.0, []
        for name in ZONES:
            try:
                zones[name] = plain = _fit(METHODS.get(method, Temperature), name, histograms, others)
                if method == LocalTemperature.method and name in samples:
                    assert isinstance(plain, Temperature)
                    zones[name] = local = LocalTemperature.fit(samples[name], plain.temperature)
                    gain += local.gain * histograms.zones[name].voxels / histograms.voxels
            except DataError as error:
                refused.append(f"{name}: {error}")
        scaling = ByZone(**zones)
        after = scaling.nll(histograms) - gain
        return cls(scaling, histograms.cases, histograms.voxels, before, after, "; ".join(refused))

    def summary(self) -> dict[str, Any]:
        """For the report: attributes, the scaling as text, and its parameters that are numbers."""
        return vars(self) | {"scaling": str(self.scaling), "parameters": self.scaling.parameters()}

    def state_dict(self) -> dict[str, Any]:
        """Text, numbers and tensors."""
        return vars(self) | {"scaling": self.scaling.state_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Fitted":
        """The inverse of `state_dict`; also of versions that had one map for all voxels."""
        return cls(**{**state, "scaling": _scaling(state["scaling"])})


@dataclass(frozen=True)
class TaskScalings:
    """A scaling for every task, and a single one for all.

    Attributes:
        single: fitted on the voxels of all tasks together.
        tasks: task -> fitted on its voxels; empty for a single scaling only.
        shares: task with several exclusive classes -> vector scaling of their shares in its foreground.

    Example:
        >>> label = torch.tensor([1, 1, 1, 0]).view(1, 1, 4)
        >>> histograms = {}
        >>> for task, sure in {"Liver": 0.99, "Spleen": 0.9}.items():
        ...     probability = torch.full((1, 1, 4), sure)
        ...     zones = zone_masks(probability, spacing_mm=(1, 1, 1))
        ...     histograms[task] = ZoneHistograms.of(probability, label, zones)
        >>> scalings = TaskScalings.fit(histograms, "temperature", per_task=True)
        >>> [str(scalings.choose(task).near) for task in ("Liver", "Spleen", None)]
        ['T = 4.18', 'T = 2.00', 'T = 3.39']
    """

    single: Fitted
    tasks: Mapping[str, Fitted]
    shares: Mapping[str, FittedShares] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        histograms: Mapping[str, ZoneHistograms],
        method: str,
        per_task: bool,
        samples: Mapping[str, Mapping[str, Sequence[VoxelSample]]] = MappingProxyType({}),
    ) -> "TaskScalings":
        """Fit to each task, and to all.

        Args:
            histograms: task -> logits of its validation cases.
            method: a name of `KINDS`.
            per_task: also fit to each task.
            samples: task -> zone -> voxels of the same cases, for local temperatures.
        """
        zones = dict.fromkeys(zone for own in samples.values() for zone in own)
        every = {zone: [sample for own in samples.values() for sample in own.get(zone, ())] for zone in zones}
        single = Fitted.on(sum(histograms.values(), ZoneHistograms.empty()), method, every)
        tasks = {}
        for task, own in histograms.items() if per_task else ():
            others = [other for name, other in histograms.items() if name != task]
            tasks[task] = Fitted.on(own, method, samples.get(task, {}), others)
        return cls(single, tasks)

    def warn_if_old(self, where: str) -> None:
        """Warn if an earlier version fitted them, with one map for all voxels, near the true organ by default.

        Args:
            where: the checkpoint that holds them.
        """
        if not isinstance(self.single.scaling, ByZone):
            logger.warning(
                "the scaling of %s is of an earlier version, which fitted it near the organ alone: run `medmtl "
                "calibrate` for probabilities and expected volumes that hold in the whole image",
                where,
            )

    def choose(self, task: str | None) -> Scaling:
        """The scaling of a task, or the single one for None or a task without one."""
        return (self.tasks.get(task, self.single) if task is not None else self.single).scaling

    def shares_of(self, head: str | None) -> VectorScaling | None:
        """The scaling of the shares of the classes of a head; None: they stay as they are."""
        fitted = None if head is None else self.shares.get(head)
        return None if fitted is None else fitted.scaling

    def state_dict(self) -> dict[str, Any]:
        """Text, numbers and tensors, for a checkpoint that loads with `weights_only=True`."""
        own = {task: fitted.state_dict() for task, fitted in self.tasks.items()}
        shares = {task: fitted.state_dict() for task, fitted in self.shares.items()}
        return {"single": self.single.state_dict(), "tasks": own, **({"shares": shares} if shares else {})}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "TaskScalings":
        """The inverse of `state_dict`."""
        own = {task: Fitted.from_state_dict(fitted) for task, fitted in state["tasks"].items()}
        shares = {task: FittedShares.from_state_dict(fitted) for task, fitted in state.get("shares", {}).items()}
        return cls(Fitted.from_state_dict(state["single"]), own, shares)


def _fit(kind: type[Monotone], zone: str, own: ZoneHistograms, others: Sequence[ZoneHistograms]) -> Monotone:
    try:
        return kind.fit(own.zones[zone])
    except DataError as error:
        if not own.cases:
            raise
        try:
            return kind.fit(own.with_one_of(others).zones[zone])
        except DataError:
            raise error from None


def _scaling(state: Mapping[str, Any]) -> Scaling:
    """The inverse of `Scaling.state_dict`."""
    parameters = dict(state)
    method = parameters.pop("method")
    if method == ByZone.method:
        return ByZone(**{name: _scaling(zone) for name, zone in parameters.items()})
    return KINDS[method](**parameters)
