"""Regions: the whole volume, and the band around the organ by distances that are worked out voxel by voxel."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from medmtl.calibration.regions import REGIONS, band, whole

SHAPE = (12, 9, 7)


def near(organ: Tensor, spacing_mm: Sequence[float], margin_mm: float) -> Tensor:
    """Voxels with any voxel of the organ within the margin, by all pairs."""
    scale = torch.tensor(spacing_mm, dtype=torch.float64)
    everywhere = torch.ones_like(organ).nonzero() * scale
    squared = (everywhere[:, None] - (organ.nonzero() * scale)[None]).square().sum(-1)
    return (squared.amin(1) <= margin_mm**2 + 1e-9).view(organ.shape)


def organ_of(*voxels: tuple[int, int, int]) -> Tensor:
    """An organ of single voxels."""
    organ = torch.zeros(SHAPE, dtype=torch.bool)
    for voxel in voxels:
        organ[voxel] = True
    return organ


@pytest.mark.parametrize("spacing_mm", [(1, 2, 3), (3, 2, 1), (0.7, 0.7, 5.0), (6.0, 7.0, 8.0)])
@pytest.mark.parametrize("margin_mm", [0.0, 2.0, 5.0, 100.0])
@pytest.mark.parametrize(
    "organ",
    [
        organ_of((6, 4, 3)),
        organ_of((0, 0, 0)),
        organ_of((11, 8, 6), (0, 4, 0)),
        torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.01,
        torch.ones(SHAPE, dtype=torch.bool),
    ],
    ids=["inside", "corner", "border", "scattered", "everywhere"],
)
def test_band_holds_the_voxels_within_the_margin(
    organ: Tensor, spacing_mm: tuple[float, float, float], margin_mm: float
) -> None:
    region = band(organ, spacing_mm, margin_mm)
    assert region.dtype == torch.bool
    assert torch.equal(region, near(organ, spacing_mm, margin_mm))


def test_band_holds_the_organ_and_a_voxel_that_is_exactly_the_margin_away() -> None:
    region = band(organ_of((6, 4, 3)), (1.0, 2.0, 3.0), margin_mm=5.0)
    assert all(region[voxel] for voxel in [(6, 4, 3), (1, 4, 3), (11, 4, 3), (2, 4, 4)])
    assert not any(region[voxel] for voxel in [(0, 4, 3), (6, 1, 3), (1, 4, 4)])


def test_band_is_not_thinned_by_a_spacing_rounded_in_the_header() -> None:
    organ = organ_of((6, 4, 3))
    expected = band(organ, (1.0, 1.0, 1.0), margin_mm=5.0)
    assert torch.equal(band(organ, (1.0000001, 1.0000001, 0.9999999), margin_mm=5.0), expected)


def test_band_of_5_mm_is_the_default() -> None:
    organ = organ_of((6, 4, 3))
    assert torch.equal(band(organ, (1, 2, 3)), near(organ, (1, 2, 3), 5.0))


def test_band_takes_labels_of_numbers() -> None:
    organ = organ_of((6, 4, 3), (0, 0, 0))
    assert torch.equal(band(organ.to(torch.uint8), (1, 2, 3)), band(organ, (1, 2, 3)))


def test_band_leaves_the_label_alone() -> None:
    organ = organ_of((6, 4, 3))
    before = organ.clone()
    band(organ, (1, 2, 3))
    assert torch.equal(organ, before)


def test_without_an_organ_the_band_is_empty() -> None:
    region = band(organ_of(), (1, 2, 3))
    assert torch.equal(region, torch.zeros(SHAPE, dtype=torch.bool))


def test_whole_is_every_voxel_with_or_without_an_organ() -> None:
    for organ in (organ_of(), organ_of((6, 4, 3))):
        assert torch.equal(whole(organ, (1, 2, 3)), torch.ones(SHAPE, dtype=torch.bool))


def test_regions_are_found_by_name() -> None:
    organ = organ_of((6, 4, 3))
    assert list(REGIONS) == ["whole", "band"]
    assert torch.equal(REGIONS["band"](organ, (1, 2, 3)), band(organ, (1, 2, 3)))
    assert REGIONS["whole"](organ, (1, 2, 3)).all()
