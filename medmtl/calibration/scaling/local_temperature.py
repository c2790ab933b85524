"""Local temperature scaling: a small network predicts the temperature of every voxel from logit and image.

After Ding et al., ICCV 2021 (arXiv 2008.05105), in 3-D and for one foreground logit. Only the first layer has a
receptive field of more than one voxel, so the network is trained on the neighbourhoods of sampled voxels: in seconds,
and in memory that does not grow with the volumes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import ClassVar

import torch
from scipy.stats import ttest_1samp
from torch import Tensor, nn
from torch.func import functional_call
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
EVALUATED = 65536  # voxels at a time
SIGNIFICANCE = 0.05  # of the gain on held-out patients


@dataclass(frozen=True, eq=False)
class LocalTemperature(Scaling):
    """p = sigmoid(z / T(x)) of the logit z of voxel x; the segmentation at 0.5 does not change.

    T(x) = T exp(g(x)), clipped to [1/20, 20]. The input of the network g are logit and image in a neighbourhood of x;
    it has two hidden layers of 8, and is initialised to 0, where T(x) = T.

    A voxel of the image's own grid has the temperature of the nearest voxel of the working space.

    Args:
        temperature: T, the single temperature of minimum NLL.
        gain: mean NLL with T less that with T(x), over the voxels that g was trained on, nats.
        held_out_gain: the same over the held-out patients of the nested cross-validation, see `fit`.
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

        Whether the network is worth having is tested on patients that neither trained it nor chose its steps, by nested
        cross-validation: the gain on a fold is that of a network trained without it, with steps chosen on the other
        folds alone. A one-sided t-test over patients at 5 % must reject that there is none. It makes no allowance for
        training patients that folds share; where nothing local was to be learned, it let 3 of 74 sets of three
        patients pass, and 3 of 74 of six.

        Args:
            samples: of the validation cases; a voxel is weighted by the number of voxels that it represents.
            temperature: T, fitted on the same cases.

        Raises:
            DataError: there are fewer than three patients, or the held-out gain over a single temperature may be
                chance.
        """
        with torch.inference_mode(False), torch.enable_grad():  # both are off during validation
            voxels = _Voxels.of(samples)
            network, gains = _choose(voxels, temperature)
            gain, p_value = float(gains.sum()), float(ttest_1samp(gains.numpy(), 0, alternative="greater").pvalue)
            if not p_value <= SIGNIFICANCE:
                raise DataError(
                    f"on held-out patients the NLL with local temperatures is lower than with a single one by "
                    f"{gain:.4f}, which may be chance (p = {p_value:.2f}, t-test over {len(gains)} patients)"
                )
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
            DataError: they are of fewer than three patients.
        """
        samples = sorted((sample for sample in samples if sample.voxels), key=lambda sample: sample.patient)
        patients = {name: number for number, name in enumerate(dict.fromkeys(sample.patient for sample in samples))}
        if len(patients) < 3:  # one is held out, and another chooses the number of steps
            raise DataError("local temperatures need validation cases of three patients, two of them held out")
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

    def temperature(self) -> float:
        """The single temperature of minimum NLL."""
        values = (self.logits.double(), self.label.double(), self.weight / self.weight.sum())
        return Temperature.of_voxels(*(value.numpy() for value in values)).temperature

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


class _Folds:
    """Patients in folds, the networks trained without some of these, and the curves by which steps are chosen.

    Network 0 is trained on all patients, the others without one fold or without two. Curve 0 is the gain of the
    networks without one fold, on that fold. Curve 1 + i is the gain of the networks without fold i and another one, on
    the other one: fold i plays no part in it.

    Attributes:
        of_patient: fold of each patient, `(patients,)`.
        inside: whether a network is trained on a patient, `(networks, patients)`.
        curves: 1 where the gain of a patient with a network counts in a curve, `(curves, networks, patients)` float64.
        without: the network without each fold alone, `(folds,)`.
    """

    def __init__(self, patients: int) -> None:
        count = min(FOLDS, patients)
        self.of_patient = torch.randperm(patients, generator=torch.Generator().manual_seed(0)) % count
        left_out = [frozenset(folds) for size in range(3) for folds in combinations(range(count), size)]
        self.inside = torch.stack([~self._within(folds) for folds in left_out])
        self.without = torch.tensor([left_out.index(frozenset({fold})) for fold in range(count)])
        self.curves = torch.zeros(1 + count, len(left_out), patients, dtype=torch.float64)
        for curve, untouched in enumerate([frozenset[int](), *(frozenset({fold}) for fold in range(count))]):
            for network, folds in enumerate(left_out):
                if untouched < folds and len(folds) == len(untouched) + 1:
                    self.curves[curve, network] = self._within(folds - untouched).double()

    def _within(self, folds: frozenset[int]) -> Tensor:
        return torch.isin(self.of_patient, torch.tensor(sorted(folds), dtype=torch.long))


