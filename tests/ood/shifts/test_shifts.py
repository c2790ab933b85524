"""Shifts: strength rises with severity, on any scale and grid; the same seed gives the same; labels follow."""

import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from scipy.ndimage import gaussian_filter

from medmtl.data.preprocessing import Preprocessing
from medmtl.data.transforms import prepare
from medmtl.errors import ConfigError
from medmtl.ood.shifts.shift import SHIFTS, Shift

GRIDS = {
    "tiny": ((35, 50, 40), np.diag([1.0, 1.0, 1.0, 1.0])),
    "thick": ((60, 48, 12), np.array([[0, 0, -8.0, 90], [-1.5, 0, 0, 40], [0, 1.5, 0, -20], [0, 0, 0, 1]])),
    "odd": ((41, 33, 37), np.diag([-2.0, 1.5, 3.0, 1.0])),
}
RISING = [name for name, shift in SHIFTS.items() if shift.strengths and not shift.moves]
ALL = list(SHIFTS)


def scan(grid: str, scale: float = 1.0, offset: float = 0.0) -> MetaTensor:
    """Two ellipsoids with fine texture on a dark ground, no symmetry."""
    shape, affine = GRIDS[grid]
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    texture = np.random.default_rng(7).normal(0, 0.08, shape)
    body = (x / 0.7) ** 2 + (y / 0.8) ** 2 + (z / 0.9) ** 2 < 1
    organ = ((x - 0.2) / 0.3) ** 2 + ((y + 0.3) / 0.25) ** 2 + ((z - 0.1) / 0.4) ** 2 < 1
    voxels = body * (0.4 + gaussian_filter(texture, 0.7)) + 0.5 * organ + 0.05 * texture
    return MetaTensor(torch.from_numpy(scale * voxels + offset)[None].float(), affine=torch.from_numpy(affine).double())


def span_of(image: MetaTensor) -> float:
    return float(np.subtract(*np.percentile(image.numpy(), [99.5, 0.5])))


def rms(one: MetaTensor, other: MetaTensor) -> float:
    return float((one.as_tensor() - other.as_tensor()).double().square().mean().sqrt())


def applied(shift: Shift, image: MetaTensor, seed: int = 3) -> list[MetaTensor]:
    return [shift.apply(image, severity, seed) for severity in shift.severities]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_shift_gives_finite_float32_on_its_grid_and_leaves_its_input_alone(name: str, grid: str) -> None:
    image = scan(grid)
    before, affine = image.as_tensor().clone(), image.affine.clone()
    for shifted in applied(SHIFTS[name], image):
        assert isinstance(shifted, MetaTensor)
        assert shifted.dtype == torch.float32
        assert shifted.ndim == 4
        assert torch.isfinite(shifted.as_tensor()).all()
        if not SHIFTS[name].moves:
            assert shifted.shape == image.shape
            assert torch.equal(shifted.affine, affine)
        shifted += 1
    assert torch.equal(image.as_tensor(), before)
    assert torch.equal(image.affine, affine)


@pytest.mark.parametrize("name", RISING)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", range(4))
def test_the_distance_from_the_original_rises_with_severity(name: str, grid: str, seed: int) -> None:
    image = scan(grid)
    distances = [rms(shifted, image) for shifted in applied(SHIFTS[name], image, seed)]
    assert len(distances) == 5
    assert distances[0] > 0
    assert distances == sorted(set(distances))
    assert distances[-1] > 0.01 * span_of(image)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", range(4))
