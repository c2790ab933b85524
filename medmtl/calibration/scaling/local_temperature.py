"""Local temperature scaling: a small network predicts the temperature of every voxel from logit and image.

After Ding et al., ICCV 2021 (arXiv 2008.05105), in 3-D and for one foreground logit. Only the first layer has a
receptive field of more than one voxel, so the network is trained on the neighbourhoods of sampled voxels: in seconds,
and in memory that does not grow with the volumes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from medmtl.calibration.pieces import PIECE
from medmtl.calibration.scaling.histogram import to_logits
from medmtl.calibration.scaling.parametric import MAXIMUM_TEMPERATURE, MINIMUM_TEMPERATURE, Scaling, Temperature
from medmtl.calibration.scaling.working_volume import INPUTS, VoxelSample, WorkingVolume, stretches
from medmtl.errors import DataError

HIDDEN = 8
LEARNING_RATE, WEIGHT_DECAY, BATCH = 0.01, 1.0, 4096
# Training steps at most, steps between evaluations on held-out patients, and evaluations without gain before it stops.
STEPS, PAUSE, PATIENCE = 200, 5, 10
FOLDS = 5


@dataclass(frozen=True, eq=False)
class LocalTemperature(Scaling):
    """p = sigmoid(z / T(x)) of the logit z of voxel x; the segmentation at 0.5 does not change.

    T(x) = T exp(g(x)), clipped to [1/20, 20]. The input of the network g are logit and image in a neighbourhood of x;
    it has two hidden layers of 8, and is initialised to 0, where T(x) = T.

    A voxel of the image's own grid has the temperature of the nearest voxel of the working space.

    Args:
        temperature: T, the single temperature of minimum NLL.
        gain: mean NLL with T less that with T(x), over the voxels that g was trained on, nats.
        held_out_gain: the same over the held-out patients of the cross-validation.
        weights: of g.
    """

    method: ClassVar[str] = "local"
    temperature: float
    gain: float
    held_out_gain: float
    weights: dict[str, Tensor]

    @classmethod
    def fit(cls, samples: Sequence[VoxelSample], temperature: float) -> "LocalTemperature":
        """Train the network by minimum NLL, with the number of steps chosen by cross-validation over patients.

        There are 5 folds, or as many as there are patients; each network starts from the temperature of its training
        patients. The number of steps is that of minimum NLL over all held-out voxels.

        Args:
            samples: of the validation cases; a voxel is weighted by the number of voxels that it represents.
            temperature: T, fitted on the same cases.

        Raises:
            DataError: there are fewer than two patients, or the held-out gain over a single temperature does not exceed
                its standard error over patients.
        """
        with torch.inference_mode(False), torch.enable_grad():  # both are off during validation
            voxels = _Voxels.of(samples)
            best, gains = _cross_validate(voxels)
            gain, error = float(gains.sum()), float(gains.std() * math.sqrt(len(gains)))
            if not gain > error:
                raise DataError(
                    f"on held-out patients the NLL with local temperatures is lower than with a single one by "
                    f"{gain:.4f}, which does not exceed its standard error of {error:.4f}"
                )
            network = next(islice(_training(voxels, temperature), best, None))
            with torch.no_grad():
                own = float((voxels.weight * voxels.gain(network, temperature)).sum())
        weights = {name: weight.detach().clone() for name, weight in network.state_dict().items()}
        return cls(temperature, own, gain, weights)

    @torch.no_grad()
    def temperatures(self, working: WorkingVolume) -> Tensor:
        """Temperature of every voxel of the working space, `(h, w, d)` float32, in [1/20, 20], on the CPU."""
        return self._at(working, torch.arange(working.image.numel())).view(working.shape)

    @torch.no_grad()
    def __call__(
        self, probability: Tensor, working: WorkingVolume | None = None, spacing_mm: Sequence[float] | None = None
    ) -> Tensor:
        """See `Scaling.__call__`."""
        temperatures, scaled = self.temperatures(_given(working)).flatten(), []
        flat = probability.as_subclass(Tensor).reshape(-1)
        for voxels, part in zip(stretches(len(flat)), flat.split(PIECE), strict=True):
            temperature = temperatures[_given(working).nearest(voxels, probability.shape)]
            scaled.append(torch.sigmoid(to_logits(part.cpu()) / temperature).to(probability.dtype))
        return torch.cat(scaled).view(probability.shape)

    @torch.no_grad()
    def within(self, region: Tensor, probability: Tensor, working: WorkingVolume | None = None) -> Tensor:
        """See `Scaling.within`; the temperatures of other voxels are not computed."""
        working = _given(working)
        voxels = region.flatten().nonzero()[:, 0]
        if not len(voxels):
            return probability.new_empty(0)
        nearest = torch.cat([working.nearest(part, probability.shape) for part in voxels.split(PIECE)])
        places, which = nearest.unique(return_inverse=True)
        temperature = self._at(working, places)[which]
        return torch.sigmoid(to_logits(probability[region].cpu()) / temperature).to(probability.dtype)

    def _at(self, working: WorkingVolume, places: Tensor) -> Tensor:
        """Temperature of some voxels of the working space, `(n,)` float32."""
        around = map(working.neighbourhoods, places.split(PIECE))
        return torch.cat([_log_temperature(self._network, inputs, self.temperature).exp() for inputs in around])

    def __str__(self) -> str:
        return f"local T around {self.temperature:.2f}"

    @cached_property
    def _network(self) -> nn.Module:
        network = _network()
        network.load_state_dict(self.weights)
        return network


@dataclass(frozen=True, eq=False)
class _Voxels:
    """The voxels of all samples.

    Attributes:
        inputs, logits, label: as those of `VoxelSample`, `(N, 54)` and `(N,)`, float32.
        weight: share of all voxels that one represents, `(N,)`, float64.
        patient: number of the patient from 0, `(N,)`.
    """

    inputs: Tensor
    logits: Tensor
    label: Tensor
    weight: Tensor
    patient: Tensor

    @classmethod
    def of(cls, samples: Sequence[VoxelSample]) -> "_Voxels":
        """All voxels; the order of the samples does not matter.

        Raises:
            DataError: they are of fewer than two patients.
        """
        samples = sorted((sample for sample in samples if sample.voxels), key=lambda sample: sample.patient)
        patients = {name: number for number, name in enumerate(dict.fromkeys(sample.patient for sample in samples))}
        if len(patients) < 2:
            raise DataError("local temperatures need validation cases of two patients, one of them held out")
        weights = [torch.full_like(sample.logits, sample.voxels / len(sample.logits)) for sample in samples]
        weight = torch.cat(weights)
        return cls(
            torch.cat([sample.inputs for sample in samples]),
            torch.cat([sample.logits for sample in samples]).float(),
            torch.cat([sample.label for sample in samples]).float(),
            weight / weight.sum(),
            torch.cat([torch.full((len(sample.logits),), patients[sample.patient]) for sample in samples]),
        )

    def __getitem__(self, chosen: Tensor) -> "_Voxels":
        return _Voxels(*(values[chosen] for values in vars(self).values()))

    def nll(self, log_temperature: Tensor) -> Tensor:
        scaled = self.logits * torch.exp(-log_temperature)
        return softplus(scaled) - self.label * scaled

    def gain(self, network: nn.Module, temperature: float) -> Tensor:
        """NLL of each with a single temperature less that with local ones, `(N,)`."""
        single = torch.tensor(math.log(temperature))
        return self.nll(single) - self.nll(_log_temperature(network, self.inputs, temperature))


def _given(working: WorkingVolume | None) -> WorkingVolume:
    if working is None:
        raise DataError("local temperatures depend on the image, which is not given", fix="pass working")
    return working


def _cross_validate(voxels: _Voxels) -> tuple[int, Tensor]:
    """Train the networks of all folds in parallel, until the NLL of the held-out patients stops falling.

    Returns:
        Evaluation, from 0, of minimum NLL of all held-out voxels; and the contribution of each patient to the gain over
        a single temperature, `(patients,)` float64, with the gain in the mean NLL as their sum.
    """
    patients = int(voxels.patient.max()) + 1
    folds = min(FOLDS, patients)
    fold_of = torch.randperm(patients, generator=torch.Generator().manual_seed(0)) % folds
    trainings, held_out = [], []
    for fold in range(folds):
        outside = fold_of[voxels.patient] == fold
        inside = voxels[~outside]
        weight = inside.weight / inside.weight.sum()
        values = (inside.logits.double().numpy(), inside.label.double().numpy(), weight.numpy())
        temperature = Temperature.of_voxels(*values).temperature
        trainings.append(_training(inside, temperature))
        held_out.append((voxels[outside], temperature))
    gains: list[Tensor] = []
    best = 0
    for networks in zip(*trainings, strict=True):
        found = torch.zeros(patients, dtype=torch.float64)
        for network, (others, temperature) in zip(networks, held_out, strict=True):
            with torch.no_grad():
                found.index_add_(0, others.patient, others.weight * others.gain(network, temperature))
        gains.append(found)
        best = max(range(len(gains)), key=lambda evaluation: float(gains[evaluation].sum()))
        if len(gains) - 1 - best == PATIENCE:
            break
    return best, gains[best]


def _training(voxels: _Voxels, temperature: float) -> Iterator[nn.Module]:
    """Train a network from a single temperature, and yield it every `PAUSE` steps."""
    network = _network()
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    draw = torch.Generator().manual_seed(0)
    for step in range(1, STEPS + 1):
        batch = voxels[torch.randperm(len(voxels.label), generator=draw)[:BATCH]]
        loss = batch.weight.float() @ batch.nll(_log_temperature(network, batch.inputs, temperature))
        optimizer.zero_grad()
        (loss / batch.weight.sum()).backward()
        optimizer.step()
        if step % PAUSE == 0:
            yield network


def _network() -> nn.Module:
    """The network as initialised: the same at every call, with output 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        last = nn.Linear(HIDDEN, 1)
        network = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), last)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network


def _log_temperature(network: nn.Module, inputs: Tensor, temperature: float) -> Tensor:
    """The logarithm of T(x), `(n,)` float32, clipped."""
    return (math.log(temperature) + network(inputs)[:, 0]).clamp(
        math.log(MINIMUM_TEMPERATURE), math.log(MAXIMUM_TEMPERATURE)
    )