class _Networks:
    """Several networks that are trained side by side, each on some patients from a single temperature of theirs.

    Attributes:
        weights: name -> of all networks, `(networks, ...)`.
    """

    def __init__(self, voxels: _Voxels, inside: Tensor, temperature: float) -> None:
        self._voxels = voxels
        self._inside = inside
        starts = [voxels[chosen[voxels.patient]].temperature() for chosen in inside[1:]]
        self._start = torch.tensor([temperature, *starts]).log()[:, None]
        self._layers = _network()
        self.weights = {
            name: weight.detach().repeat(len(inside), *[1] * weight.ndim).requires_grad_()
            for name, weight in self._layers.named_parameters()
        }

    def train(self) -> Iterator[Tensor]:
        """Train, and yield the contributions of all patients to the gains, `(networks, patients)`, every few steps."""
        optimizer = torch.optim.AdamW(self.weights.values(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        draw = torch.Generator().manual_seed(0)
        for step in range(1, STEPS + 1):
            batch = self._voxels[torch.randperm(len(self._voxels.label), generator=draw)[:BATCH]]
            weight = self._inside[:, batch.patient] * batch.weight.float()
            share = weight / weight.sum(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
            optimizer.zero_grad()
            (share * batch.nll(self._log_temperatures(batch.inputs))).sum().backward()
            optimizer.step()
            if step % PAUSE == 0:
                yield self._gains()

    @torch.no_grad()
    def _gains(self) -> Tensor:
        found = torch.zeros(self._inside.shape, dtype=torch.float64)
        for chosen in torch.arange(len(self._voxels.label)).split(EVALUATED):
            part = self._voxels[chosen]
            gain = part.nll(self._start) - part.nll(self._log_temperatures(part.inputs))
            found.index_add_(1, part.patient, part.weight * gain)
        return found

    def _log_temperatures(self, inputs: Tensor) -> Tensor:
        """Logarithm of T(x) with each network, `(networks, n)`."""
        found = torch.vmap(functional_call, in_dims=(None, 0, None))(self._layers, self.weights, inputs)
        return _clipped(self._start + found[..., 0])


def _choose(voxels: _Voxels, temperature: float) -> tuple[nn.Module, Tensor]:
    """Train a network on all patients, with the number of steps of maximum gain on held-out patients.

    Returns:
        The network; and the contribution of each patient to the gain over a single temperature, `(patients,)` float64,
        with the gain in the mean NLL as their sum. It is measured with a network that was trained without the patient's
        fold, for a number of steps that was chosen on the other folds.
    """
    folds = _Folds(int(voxels.patient.max()) + 1)
    networks = _Networks(voxels, folds.inside, temperature)
    gains: list[Tensor] = []
    curves: list[Tensor] = []
    kept: list[dict[str, Tensor]] = []
    best = [0]
    for found in networks.train():
        gains.append(found)
        curves.append((folds.curves * found).sum((1, 2)))
        kept.append({name: weights[0].detach().clone() for name, weights in networks.weights.items()})
        best = [_peak(curve) for curve in torch.stack(curves, 1).tolist()]
        if max(best) + PATIENCE < len(gains):
            break
    network = _network()
    network.load_state_dict(kept[best[0]])
    chosen = torch.tensor(best[1:])[folds.of_patient]
    patients = torch.arange(len(folds.of_patient))
    return network, torch.stack(gains)[chosen, folds.without[folds.of_patient], patients]


def _peak(curve: Sequence[float]) -> int:
    """The maximum of a curve before it has not risen above it for `PATIENCE` evaluations."""
    best = 0
    for evaluation, value in enumerate(curve):
        if value > curve[best]:
            best = evaluation
        elif evaluation - best == PATIENCE:
            break
    return best


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
    return _clipped(math.log(temperature) + network(inputs)[:, 0])


def _clipped(log_temperature: Tensor) -> Tensor:
    return log_temperature.clamp(math.log(MINIMUM_TEMPERATURE), math.log(MAXIMUM_TEMPERATURE))
