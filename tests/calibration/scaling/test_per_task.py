"""Scaling from a histogram against exact fits to every voxel in float64; and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from zones_sample import SPACING_MM, histograms, on_a_line

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import nll
from medmtl.calibration.scaling.histogram import logit_histogram, to_logits
from medmtl.calibration.scaling.parametric import Isotonic, Platt, Scaling, Temperature
from medmtl.calibration.scaling.per_task import METHODS, UNCHANGED, Fitted, TaskScalings
from medmtl.calibration.scaling.zones import ZONES, ByZone, ZoneHistograms, zone_masks
from medmtl.errors import DataError

VOXELS = 200_000


def network(temperature: float, offset: float = 0.0, voxels: int = VOXELS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels drawn with probability sigmoid(z), and a network whose logits are temperature * (z - offset)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(voxels, generator=generator, dtype=torch.float64) - 1
    label = torch.rand(voxels, generator=generator) < torch.sigmoid(logits)
    return torch.sigmoid(temperature * (logits - offset)).float(), label


def voxelwise(probability: Tensor, label: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return to_logits(probability).numpy(), label.double().numpy()


def loss(scaled: NDArray[np.float64], label: NDArray[np.float64]) -> float:
    return float(np.mean(np.logaddexp(0, scaled) - label * scaled))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_a_temperature_is_that_of_least_nll_over_all_voxels(temperature: float) -> None:
    probability, label = network(temperature)
    found = Temperature.fit(logit_histogram(probability, label)).temperature
    logits, labels = voxelwise(probability, label)
    exact = minimize_scalar(
        lambda log: loss(logits * math.exp(-log), labels), bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}
    )
    assert found == pytest.approx(math.exp(exact.x), rel=5e-6 / temperature**2 + 1e-6)
    assert found == pytest.approx(temperature, rel=0.02)  # what it is in truth, up to the chance of the labels


def test_slope_and_offset_are_those_of_least_nll_over_all_voxels() -> None:
    probability, label = network(2.5, offset=1.2)
    found = Platt.fit(logit_histogram(probability, label))
    logits, labels = voxelwise(probability, label)
    exact = minimize(lambda x: loss(x[0] * logits + x[1], labels), [1.0, 0.0], method="BFGS", options={"gtol": 1e-8})
    assert (found.slope, found.offset) == pytest.approx(tuple(exact.x), rel=1e-4)
    assert (found.slope, found.offset) == pytest.approx((1 / 2.5, 1.2), rel=0.03)


def test_isotonic_on_bins_is_isotonic_on_voxels_within_a_bin() -> None:
    probability, label = network(3.0, voxels=50_000)
    found = Isotonic.fit(logit_histogram(probability, label))
    logits, labels = voxelwise(probability, label)
    exact = IsotonicRegression(out_of_bounds="clip").fit(logits, labels)
    inner = np.quantile(logits, np.linspace(0.02, 0.98, 200))  # the outermost steps stand on a few voxels each
    difference = np.abs(found.of_logits(torch.from_numpy(inner)).numpy() - exact.predict(inner))
    assert difference.mean() < 2e-3
    assert difference.max() < 0.02
    exact_nll = loss_of(exact.predict(logits).clip(1e-12, 1 - 1e-12), labels)
    assert nll(bin_volume(found(probability), label)) == pytest.approx(exact_nll, abs=2e-4)


def loss_of(probability: NDArray[np.float64], label: NDArray[np.float64]) -> float:
    return float(-np.mean(np.log(np.where(label == 1, probability, 1 - probability))))


@pytest.mark.parametrize("method", METHODS)
def test_the_nll_that_a_fit_states_is_that_of_the_scaled_volume(method: str) -> None:
    probability, label = on_a_line(*network(2.0, offset=0.5))
    fitted = Fitted.on(histograms(probability, label), method)
    assert fitted.nll_before == pytest.approx(nll(bin_volume(probability, label)), abs=1e-5)
    # An isotonic function rises between two bins, where voxels are not at their mean.
    error = 1e-4 if method == "isotonic" else 1e-5
    scaled = fitted.scaling(probability, spacing_mm=SPACING_MM)
    assert fitted.nll_after == pytest.approx(nll(bin_volume(scaled, label)), abs=error)
    assert fitted.nll_after < fitted.nll_before - 0.05
    assert (fitted.cases, fitted.voxels, fitted.refused) == (1, VOXELS, "")


@pytest.mark.parametrize("method", METHODS)
def test_scaling_is_monotone_and_stays_within_0_and_1(method: str) -> None:
    scaling = METHODS[method].fit(logit_histogram(*network(2.0, offset=0.5)))
    rising = torch.cat([torch.tensor([0.0, 1e-30]), torch.linspace(0, 1, 70_001)])
    scaled = scaling(rising)
    assert (scaled.diff() >= 0).all()
    assert 0 <= scaled.min() < scaled.max() <= 1
    assert (scaled.shape, scaled.dtype) == (rising.shape, rising.dtype)


def test_no_temperature_moves_a_voxel_over_one_half() -> None:
    probability, _ = network(2.0)
    near = torch.tensor([-1e-5, -1e-6, 0, 1e-6, 1e-5])  # closer than 1e-6, float32 cannot hold the scaled difference
    probability = torch.cat([probability, torch.tensor([0.0, 1.0]), 0.5 + near])
    for temperature in (0.05, 0.3, 1.0, 2.5, 20.0):
        assert torch.equal(Temperature(temperature)(probability) >= 0.5, probability >= 0.5)


def test_a_temperature_of_1_changes_nothing() -> None:
    probability = torch.tensor([0.0, 1e-30, 0.3, 1.0])
    assert torch.equal(Temperature()(probability), probability)


def test_volumes_of_any_layout_are_scaled_voxel_by_voxel() -> None:
    probability = torch.rand(40, 50, 60, generator=torch.Generator().manual_seed(0)).permute(2, 0, 1)
    expected = 1 / (1 + ((1 - probability.double()) / probability.double()) ** 0.5)
    assert torch.allclose(Temperature(2.0)(probability).double(), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_refused_fit_is_the_identity_with_a_reason(method: str) -> None:
    probability = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    reasons = {
        "no voxel": ZoneHistograms.empty(),
        "no foreground": histograms(*on_a_line(probability, torch.zeros(1000))),
        "no background": histograms(*on_a_line(probability, torch.ones(1000))),
    }
    for reason, found in reasons.items():
        fitted = Fitted.on(found, method)
        assert reason in fitted.refused
        assert "\n" not in fitted.refused
        assert isinstance(fitted.scaling, ByZone)
        assert {getattr(fitted.scaling, zone) for zone in ZONES} == {UNCHANGED}
        assert fitted.nll_after == pytest.approx(fitted.nll_before, nan_ok=True)


@pytest.mark.parametrize("kind", [Temperature, Platt])
def test_a_fit_that_runs_into_its_bounds_is_refused(kind: type[Temperature] | type[Platt]) -> None:
    probability = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match=r"not above 0\.05"):
        kind.fit(logit_histogram(probability, probability > 0.5))
    with pytest.raises(DataError, match="not below 20"):
        kind.fit(logit_histogram(probability, probability < 0.5))


def test_a_refusal_in_one_zone_leaves_the_others_scaled() -> None:
    probability, label = on_a_line(*network(3.0))
    zones = zone_masks(probability, SPACING_MM)
    label[zones["far"]] = False
    fitted = Fitted.on(ZoneHistograms.of(probability, label, zones), "temperature")
    assert fitted.refused == "far: the region holds no foreground"
    assert isinstance(fitted.scaling, ByZone)
    assert fitted.scaling.far == UNCHANGED
    assert fitted.scaling.near == Temperature.fit(logit_histogram(probability, label, zones["near"]))
    assert fitted.scaling.near.temperature == pytest.approx(3, rel=0.05)


def test_isotonic_makes_nothing_more_certain_than_its_voxels_allow() -> None:
    probability = torch.tensor([0.1, 0.2, 0.8, 0.9])
    fitted = Isotonic.fit(logit_histogram(probability, probability > 0.5))
    assert fitted(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([1 / 6, 5 / 6])


def test_each_task_has_its_own_scaling_and_other_tasks_the_single_one() -> None:
    found = {name: histograms(*on_a_line(*network(t, seed=int(t)))) for name, t in {"A": 2.0, "B": 4.0}.items()}
    scalings = TaskScalings.fit(found, "temperature", per_task=True)
    for task in "AB":
        wanted = ByZone(*(Temperature.fit(found[task].zones[name]) for name in ZONES))
        assert scalings.choose(task).state_dict() == wanted.state_dict()
    pooled = found["A"] + found["B"]
    single = ByZone(*(Temperature.fit(pooled.zones[name]) for name in ZONES))
    assert scalings.choose(None).state_dict() == scalings.choose("C").state_dict() == single.state_dict()
    assert 2 < single.parameters()["near"]["temperature"] < 4
    one = TaskScalings.fit(found, "temperature", per_task=False)
    assert one.choose("A").state_dict() == one.choose("B").state_dict() == single.state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_a_state_loads_safely_and_scales_bit_for_bit_alike(method: str, tmp_path: Path) -> None:
    probability, label = on_a_line(*network(2.0))
    found = {"A": histograms(probability, label), "B": ZoneHistograms.empty()}
    scalings = TaskScalings.fit(found, method, per_task=True)
    torch.save(scalings.state_dict(), tmp_path / "state")
    loaded = TaskScalings.from_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for task in ("A", "B", None):
        before, after = (each.choose(task)(probability, spacing_mm=SPACING_MM) for each in (scalings, loaded))
        assert torch.equal(before, after)
    assert "no voxel" in loaded.tasks["B"].refused


@pytest.mark.parametrize("method", METHODS)
def test_a_state_of_an_earlier_version_scales_all_voxels_alike_and_is_warned_of(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    probability, label = on_a_line(*network(2.0))
    scaling = METHODS[method].fit(logit_histogram(probability, label))
    state = {
        "scaling": scaling.state_dict(),
        **{"cases": 3, "voxels": 100, "nll_before": 0.5, "nll_after": 0.4, "refused": ""},
    }
    loaded = TaskScalings.from_state_dict({"single": state, "tasks": {"A": state}})
    for task in ("A", None):
        scaled = loaded.choose(task)(probability, None, SPACING_MM)
        assert torch.equal(scaled, scaling(probability))
    loaded.warn_if_old("old.ckpt")
    TaskScalings.fit({"A": histograms(probability, label)}, method, per_task=True).warn_if_old("new.ckpt")
    (message,) = caplog.messages
    assert "old.ckpt" in message
    assert "medmtl calibrate" in message


def test_every_method_prints_its_parameters() -> None:
    kinds: list[Scaling] = [Temperature(1.416), Platt(0.5, -0.25), Isotonic(torch.zeros(3), torch.zeros(3))]
    assert [str(kind) for kind in kinds] == ["T = 1.42", "a = 0.50, b = -0.25", "isotonic, 3 points"]
