"""Post-hoc scaling fitted on validation cases for every task, and for all tasks together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from medmtl.calibration.scaling.histogram import LogitHistogram
from medmtl.calibration.scaling.local_temperature import LocalTemperature
from medmtl.calibration.scaling.parametric import Isotonic, Monotone, Platt, Scaling, Temperature
from medmtl.calibration.scaling.working_volume import VoxelSample
from medmtl.errors import DataError

# Fitted from a histogram alone.
METHODS: Mapping[str, type[Monotone]] = MappingProxyType({kind.method: kind for kind in (Temperature, Platt, Isotonic)})
KINDS: Mapping[str, type[Scaling]] = MappingProxyType({**METHODS, LocalTemperature.method: LocalTemperature})


@dataclass(frozen=True)
class Fitted:
    """A fitted scaling with its NLL on the voxels that it was fitted on.

    Attributes:
        scaling: the map; T = 1, the identity, if the fit was refused, and a single temperature if only local
            temperatures were.
        cases: validation cases with voxels in the region.
        voxels: their voxels in the region.
        nll_before: their mean NLL before scaling, nats.
        nll_after: after scaling; for local temperatures an estimate from the sampled voxels.
        refused: why the fit was refused; empty if it was not.
    """

    scaling: Scaling
    cases: int
    voxels: int
    nll_before: float
    nll_after: float
    refused: str = ""

    @classmethod
    def on(cls, histogram: LogitHistogram, method: str, samples: Sequence[VoxelSample] = ()) -> "Fitted":
        """Fit a method of `KINDS`; a failure is recorded in `refused`.

        Args:
            histogram: of the validation cases.
            method: its name.
            samples: of the same cases, for local temperatures.
        """
        raw = Temperature()
        plain: Monotone = raw
        local: LocalTemperature | None = None
        refused = ""
        try:
            if method == LocalTemperature.method:
                plain = single = Temperature.fit(histogram)
                local = LocalTemperature.fit(samples, single.temperature)
            else:
                plain = METHODS[method].fit(histogram)
        except DataError as error:
            refused = str(error)
        after = plain.nll(histogram) - (local.gain if local else 0)
        return cls(local or plain, histogram.cases, histogram.voxels, raw.nll(histogram), after, refused)

    def summary(self) -> dict[str, Any]:
        """For the report: attributes, the scaling as text, and its scalar parameters."""
        numbers = {name: value for name, value in vars(self.scaling).items() if isinstance(value, float)}
        return vars(self) | {"scaling": str(self.scaling), "parameters": numbers}

    def state_dict(self) -> dict[str, Any]:
        """Text, numbers and tensors."""
        return vars(self) | {"scaling": self.scaling.state_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Fitted":
        """The inverse of `state_dict`."""
        parameters = dict(state["scaling"])
        return cls(**{**state, "scaling": KINDS[parameters.pop("method")](**parameters)})


@dataclass(frozen=True)
class TaskScalings:
    """A scaling for every task, and a single one for all.

    Attributes:
        single: fitted on the voxels of all tasks together.
        tasks: task -> fitted on its voxels; empty for a single scaling only.

    Example:
        >>> label = torch.tensor([1, 1, 1, 0])
        >>> histograms = {
        ...     "Liver": logit_histogram(torch.full((4,), 0.99), label),
        ...     "Spleen": logit_histogram(torch.full((4,), 0.9), label),
        ... }
        >>> scalings = TaskScalings.fit(histograms, "temperature", per_task=True)
        >>> [str(scalings.choose(task)) for task in ("Liver", "Spleen", None)]
        ['T = 4.18', 'T = 2.00', 'T = 3.39']
    """

    single: Fitted
    tasks: Mapping[str, Fitted]

    @classmethod
    def fit(
        cls,
        histograms: Mapping[str, LogitHistogram],
        method: str,
        per_task: bool,
        samples: Mapping[str, Sequence[VoxelSample]] = MappingProxyType({}),
    ) -> "TaskScalings":
        """Fit to each task, and to all.

        Args:
            histograms: task -> logits of its validation cases.
            method: a name of `KINDS`.
            per_task: also fit to each task.
            samples: task -> voxels of the same cases, for local temperatures.
        """
        every = [sample for own in samples.values() for sample in own]
        single = Fitted.on(sum(histograms.values(), LogitHistogram.empty()), method, every)
        own = {
            task: Fitted.on(histogram, method, samples.get(task, ()))
            for task, histogram in (histograms.items() if per_task else ())
        }
        return cls(single, own)

    def choose(self, task: str | None) -> Scaling:
        """The scaling of a task, or the single one for None or a task without one."""
        return (self.tasks.get(task, self.single) if task is not None else self.single).scaling

    def state_dict(self) -> dict[str, Any]:
        """Text, numbers and tensors, for a checkpoint that loads with `weights_only=True`."""
        own = {task: fitted.state_dict() for task, fitted in self.tasks.items()}
        return {"single": self.single.state_dict(), "tasks": own}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "TaskScalings":
        """The inverse of `state_dict`."""
        own = {task: Fitted.from_state_dict(fitted) for task, fitted in state["tasks"].items()}
        return cls(Fitted.from_state_dict(state["single"]), own)
