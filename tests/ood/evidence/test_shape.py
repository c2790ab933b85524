"""Descriptors of a mask: of bodies whose descriptors are known, and that they follow the voxel size."""

import math

import numpy as np
import pytest
import torch

from medmtl.ood.evidence.shape import DESCRIPTORS, describe_mask


def box(shape: tuple[int, ...], *corners: tuple[slice, slice, slice]) -> torch.Tensor:
    mask = torch.zeros(shape)
    for corner in corners:
        mask[corner] = 0.9
    return mask


def ball(radius: int) -> torch.Tensor:
    grid = torch.stack(torch.meshgrid(*[torch.arange(-radius - 3, radius + 4)] * 3, indexing="ij")).float()
    return (grid.square().sum(0).sqrt() <= radius).float()


def test_every_descriptor_of_a_box_of_known_size() -> None:
    mask = box((20, 30, 40), (slice(4, 8), slice(10, 16), slice(20, 32)))  # 4 x 6 x 12 voxels
    image = torch.where(mask > 0, 3.0, 1.0)
    found = describe_mask(mask, image, (2.0, 1.0, 0.5))  # 8 x 6 x 6 mm
    assert set(found) == set(DESCRIPTORS)
    assert found["volume_ml"] == pytest.approx(0.288)
    assert found["image_share"] == pytest.approx(288 / 24000)
    assert (found["parts"], found["largest_share"], found["border_share"]) == (1, 1, 0)
    assert found["surface_per_mm"] == pytest.approx(2 * (8 * 6 + 8 * 6 + 6 * 6) / 288)
    assert found["sphericity"] == pytest.approx(math.pi ** (1 / 3) * (6 * 288) ** (2 / 3) / 264)
    assert found["elongation"] == pytest.approx(8 / 6)  # the deviation of a uniform side a is a / sqrt(12)
    assert found["flatness"] == pytest.approx(1)
    assert [found[f"position_{axis}"] for axis in "xyz"] == pytest.approx([6 / 20, 13 / 30, 26 / 40])
    assert (found["brightness"], found["texture"], found["contrast"]) == (3, 0, 2)
    assert found["softness"] == 1


def test_a_ball_is_rounder_than_any_box_and_equally_long_in_all_directions() -> None:
    found = describe_mask(ball(12), ball(12), (1, 1, 1))
    assert found["elongation"] == pytest.approx(1, abs=1e-6)
    assert found["volume_ml"] == pytest.approx(4 / 3 * math.pi * 1.2**3, rel=0.02)  # voxels of 1/12 of its radius
    # Faces of voxels have 3/2 times the surface of the ball they approximate.
    assert found["sphericity"] == pytest.approx(2 / 3, rel=0.02)


def test_parts_and_border() -> None:
    far = (slice(12, 14), slice(12, 14), slice(12, 14))
    mask = box((16, 16, 16), (slice(0, 4), slice(0, 4), slice(0, 4)), far)
    found = describe_mask(mask, mask, (1, 1, 1))
    assert found["parts"] == 2
    assert found["largest_share"] == pytest.approx(64 / 72)
    assert found["border_share"] == pytest.approx(3 * 16 / 72)  # voxels at an edge count for each of its sides
    corner = box((8, 8, 8), (slice(2, 4),) * 3, (slice(4, 6),) * 3)
    assert describe_mask(corner, corner, (1, 1, 1))["parts"] == 1


def test_softness_is_the_ratio_of_the_volumes_at_two_thresholds() -> None:
    probability = torch.zeros(10, 10, 10)
    probability[:, :, 5:] = 0.9
    probability[:, :, 4] = 0.3
    assert describe_mask(probability, probability, (1, 1, 1))["softness"] == pytest.approx(6 / 5)


def test_an_empty_mask_has_no_shape_and_a_voxel_has() -> None:
    nothing = torch.zeros(6, 6, 6)
    assert describe_mask(nothing, nothing, (1, 1, 1)) == {}
    one = nothing.clone()
    one[3, 3, 3] = 1
    found = describe_mask(one, torch.ones(6, 6, 6), (1, 1, 2))
    assert all(math.isfinite(value) for value in found.values())
    assert found["elongation"] == pytest.approx(2)


def test_the_whole_image_as_mask() -> None:
    full = torch.ones(4, 5, 6)
    found = describe_mask(full, full, (1, 1, 1))
    assert found["image_share"] == 1
    assert found["contrast"] == 0  # nothing is around it


@pytest.mark.parametrize("descriptor", DESCRIPTORS.values(), ids=DESCRIPTORS.keys())
def test_a_value_is_the_same_after_scaling_and_back(descriptor) -> None:
    for value in (0.02, 0.7, 13.0):
        assert descriptor.unscaled(descriptor.scaled(value)) == pytest.approx(value)
    assert descriptor.meaning
    assert descriptor.low != descriptor.high
    assert np.isfinite(descriptor.scaled(0.0))
