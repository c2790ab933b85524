"""Neighbourhoods and nearest voxels against loops over voxels; and what a sample of a region holds."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from medmtl.calibration.pieces import PIECE
from medmtl.calibration.scaling.working_volume import SAMPLED, WorkingVolume, sample_voxels, stretches


def volume(shape: tuple[int, int, int], from_native: Tensor | None = None) -> WorkingVolume:
    draw = torch.Generator().manual_seed(0)
    image, probability = torch.randn(shape, generator=draw), torch.rand(shape, generator=draw)
    return WorkingVolume(image, probability, torch.eye(4, dtype=torch.float64) if from_native is None else from_native)


def test_a_neighbourhood_holds_what_lies_two_voxels_off_along_each_axis() -> None:
    working = volume((4, 6, 5))
    found = working.neighbourhoods(torch.arange(4 * 6 * 5)).view(4, 6, 5, 2, 3, 3, 3)
    for place in itertools.product(range(4), range(6), range(5)):
        for step in itertools.product(range(3), repeat=3):
            at = tuple(min(max(i + 2 * (s - 1), 0), n - 1) for i, s, n in zip(place, step, (4, 6, 5), strict=True))
            p = float(working.probability[at])
            logit, intensity = found[(*place, slice(None), *step)].tolist()
            assert logit == pytest.approx(math.log(p / (1 - p)) / 5, rel=1e-4, abs=1e-6)
            assert intensity == float(working.image[at])


def test_certainty_does_not_grow_without_end() -> None:
    working = WorkingVolume(torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.5, 1.0]]]), torch.eye(4, dtype=torch.float64))
    assert working.neighbourhoods(torch.arange(3))[:, 13].tolist() == [-2, 0, 2]


def test_voxels_of_another_grid_find_the_nearest_one_even_outside() -> None:
    # The native grid is turned around along its first axis, has its last two swapped, and reaches beyond.
    from_native = torch.tensor([[-0.4, 0, 0, 3.3], [0, 0, 0.7, -1.1], [0, 1.3, 0, 0.2], [0, 0, 0, 1]]).double()
    working, shape = volume((4, 5, 6), from_native), torch.Size((11, 5, 9))
    centres = torch.cartesian_prod(*[torch.arange(size).double() for size in (4, 5, 6)])
    for index, voxel in enumerate(itertools.product(*map(range, shape))):
        place = (from_native @ torch.tensor([*voxel, 1.0]).double())[:3]
        inside = place.clamp(min=0).minimum(torch.tensor([3.0, 4.0, 5.0]).double())
        expected = int((centres - inside).norm(dim=1).argmin())
        assert working.nearest(torch.tensor([index]), shape).item() == expected


def test_a_sample_is_one_voxel_of_each_stretch_of_the_region() -> None:
    shape = (50, 60, 40)
    working = volume(shape)
    region = torch.zeros(shape, dtype=torch.bool)
    region[3:47, 10:55, 5:30] = True
    number = torch.arange(region.numel()).view(shape)  # tells which voxels were taken
    label = number / region.numel()
    found = sample_voxels(working.probability, label, region, working, "someone")
    taken = (found.label * region.numel()).round().long()
    assert (found.patient, found.voxels, len(taken)) == ("someone", int(region.sum()), SAMPLED)
    assert region.flatten()[taken].all()
    rank, stretch = torch.searchsorted(number[region], taken), found.voxels / SAMPLED
    assert (rank.diff() > 0).all()
    assert ((rank + 0.5 - (torch.arange(SAMPLED) + 0.5) * stretch).abs() <= stretch / 2 + 0.5).all()
    assert torch.allclose(found.logits, torch.logit(working.probability.double().flatten()[taken]), atol=1e-6)
    assert torch.equal(found.inputs, working.neighbourhoods(taken))
    again = sample_voxels(working.probability, label, region, working, "someone")
    assert torch.equal(again.inputs, found.inputs)


def test_a_small_region_is_taken_whole_and_an_empty_one_gives_nothing() -> None:
    working = volume((6, 7, 8))
    region = working.image > 0
    found = sample_voxels(working.probability, working.image, region, working, "someone")
    assert torch.equal(found.label, working.image[region].double())
    nothing = sample_voxels(working.probability, working.image, torch.zeros_like(region), working, "someone")
    assert (nothing.voxels, nothing.inputs.shape, nothing.logits.shape) == (0, (0, 54), (0,))


def test_stretches_are_a_volume_s_voxels_once_each_and_in_order() -> None:
    parts = list(stretches(2 * PIECE + 7))
    assert [len(part) for part in parts] == [PIECE, PIECE, 7]
    assert torch.equal(torch.cat(parts), torch.arange(2 * PIECE + 7))