def test_the_displacement_of_geometric_shifts_rises_with_severity(grid: str, seed: int) -> None:
    image = scan(grid)
    ramps = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, size) for size in image.shape[1:]), indexing="ij"))
    furthest = []
    for severity in range(1, 6):
        moved = [SHIFTS["elastic"].apply(MetaTensor(ramp[None]), severity, seed)[0].as_tensor() for ramp in ramps]
        furthest.append(float((torch.stack(moved) - ramps).abs().max()))
    # Where the place of origin lies outside, the border stands in, so that the ramps may show less, but never more.
    assert np.all(np.array(furthest) <= np.array(SHIFTS["elastic"].strengths) + 1e-5)
    assert furthest == sorted(set(furthest))
    kept = [shifted.numel() for shifted in applied(SHIFTS["crop"], image, seed)]
    assert kept == sorted(set(kept), reverse=True)
    corner = torch.tensor([*image.shape[1:], 1.0], dtype=torch.float64)
    gone = [
        float((s.affine @ corner - image.affine @ corner).norm()) for s in applied(SHIFTS["wrong_spacing"], image, seed)
    ]
    assert gone[0] > 0
    assert gone == sorted(set(gone))


@pytest.mark.parametrize("name", [name for name in ALL if name != "empty"])
@pytest.mark.parametrize(("scale", "offset"), [(2000.0, -1000.0), (0.01, 5.0)])
def test_a_shift_is_the_same_on_every_scale_of_intensity(name: str, scale: float, offset: float) -> None:
    plain, scaled = scan("tiny"), scan("tiny", scale, offset)
    for one, other in zip(applied(SHIFTS[name], plain), applied(SHIFTS[name], scaled), strict=True):
        torch.testing.assert_close((other.as_tensor() - offset) / scale, one.as_tensor(), atol=5e-4, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_and_no_global_randomness_is_used(name: str) -> None:
    image, shift = scan("odd"), SHIFTS[name]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = shift.apply(image, shift.severities[-1], 11)
    torch.manual_seed(5)
    again = shift.apply(image, shift.severities[-1], 11)
    assert torch.equal(first.as_tensor(), again.as_tensor())
    assert torch.equal(first.affine, again.affine)
    torch.set_rng_state(torch_state)
    shift.apply(image, shift.severities[-1], 12)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("name", sorted(set(ALL) - {"inverted", "empty", "flip", "declared_orientation", "blur"}))
def test_the_seed_decides_direction_or_place(name: str) -> None:
    image, shift = scan("odd"), SHIFTS[name]
    found = [shift.apply(image, shift.severities[-1], seed) for seed in range(8)]
    first = found[0]
    assert any(
        other.shape != first.shape or not torch.equal(other, first) or not torch.equal(other.affine, first.affine)
        for other in found[1:]
    )


def test_intensity_shifts_by_their_definition() -> None:
    image = scan("tiny")
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
    image = scan("thick")
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


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_label_follows_its_image(name: str, grid: str) -> None:
    image, shift = scan(grid), SHIFTS[name]
    label = MetaTensor((image.as_tensor() > 0.6).to(torch.uint8), affine=image.affine)
    for severity in shift.severities:
        moved = shift.apply_to_label(label, severity, 5)
        if shift.kind == "nonsense":
            assert moved is None
            continue
        assert moved.dtype == torch.uint8
        assert set(moved.unique().tolist()) <= {0, 1}
        if not shift.moves:
            assert torch.equal(moved.as_tensor(), label.as_tensor())
            continue
        shifted = shift.apply(MetaTensor(label.float().as_tensor(), affine=image.affine), severity, 5)
        assert moved.shape == shifted.shape
        torch.testing.assert_close(moved.affine, shifted.affine)
        agree = ((shifted.as_tensor() >= 0.5) == moved.as_tensor().bool()).double().mean()
        assert agree > (0.98 if name == "elastic" else 0.999999)


def test_a_severity_that_a_shift_does_not_have_is_an_error() -> None:
    for name, severity in (("noise", 0), ("noise", 6), ("flip", 1)):
        with pytest.raises(ConfigError, match=f"{name} has no severity {severity}: choose among"):
            SHIFTS[name].apply(scan("tiny"), severity, 0)


@pytest.mark.parametrize("name", ["motion", "ghosting"])
def test_without_torchio_one_line_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(ConfigError, match=r"torchio, which is not installed: pip install 'medmtl\[ood\]'"):
        SHIFTS[name].apply(scan("tiny"), 1, 0)
    assert SHIFTS["noise"].apply(scan("tiny"), 1, 0).shape == (1, 35, 50, 40)
