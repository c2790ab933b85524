"""Local temperatures where the truth is known: the bright half of each image has over-confident logits."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import nll
from medmtl.calibration.scaling import local_temperature
from medmtl.calibration.scaling.histogram import LogitHistogram, logit_histogram, to_logits
from medmtl.calibration.scaling.local_temperature import LocalTemperature
from medmtl.calibration.scaling.parametric import Temperature
from medmtl.calibration.scaling.per_task import UNCHANGED, Fitted, TaskScalings
from medmtl.calibration.scaling.working_volume import VoxelSample, WorkingVolume, sample_voxels
from medmtl.calibration.scaling.zones import ByZone, ZoneHistograms, zone_masks
from medmtl.errors import DataError

SHAPE = (10, 12, 10)
HALF = SHAPE[0] // 2
OVERCONFIDENT, CALIBRATED = 4.0, 1.0
NULLS = 20
SPACING_MM = (1.0, 1.0, 1.0)
SAME_GRID = torch.eye(4, dtype=torch.float64)

Case = tuple[Tensor, Tensor, WorkingVolume]


def case(
    seed: int, factor: float = OVERCONFIDENT, dark: float = CALIBRATED, shape: tuple[int, int, int] = SHAPE
) -> Case:
    """Labels drawn with probability sigmoid(z); the logit is 4 z where the image is bright, and z where it is dark."""
    draw = torch.Generator().manual_seed(seed)
    z = 1.3 * torch.randn(shape, generator=draw)
    label = torch.rand(shape, generator=draw) < torch.sigmoid(z)
    bright = torch.arange(shape[0])[:, None, None].expand(shape) >= shape[0] // 2
    image = torch.where(bright, 1.0, -1.0) + 0.2 * torch.randn(shape, generator=draw)
    probability = torch.sigmoid(z * torch.where(bright, factor, dark))
    return probability, label, WorkingVolume(image, probability, SAME_GRID)


def evidence(cases: Sequence[Case]) -> tuple[LogitHistogram, list[VoxelSample]]:
    histograms = [logit_histogram(probability, label) for probability, label, _ in cases]
    samples = [
        sample_voxels(probability, label, torch.ones_like(label), working, f"p{number}")
        for number, (probability, label, working) in enumerate(cases)
    ]
    return sum(histograms, LogitHistogram.empty()), samples


def evidence_by_zone(cases: Sequence[Case]) -> tuple[ZoneHistograms, dict[str, list[VoxelSample]]]:
    """All voxels are near: the half that are in the mask lie everywhere."""
    histograms, samples = ZoneHistograms.empty(), dict[str, list[VoxelSample]](near=[])
    for number, (probability, label, working) in enumerate(cases):
        zones = zone_masks(probability, SPACING_MM)
        histograms += ZoneHistograms.of(probability, label, zones)
        for name, own in samples.items():
            own.append(sample_voxels(probability, label, zones[name], working, f"p{number}"))
    return histograms, samples


def single_temperatures(histograms: ZoneHistograms) -> ByZone:
    return ByZone(Temperature.fit(histograms.zones["near"]), UNCHANGED)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def fitted(cases: list[Case]) -> Fitted:
    histograms, samples = evidence_by_zone(cases)
    return Fitted.on(histograms, "local", samples)


@pytest.fixture(scope="module")
def local(fitted: Fitted) -> LocalTemperature:
    """The temperatures near the organ, which here is every voxel."""
    assert isinstance(fitted.scaling, ByZone)
    assert isinstance(fitted.scaling.near, LocalTemperature)
    return fitted.scaling.near


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of 40 steps, for tests that do not depend on the quality of the fit."""
    monkeypatch.setattr(local_temperature, "STEPS", 40)


def any_temperatures(spread: float = 8.0) -> LocalTemperature:
    """A network with random weights and very different temperatures."""
    draw = torch.Generator().manual_seed(3)
    shapes = {"0.weight": (8, 54), "0.bias": (8,), "2.weight": (8, 8), "2.bias": (8,), "4.weight": (1, 8)}
    weights = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return LocalTemperature(
        1.5, 0.0, 0.0, {**weights, "4.weight": spread * weights["4.weight"], "4.bias": torch.zeros(1)}
    )


def test_both_factors_are_found_where_one_temperature_finds_neither(local: LocalTemperature) -> None:
    scaling = local
    assert 1.3 * CALIBRATED < scaling.temperature < OVERCONFIDENT / 1.3
    probability, label, working = case(99)
    temperatures = scaling.temperatures(working)
    assert temperatures[:HALF].median().item() == pytest.approx(CALIBRATED, rel=0.2)
    assert temperatures[HALF:].median().item() == pytest.approx(OVERCONFIDENT, rel=0.2)
    truth = torch.cat(
        [probability[:HALF], torch.sigmoid(torch.logit(probability[HALF:].double()) / OVERCONFIDENT).float()]
    )
    ways = (probability, Temperature(scaling.temperature)(probability), scaling(probability, working), truth)
    raw, single, several, best = (nll(bin_volume(way, label)) for way in ways)
    assert several < single < raw
    assert single - several > 0.75 * (single - best)


