"""The shares of exclusive classes in the foreground of a task: vector scaling, fitted on validation cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medmtl.calibration.metrics.bins import NLL_FLOOR
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.calibration.scaling.working_volume import SAMPLED, WorkingVolume, spread
from medmtl.errors import DataError

# Fewer say too little of other people: the shares then stay those of the network.
LEAST_PEOPLE = 3
LEAST_VOXELS = 50  # of each class, in all cases together


@dataclass(frozen=True, eq=False)
class ClassSample:
    """Some voxels of every class of a validation case.

    Attributes:
        patient: of the case.
        classes: their names.
        log_shares: logarithm of the probability of each class given the foreground, `(n, classes)` float32.
        label: number of the true class from 0, `(n,)` int64.
        weight: how many voxels of its class each represents, `(n,)` float64.
    """

    patient: str
    classes: Sequence[str]
    log_shares: Tensor
    label: Tensor
    weight: Tensor


@torch.no_grad()
def sample_classes(
    logits: Tensor, label: Tensor, working: WorkingVolume, patient: str, classes: Sequence[str]
) -> ClassSample:
    """Sample up to 2000 voxels of the true foreground of a case, as many of each class, evenly spread.

    Args:
        logits: of the classes, without that of the background, `(classes, h, w, d)` in the working space.
        label: 0, or the number of the class from 1, on the image's own grid, `(H, W, D)`.
        working: the same volume in the working space.
        patient: of the case.
        classes: their names.
    """
    flat = label.as_subclass(Tensor).cpu().reshape(-1)
    voxels, numbers, weights = [], [], []
    for number in range(len(classes)):
        own = (flat == number + 1).nonzero()[:, 0]
        count = min(len(own), max(SAMPLED // len(classes), 1))
        voxels.append(own[spread(len(own), count)])
        numbers.append(torch.full((count,), number))
        weights.append(torch.full((count,), len(own) / max(count, 1), dtype=torch.float64))
    places = working.nearest(torch.cat(voxels), label.shape)
    chosen = logits.as_subclass(Tensor).flatten(1)[:, places.to(logits.device)].T.float().cpu()
    return ClassSample(patient, classes, torch.log_softmax(chosen, 1), torch.cat(numbers), torch.cat(weights))


@dataclass(frozen=True)
class FittedShares:
    """Vector scaling of the shares of a task's classes, with its NLL on the voxels that it was fitted on.

    Attributes:
        scaling: of log shares; None, the identity, where the fit was refused.
        classes: the names of the classes, in its order.
        cases: validation cases whose labels mark every class.
        voxels: of their foreground.
        nll_before: mean negative logarithm of the share of the true class, before scaling, nats; 0 without voxels.
        nll_after: after it.
        refused: why the fit was refused; empty if it was not.
    """

    scaling: VectorScaling | None
    classes: Sequence[str]
    cases: int
    voxels: int
    nll_before: float
    nll_after: float
    refused: str = ""

    @classmethod
    def fit(cls, samples: Sequence[ClassSample]) -> "FittedShares":
        """Fit on the cases of a task, each voxel weighted by those that it represents; a failure is in `refused`.

        Args:
            samples: at least one, of the same classes; their order does not matter. Those without voxels do not count.
        """
        classes = samples[0].classes
        known = sorted((sample for sample in samples if len(sample.label)), key=lambda sample: sample.patient)
        log_shares, label, weight = (
            torch.cat([torch.zeros_like(getattr(samples[0], name)[:0]), *(getattr(each, name) for each in known)])
            for name in ("log_shares", "label", "weight")
        )
        voxels = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, label, weight)
        scaling, refused, before = None, "", _nll(log_shares, label, weight)
        try:
            _require_enough(len({sample.patient for sample in known}), dict(zip(classes, voxels.tolist(), strict=True)))
            scaling = VectorScaling.fit(log_shares, label, weight)
        except DataError as error:
            refused = str(error)
        after = before if scaling is None else _nll(scaling(log_shares.double()).log(), label, weight)
        return cls(scaling, classes, len(known), round(float(voxels.sum())), before, after, refused)

    def __str__(self) -> str:
        if self.scaling is None:
            return "as the network gives them"
        pairs = zip(self.classes, self.scaling.weight.tolist(), self.scaling.offset.tolist(), strict=True)
        return ", ".join(f"{name} w = {weight:.2f}, b = {offset:.2f}" for name, weight, offset in pairs)

    def summary(self) -> dict[str, Any]:
        """For the report: attributes, the scaling as text, and its parameters by class."""
        parameters = {} if self.scaling is None else self.scaling.state_dict()
        listed = {name: values.tolist() for name, values in parameters.items()}
        return vars(self) | {"scaling": str(self), "classes": list(self.classes), "parameters": listed}

    def state_dict(self) -> dict[str, Any]:
        """Text, numbers and tensors."""
        scaling = None if self.scaling is None else self.scaling.state_dict()
        return vars(self) | {"scaling": scaling, "classes": list(self.classes)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "FittedShares":
        """The inverse of `state_dict`."""
        scaling = None if state["scaling"] is None else VectorScaling(**state["scaling"])
        return cls(**{**state, "scaling": scaling})


def _require_enough(people: int, voxels: Mapping[str, float]) -> None:
    """Check that a fit says something of other people.

    Raises:
        DataError: it would not.
    """
    if people < LEAST_PEOPLE:
        have = f"{people} person has" if people == 1 else f"{people} people have"
        raise DataError(f"{have} labels of every class, and {LEAST_PEOPLE} are needed")
    for name, count in voxels.items():
        if count < LEAST_VOXELS:
            raise DataError(f"class {name} has {count:.0f} voxels, and {LEAST_VOXELS} are needed")


def _nll(log_shares: Tensor, label: Tensor, weight: Tensor) -> float:
    own = log_shares.double().gather(1, label[:, None])[:, 0].clamp(min=math.log(NLL_FLOOR))
    return float(-(weight * own).sum() / weight.sum()) if len(label) else 0.0
