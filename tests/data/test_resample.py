"""Resampling in slabs gives what MONAI gives in one piece."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing, SpatialResample

from medmtl.data import resample
from medmtl.data.resample import to_grid, to_spacing


def volume(*shape: int, affine: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.rand(2, *shape, generator=torch.Generator().manual_seed(sum(shape))), affine=affine)


def turned(order: tuple[int, ...], signs: tuple[int, ...], oblique: bool) -> np.ndarray:
    axes = np.diag([0.8, 1.3, 2.1])[:, list(order)] * np.array(signs)
    angle = np.deg2rad(20 if oblique else 0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ axes, [-20, 7, 300]
    return affine


@pytest.fixture(autouse=True)
def _small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "SLAB", 400)


@pytest.mark.parametrize("spacing", [(0.5, 1.0, 1.0), (3.0, 3.0, 3.0), (0.8, 1.3, 2.1), (0.8005, 1.3, 3.0)])
@pytest.mark.parametrize("oblique", [False, True])
def test_a_spacing_is_that_of_monai(spacing: tuple[float, ...], oblique: bool) -> None:
    image = volume(23, 17, 12, affine=turned((0, 1, 2), (1, 1, 1), oblique))
    expected = Spacing(spacing, mode="bilinear", padding_mode="border")(image)
    found = to_spacing(image, spacing)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.affine, expected.affine)
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("oblique", [False, True])
def test_every_orientation_of_a_grid_is_reached(oblique: bool) -> None:
    image = volume(13, 17, 12, affine=turned((0, 1, 2), (1, 1, 1), False))
    whole = SpatialResample(mode="bilinear", padding_mode="border")
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        like = volume(9, 20, 15, affine=turned(order, signs, oblique))
        expected = whole(image, dst_affine=like.affine, spatial_size=like.shape[1:])
        found = to_grid(image, like.affine, like.shape[1:])
        torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.affine, like.affine)


def test_a_small_volume_is_resampled_in_one_piece_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "SLAB", 100_000)
    image = volume(23, 17, 12, affine=turned((0, 1, 2), (1, 1, 1), True))
    expected = Spacing((2, 2, 2), mode="bilinear", padding_mode="border")(image)
    assert torch.equal(to_spacing(image, (2, 2, 2)).as_tensor(), expected.as_tensor())
