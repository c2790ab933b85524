"""Shifts: the contract of all, each by its definition, and what determines the digest of one."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from scipy.ndimage import gaussian_filter

from medmtl.data.preprocessing import Preprocessing
from medmtl.data.working_space import prepare
from medmtl.errors import ConfigError
from medmtl.ood.shifts import SHIFTS, Shift, check_shift
from medmtl.ood.shifts.contract import GRIDS
from medmtl.ood.shifts.contract import synthetic_image as scan

ALL = list(SHIFTS)


def span_of(image: MetaTensor) -> float:
    return float(np.subtract(*np.percentile(image.numpy(), [99.5, 0.5])))


def rms(one: MetaTensor, other: MetaTensor) -> float:
    return float((one.as_tensor() - other.as_tensor()).double().square().mean().sqrt())


def applied(shift: Shift, image: MetaTensor, seed: int = 3) -> list[MetaTensor]:
    return [shift.apply(image, severity, seed) for severity in shift.severities]


@pytest.mark.parametrize("name", ALL)
def test_every_built_in_shift_fulfils_the_contract(name: str) -> None:
    check_shift(SHIFTS[name])


class Halved(Shift):
    """Every second slice is dark."""

    name = "halved"

    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        changed = volume.clone()
        changed[..., ::2] = 0
        return changed


class Fainter(Halved):
    """Intensities divided by the strength."""

    name = "fainter"
    strengths = (1.5, 2, 3, 4, 5)
    unit = "times"

    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        return MetaTensor(volume.as_tensor() / strength, affine=volume.affine)


class InPlace(Halved):
    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        return volume.mul_(2)


class Erratic(Halved):
    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        return MetaTensor(volume.as_tensor() + float(np.random.default_rng().random()), affine=volume.affine)


class Smaller(Halved):
    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        return volume[:, 2:].clone()


class Weaker(Fainter):
    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        return MetaTensor(volume.as_tensor() * (1 - 1 / strength), affine=volume.affine)


class Unmoved(Halved):
    moves = True

    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        return MetaTensor(volume.as_tensor().flip(1) if volume.is_floating_point() else volume, affine=volume.affine)


class Unitless(Fainter):
    unit = ""


@pytest.mark.parametrize("kind", [Halved, Fainter])
def test_a_shift_of_ones_own_fulfils_the_contract(kind: type[Shift]) -> None:
    check_shift(kind())


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (InPlace, "leaves its input as it is"),
        (Erratic, "gives the same for the same seed"),
        (Smaller, "keeps shape and affine unless it moves the organ"),
        (Weaker, "changes an image more at a higher severity"),
        (Unmoved, "moves the label with its image"),
        (Unitless, "names the unit of its strengths"),
    ],
)
def test_a_broken_promise_is_named(kind: type[Shift], promise: str) -> None:
    with pytest.raises(AssertionError, match=f"{kind.__name__} breaks its contract: a shift {promise}"):
        check_shift(kind())


def test_the_digest_follows_class_attributes_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Constructed(Halved):
        def __init__(self, every: int) -> None:
            self.every = every

    assert Constructed(2).digest() == Constructed(2).digest() != Constructed(3).digest()
    source = (
        "from medmtl.ood.shifts import Shift\nclass Mine(Shift):\n    name = 'mine'\n"
        "    def change(self, v, s, r): return {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for body in ("v * 2", "v * 3", "v * 2"):
        (tmp_path / "mine_of_a_test.py").write_text(source.format(body))
        found.append(importlib.import_module("mine_of_a_test").Mine().digest())
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("name", [name for name in ALL if name != "empty"])
def test_a_shift_is_the_same_on_every_scale_of_intensity(name: str) -> None:
    scale, offset = 2000.0, -1000.0
    shift, severity = SHIFTS[name], SHIFTS[name].severities[-1]
    one, other = (shift.apply(scan("isotropic", *at), severity, 3) for at in ((), (scale, offset)))
    torch.testing.assert_close((other.as_tensor() - offset) / scale, one.as_tensor(), atol=5e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"inverted", "empty", "flip", "declared_orientation", "blur"}))
def test_the_seed_decides_direction_or_place(name: str) -> None:
    image, shift = scan("odd"), SHIFTS[name]
    found = [shift.apply(image, shift.severities[-1], seed) for seed in range(4)]
    first = found[0]
    assert any(
        other.shape != first.shape or not torch.equal(other, first) or not torch.equal(other.affine, first.affine)
        for other in found[1:]
    )


def test_intensity_shifts_by_their_definition() -> None:
    image = scan("isotropic")
    low, span = float(np.percentile(image.numpy(), 0.5)), span_of(image)
    unit = (image.as_tensor() - low) / span
    for severity, strength in enumerate(SHIFTS["noise"].strengths, 1):
        assert rms(SHIFTS["noise"].apply(image, severity, 0), image) == pytest.approx(strength * span, rel=0.02)
    for severity, strength in enumerate(SHIFTS["spikes"].strengths, 1):
        # Two plane waves of this amplitude: the sum of two mean squares of a half.
        assert rms(SHIFTS["spikes"].apply(image, severity, 0), image) == pytest.approx(strength * span, rel=0.1)
    biased = (SHIFTS["bias_field"].apply(image, 3, 0).as_tensor() - low) / span
    logarithm = torch.log(biased[unit > 0.1] / unit[unit > 0.1])
    assert 0.3 < float(logarithm.abs().max()) <= SHIFTS["bias_field"].strengths[2] + 1e-4
    inverted = SHIFTS["inverted"].apply(image, 0, 0)
    torch.testing.assert_close(inverted.as_tensor(), 2 * low + span - image.as_tensor(), atol=1e-5, rtol=0)
    curved = SHIFTS["contrast"].apply(image, 5, 0)
    order = image.flatten().argsort()
    assert torch.all(curved.flatten()[order].as_tensor().diff() >= -1e-6)
    assert torch.equal(SHIFTS["empty"].apply(image, 0, 0).as_tensor(), torch.zeros(image.shape))
    assert SHIFTS["constant"].apply(image, 0, 0).unique().numel() == 1


def test_blur_is_equal_in_mm_along_all_axes() -> None:
    image = scan("thick slices")
    blurred = SHIFTS["blur"].apply(image, 2, 0)
    mm = (1.5 * 1.5 * 8) ** (1 / 3)
    expected = gaussian_filter(image[0].numpy().astype(np.float64), [mm / 1.5, mm / 1.5, mm / 8])
    np.testing.assert_allclose(blurred[0].numpy(), expected, atol=1e-4)


def test_ghosts_spikes_and_waves_stay_real_where_an_image_is_constant_or_almost_empty() -> None:
    for voxels in (torch.zeros(1, 12, 10, 8), torch.full((1, 12, 10, 8), 40.0), torch.zeros(1, 12, 10, 8)):
        voxels[0, 0, 0, 0] += 3
        for shift in SHIFTS.values():
            for shifted in applied(shift, MetaTensor(voxels)):
                assert torch.isfinite(shifted.as_tensor()).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_a_declared_orientation_changes_nothing_in_space(grid: str) -> None:
    image = scan(grid)
    stored = SHIFTS["declared_orientation"].apply(image, 0, 0)
    assert not torch.allclose(stored.affine, image.affine)
    back, expected = (Orientation("RAS", labels=None)(volume) for volume in (stored, image))
    assert torch.equal(back.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(back.affine, expected.affine)
    preprocessing = Preprocessing(spacing=(1.5, 1.5, 1.5), window=None)
    torch.testing.assert_close(prepare(stored, preprocessing).as_tensor(), prepare(image, preprocessing).as_tensor())


@pytest.mark.parametrize("grid", GRIDS)
def test_a_flip_mirrors_left_and_right(grid: str) -> None:
    image = scan(grid)
    flipped = SHIFTS["flip"].apply(image, 0, 0)
    assert torch.equal(flipped.affine, image.affine)
    upright, mirrored = (Orientation("RAS", labels=None)(volume).as_tensor() for volume in (image, flipped))
    assert torch.equal(mirrored, upright.flip(1))


def test_a_severity_that_a_shift_does_not_have_is_an_error() -> None:
    for name, severity in (("noise", 0), ("noise", 6), ("flip", 1)):
        with pytest.raises(ConfigError, match=f"{name} has no severity {severity}: choose among"):
            SHIFTS[name].apply(scan("isotropic"), severity, 0)


@pytest.mark.parametrize("name", ["motion", "ghosting"])
def test_without_torchio_one_line_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(ConfigError, match=r"torchio, which is not installed: .* -m pip install 'torchio>="):
        SHIFTS[name].apply(scan("isotropic"), 1, 0)
    assert SHIFTS["noise"].apply(scan("isotropic"), 1, 0).shape == (1, 35, 50, 40)