def test_the_held_out_gain_is_not_that_on_the_training_voxels(local: LocalTemperature) -> None:
    scaling = local
    assert 0 < scaling.held_out_gain < scaling.gain
    fresh = [case(seed) for seed in range(100, 110)]
    single = Temperature(scaling.temperature)
    gains = [nll(bin_volume(single(p), y)) - nll(bin_volume(scaling(p, w), y)) for p, y, w in fresh]
    assert sum(gains) / len(gains) == pytest.approx(scaling.held_out_gain, rel=0.2)


def test_the_nll_that_a_fit_states_is_that_of_the_scaled_volumes(fitted: Fitted, cases: list[Case]) -> None:
    tables = [bin_volume(fitted.scaling(p, working, SPACING_MM), label) for p, label, working in cases]
    assert fitted.nll_after == pytest.approx(nll(sum(tables[1:], tables[0])), abs=1e-6)
    assert fitted.nll_after < fitted.nll_before - 0.1
    assert (fitted.cases, fitted.voxels) == (12, 12 * math.prod(SHAPE))
    assert fitted.refused == "far: the region holds no voxel of a validation case"
    assert isinstance(fitted.scaling, ByZone)
    assert fitted.scaling.far == UNCHANGED


def test_an_untrained_network_is_one_temperature() -> None:
    probability, _, working = case(0)
    assert torch.allclose(any_temperatures(spread=0)(probability, working), Temperature(1.5)(probability), atol=1e-6)


def test_no_voxel_moves_over_one_half_and_temperatures_keep_their_bounds() -> None:
    probability, _, working = case(0)
    near = torch.tensor([-1e-5, -1e-6, 0, 1e-6, 1e-5])  # closer than 1e-6, float32 cannot hold the scaled difference
    probability[0, 0, :7] = torch.cat([0.5 + near, torch.tensor([0.0, 1.0])])
    scaling = any_temperatures()
    temperatures, scaled = scaling.temperatures(working), scaling(probability, working)
    assert temperatures.min() == pytest.approx(1 / 20)
    assert temperatures.max() == pytest.approx(20)
    assert torch.equal(scaled >= 0.5, probability >= 0.5)
    assert (scaled.shape, scaled.dtype) == (probability.shape, probability.dtype)
    assert not torch.allclose(scaled, probability, atol=0.1)


def test_a_voxel_of_the_image_s_own_grid_has_the_temperature_of_the_nearest_of_the_working_space() -> None:
    # Twice as fine and turned around along the first axis; the native probability is laid out in another order.
    from_native = torch.tensor([[-0.5, 0, 0, 7.2], [0, 0.5, 0, -0.2], [0, 0, 0.5, -0.2], [0, 0, 0, 1]]).double()
    draw = torch.Generator().manual_seed(0)
    working = WorkingVolume(torch.randn(8, 9, 7, generator=draw), torch.rand(8, 9, 7, generator=draw), from_native)
    probability = torch.rand(14, 18, 16, generator=draw).permute(2, 1, 0)
    scaling = any_temperatures(spread=1)
    temperatures = scaling.temperatures(working).flip(0)
    fine = temperatures.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    expected = torch.sigmoid(to_logits(probability) / fine)
    assert torch.allclose(scaling(probability, working).double(), expected, atol=1e-6)


@pytest.mark.usefixtures("short")
def test_temperatures_without_held_out_gain_are_refused_and_one_is_kept() -> None:
    histograms, samples = evidence_by_zone([case(seed, factor=CALIBRATED) for seed in range(3)])
    found = Fitted.on(histograms, "local", samples)
    assert found.scaling.state_dict() == single_temperatures(histograms).state_dict()
    assert "near: on held-out patients" in found.refused
    assert "\n" not in found.refused
    assert found.nll_after == pytest.approx(single_temperatures(histograms).nll(histograms))


@pytest.mark.usefixtures("short")
def test_of_sets_of_cases_with_nothing_local_to_learn_at_most_one_in_twenty_is_accepted() -> None:
    # Logits are twice too large everywhere. A small set is easily overfitted, and has chances to look better by.
    accepted = 0
    for number in range(NULLS):
        _, samples = evidence([case(3 * number + patient, 2, 2, (6, 6, 6)) for patient in range(3)])
        try:
            LocalTemperature.fit(samples, 2.0)
        except DataError:
            continue
        accepted += 1
    assert accepted <= 0.05 * NULLS


