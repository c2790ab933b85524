"""Zones against distances between all pairs of voxels; what a map by zone does to each, and what other tasks add."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from zones_sample import histograms

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import nll
from medmtl.calibration.scaling.histogram import LogitHistogram, logit_histogram
from medmtl.calibration.scaling.parametric import Isotonic, Monotone, Platt, Temperature
from medmtl.calibration.scaling.per_task import METHODS, TaskScalings
from medmtl.calibration.scaling.zones import ZONES, ByZone, ZoneHistograms, zone_masks
from medmtl.errors import DataError

SPACING = (1.0, 2.5, 4.0)


def blobs(seed: int = 0) -> Tensor:
    """Background of 0.01 to 0.4 with a few voxels above one half."""
    draw = torch.Generator().manual_seed(seed)
    probability = 0.01 + 0.39 * torch.rand(24, 12, 9, generator=draw)
    probability[5:8, 3:5, 2:4] = 0.5 + 0.49 * torch.rand(3, 2, 2, generator=draw)
    probability[15, 9, 7] = 0.5
    return probability


def test_zones_follow_from_the_distance_to_the_nearest_voxel_of_the_mask() -> None:
    probability = blobs()
    places = torch.cartesian_prod(*map(torch.arange, probability.shape)) * torch.tensor(SPACING)
    inside = probability.flatten() >= 0.5
    distance = torch.cdist(places, places[inside]).min(dim=1).values
    found = {name: zone.flatten() for name, zone in zone_masks(probability, SPACING).items()}
    assert torch.equal(found["near"], distance <= 5 + 1e-4)
    assert torch.equal(found["far"], ~found["near"])
    assert inside.sum() < found["near"].sum() < len(inside)


def test_without_a_mask_all_is_far_and_what_is_unknown_is_in_no_zone() -> None:
    probability = blobs()
    known = probability < 0.3
    zones = zone_masks(probability.clamp(max=0.49), SPACING, known)
    assert torch.equal(zones["far"], known)
    assert not zones["near"].any()


MAPS = (
    Temperature(3.0),
    Platt(0.5, 4.0),
    Platt(0.5, -4.0),
    Isotonic(torch.tensor([-1.0, 1.0]), torch.tensor([0.2, 0.9])),
)


@pytest.mark.parametrize("shift", range(4))
def test_every_voxel_has_the_map_of_its_zone_and_keeps_its_side_of_one_half(shift: int) -> None:
    probability = blobs()
    maps = dict(zip(ZONES, (MAPS[shift:] + MAPS[:shift])[:2], strict=True))
    scaled = ByZone(**maps)(probability, spacing_mm=SPACING)
    assert torch.equal(scaled >= 0.5, probability >= 0.5)
    for name, zone in zone_masks(probability, SPACING).items():
        mapped = maps[name](probability[zone])
        wanted = torch.where(probability[zone] >= 0.5, mapped.clamp(min=0.5), mapped.clamp(max=0.5))
        assert torch.allclose(scaled[zone], wanted, atol=1e-7)
    assert (scaled.shape, scaled.dtype) == (probability.shape, probability.dtype)


def test_distances_must_be_given() -> None:
    with pytest.raises(DataError, match="pass spacing_mm"):
        ByZone(*MAPS[:2])(blobs())


@pytest.mark.parametrize("maps", [MAPS[:2], MAPS[1:3], MAPS[2:]])
def test_the_nll_of_histograms_is_that_of_the_scaled_volume(maps: tuple[Monotone, ...]) -> None:
    probability = blobs()
    label = torch.rand(probability.shape, generator=torch.Generator().manual_seed(1)) < probability
    scaling = ByZone(*maps)
    found = ZoneHistograms.of(probability, label, zone_masks(probability, SPACING))
    exact = nll(bin_volume(scaling(probability, spacing_mm=SPACING), label))
    assert scaling.nll(found) == pytest.approx(exact, abs=1e-3 if Isotonic in map(type, maps) else 1e-5)
    assert (found.cases, found.voxels) == (1, probability.numel())
    assert math.isnan(scaling.nll(ZoneHistograms.empty()))


def line(temperature: float, foreground_far: bool, seed: int, voxels: int = 4000) -> tuple[Tensor, Tensor]:
    """Voxels on a line: labels drawn with sigmoid(z / temperature); far from the mask perhaps none is foreground."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.cat([2 * torch.randn(voxels, generator=draw), -3 + torch.randn(voxels, generator=draw)])
    label = torch.rand(2 * voxels, generator=draw) < torch.sigmoid(logits / temperature)
    logits[voxels:] = logits[voxels:].clamp(max=-0.01)
    probability, label = torch.sigmoid(logits).view(-1, 1, 1), label.view(-1, 1, 1)
    return probability, label if foreground_far else label & ~zone_masks(probability, (1, 1, 1))["far"]