@pytest.mark.usefixtures("short")
def test_a_local_effect_of_the_size_of_real_ones_is_found_in_few_patients() -> None:
    # Logits are 3 times too large where the image is bright, and 1.5 times where it is dark.
    for number in range(3):
        _, samples = evidence([case(100 * number + patient, 3.0, 1.5) for patient in range(6)])
        assert LocalTemperature.fit(samples, 2.0).held_out_gain > 0


def test_three_patients_are_needed(cases: list[Case]) -> None:
    histograms, samples = evidence_by_zone(cases[:4])
    for change in (
        lambda own: [replace(sample, patient="p0") for sample in own],
        lambda own: own[:2],
        lambda own: [*own[:2], replace(own[1], voxels=0)],
        lambda own: [],
    ):
        found = Fitted.on(histograms, "local", {name: change(own) for name, own in samples.items()})
        assert "near: local temperatures need validation cases of three patients" in found.refused
        assert found.scaling.state_dict() == single_temperatures(histograms).state_dict()
    assert "no voxel" in Fitted.on(ZoneHistograms.empty(), "local").refused


@pytest.mark.usefixtures("short")
def test_cases_weigh_as_many_voxels_as_they_stand_for(cases: list[Case]) -> None:
    # Where nearly all voxels are those of calibrated cases, hardly anything is to be gained.
    plain = [case(seed, factor=CALIBRATED) for seed in range(20, 23)]
    _, samples = evidence([*plain, *cases[:3]])
    heavy = [
        replace(sample, voxels=sample.voxels * (1000 if number < 3 else 1)) for number, sample in enumerate(samples)
    ]
    temperature = 1.0
    assert LocalTemperature.fit(samples, temperature).gain > 0.02
    with pytest.raises(DataError, match="held-out patients"):
        LocalTemperature.fit(heavy, temperature)


@pytest.mark.usefixtures("short")
def test_fits_are_alike_bit_by_bit_in_any_order_of_cases_and_within_a_validation() -> None:
    histogram, samples = evidence([case(seed, shape=(6, 8, 6)) for seed in range(6)])
    temperature = Temperature.fit(histogram).temperature
    once = LocalTemperature.fit(samples, temperature)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with torch.inference_mode():
        other = [replace(one, inputs=one.inputs.clone()) for one in reversed(samples)]
        again = LocalTemperature.fit(other, temperature)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weight, once.weights[name]) for name, weight in again.weights.items())
    assert again.parameters() == once.parameters()


def test_a_state_loads_safely_and_scales_bit_for_bit_alike(fitted: Fitted, tmp_path: Path) -> None:
    torch.save(TaskScalings(fitted, {"A": fitted}).state_dict(), tmp_path / "state")
    loaded = TaskScalings.from_state_dict(torch.load(tmp_path / "state", weights_only=True))
    probability, _, working = case(50)
    for task in ("A", None):
        scaled = [scaling(probability, working, SPACING_MM) for scaling in (loaded.choose(task), fitted.scaling)]
        assert torch.equal(*scaled)
    assert str(loaded.single.scaling) == str(fitted.scaling)


@pytest.mark.usefixtures("short")
def test_each_task_has_a_network_of_its_own_and_other_tasks_that_of_all(cases: list[Case]) -> None:
    groups = {"A": cases[:3], "B": [case(seed, factor=CALIBRATED) for seed in range(30, 33)]}
    found = {task: evidence_by_zone(group) for task, group in groups.items()}
    histograms = {task: own for task, (own, _) in found.items()}
    scalings = TaskScalings.fit(histograms, "local", True, {task: taken for task, (_, taken) in found.items()})
    own, other, single = (scalings.choose(task) for task in ("A", "B", None))
    assert isinstance(own, ByZone)
    assert isinstance(own.near, LocalTemperature)
    assert own.near.temperature == Temperature.fit(histograms["A"].zones["near"]).temperature
    assert isinstance(other, ByZone)
    assert isinstance(other.near, Temperature)
    assert isinstance(single, ByZone)
    assert isinstance(single.near, LocalTemperature)
    pooled = histograms["A"] + histograms["B"]
    assert single.near.temperature == Temperature.fit(pooled.zones["near"]).temperature


def test_a_region_has_the_temperatures_that_it_has_in_the_whole_volume() -> None:
    probability, _, working = case(0)
    region = torch.rand(SHAPE, generator=torch.Generator().manual_seed(5)) < 0.2
    scaling = any_temperatures()
    whole = scaling(probability, working)[region]
    assert torch.allclose(scaling.within(region, probability, working), whole, atol=1e-6)
    assert scaling.within(torch.zeros(SHAPE, dtype=torch.bool), probability, working).shape == (0,)


def test_without_the_image_there_is_no_local_temperature() -> None:
    with pytest.raises(DataError, match="depend on the image"):
        any_temperatures()(torch.rand(2, 3, 4))


def test_it_prints_its_temperature() -> None:
    assert str(any_temperatures()) == "local T around 1.50"