@pytest.mark.parametrize("method", METHODS)
def test_a_zone_without_foreground_learns_from_the_other_tasks(method: str) -> None:
    found = {
        "A": sum((histograms(*line(3.0, False, seed)) for seed in range(3)), ZoneHistograms.empty()),
        "B": histograms(*line(2.0, True, 10)),
        "C": histograms(*line(2.0, True, 11)),
    }
    scalings = TaskScalings.fit(found, method, per_task=True)
    assert not scalings.tasks["A"].refused
    probability, _ = line(3.0, False, 20)
    zones = zone_masks(probability, (1, 1, 1))
    after = {task: scalings.choose(task)(probability, spacing_mm=(1, 1, 1)) for task in "AB"}
    far = {task: float(scaled[zones["far"]].mean()) for task, scaled in after.items()}
    assert 0 < far["A"] < 0.5 * far["B"]
    alone = TaskScalings.fit({"A": found["A"]}, method, per_task=True)  # and without others keeps what the network says
    assert alone.tasks["A"].refused == "far: the region holds no foreground"
    assert torch.equal(alone.choose("A")(probability, spacing_mm=(1, 1, 1))[zones["far"]], probability[zones["far"]])


def test_other_tasks_count_as_one_case_of_mean_size_with_equal_shares() -> None:
    own = histograms(*line(2.0, True, 0)) + histograms(*line(2.0, True, 1, voxels=2000))
    others = [histograms(*line(2.0, True, 2, voxels=500)), histograms(*line(2.0, True, 3))]
    found = own.with_one_of(others)
    for name in ZONES:
        mine, theirs = own.zones[name], [other.zones[name] for other in others]
        assert float(found.zones[name].count.sum()) == pytest.approx(1.5 * mine.voxels)
        share = sum((other.count / other.voxels for other in theirs), torch.zeros(2, 1).double()) / 2
        assert torch.allclose(found.zones[name].count, mine.count.double() + share * mine.voxels / 2)
    assert own.with_one_of([]).zones == own.zones


def test_a_state_holds_the_maps_of_the_zones(tmp_path: Path) -> None:
    scalings = TaskScalings.fit({"A": histograms(*line(2.0, True, 0))}, "isotonic", per_task=True)
    torch.save(scalings.state_dict(), tmp_path / "state")
    loaded = TaskScalings.from_state_dict(torch.load(tmp_path / "state", weights_only=True))
    probability = blobs()
    before, after = (each.choose("A")(probability, spacing_mm=SPACING) for each in (scalings, loaded))
    assert torch.equal(before, after)


def test_a_weighted_histogram_gives_the_same_fit() -> None:
    probability, label = line(2.0, True, 0)
    plain = logit_histogram(probability, label)
    twice = plain.weighted(0.25) + plain.weighted(1.75)
    for kind in (Temperature, Platt):
        one, two = (kind.fit(histogram).parameters() for histogram in (plain, twice))
        assert one == pytest.approx(two, rel=1e-5)
    assert LogitHistogram.empty().weighted(3).voxels == 0
