"""Regions: around the organ by distances that are worked out voxel by voxel, and the body by known images."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from medmtl.calibration.metrics.regions import REGIONS, band, body, box, likely, shell, whole
from medmtl.errors import DataError

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


# Spacing and margin, mm: below and above the voxels' sides, none, and beyond the volume.
DISTANCES = [((1, 2, 3), 5.0), ((0.7, 0.7, 5.0), 2.0), ((6.0, 7.0, 8.0), 5.0), ((3, 2, 1), 0.0), ((1, 2, 3), 100.0)]


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
def test_band_holds_the_voxels_within_the_margin(organ: Tensor) -> None:
    for spacing_mm, margin_mm in DISTANCES:
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
    assert list(REGIONS) == ["whole", "body", "box", "band", "shell", "likely"]
    assert torch.equal(REGIONS["band"](organ, (1, 2, 3)), band(organ, (1, 2, 3)))
    assert REGIONS["whole"](organ, (1, 2, 3)).all()


@pytest.mark.parametrize(
    "organ",
    [
        organ_of((0, 0, 0)),
        torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.01,
        torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.97,
        torch.arange(12).view(12, 1, 1).expand(SHAPE) < 6,
        torch.ones(SHAPE, dtype=torch.bool),
        organ_of(),
    ],
    ids=["corner", "scattered", "holes", "half", "everywhere", "nowhere"],
)
def test_shell_holds_the_voxels_with_one_of_the_other_side_within_the_radius(organ: Tensor) -> None:
    for spacing_mm, radius_mm in DISTANCES:
        outside_near = near(organ, spacing_mm, radius_mm) if organ.any() else torch.zeros_like(organ)
        inside_near = near(~organ, spacing_mm, radius_mm) if (~organ).any() else torch.zeros_like(organ)
        expected = outside_near.where(~organ, inside_near)
        assert torch.equal(shell(organ, spacing_mm, radius_mm), expected)


@pytest.mark.parametrize(("spacing_mm", "margin_mm"), DISTANCES)
def test_box_reaches_the_margin_beyond_the_organ(spacing_mm: tuple[float, float, float], margin_mm: float) -> None:
    organ = organ_of((5, 4, 3), (7, 3, 3))
    place = torch.ones(SHAPE).nonzero() * torch.tensor(spacing_mm, dtype=torch.float64)
    first = torch.tensor([5, 3, 3]) * torch.tensor(spacing_mm, dtype=torch.float64) - margin_mm - 1e-9
    last = torch.tensor([7, 4, 3]) * torch.tensor(spacing_mm, dtype=torch.float64) + margin_mm + 1e-9
    expected = ((place >= first) & (place <= last)).all(1).view(SHAPE)
    assert torch.equal(box(organ, spacing_mm, margin_mm), expected)


def test_box_is_not_thinned_by_a_spacing_rounded_in_the_header() -> None:
    organ = organ_of((6, 4, 3))
    assert torch.equal(box(organ, (1.0000001,) * 3, 2.0), box(organ, (1.0,) * 3, 2.0))
    assert not box(organ_of(), (1.0,) * 3).any()


def ball(shape: tuple[int, ...], radius: float) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(side) - (side - 1) / 2 for side in shape), indexing="ij")
    return sum(axis.square() for axis in axes) <= radius**2


@pytest.mark.parametrize("shape", [(40, 40, 40), (40, 40)])
def test_body_is_the_bright_object_with_what_it_encloses_and_without_what_lies_apart(shape: tuple[int, ...]) -> None:
    torso = ball(shape, 15)
    generator = torch.Generator().manual_seed(0)
    image = -1000 + 20 * torch.randn(shape, generator=generator)
    image[torso] = 40 + 20 * torch.randn(shape, generator=generator)[torso]
    image[ball(shape, 4)] = -800  # lung
    image[ball(shape, 7) & ~ball(shape, 6)] = 1000  # bone
    table = torch.zeros(shape, dtype=torch.bool)
    table[2] = True
    image[table] = 100
    assert torch.equal(body(image), torso)
    assert torch.equal(body(MetaTensor(image)), torso)
    assert type(body(MetaTensor(image))) is Tensor


def test_body_keeps_dark_tissue_beside_bright_fat() -> None:
    torso, muscle = ball((40, 40, 40), 15), ball((40, 40, 40), 11)
    noise = 10 * torch.randn(40, 40, 40, generator=torch.Generator().manual_seed(0)).abs()
    image = noise + 1000.0 * torso - 750.0 * muscle
    assert torch.equal(body(image), torso)


def test_a_tube_that_is_open_at_its_ends_is_filled() -> None:
    image = torch.zeros(30, 30, 30)
    wall = ball((30, 30), 12) & ~ball((30, 30), 6)
    image[wall] = 100
    assert torch.equal(body(image), ball((30, 30), 12)[..., None].expand(30, 30, 30))


def test_an_image_of_one_value_is_all_body() -> None:
    assert body(torch.full((5, 5, 5), 7.0)).all()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["SarcomaCT", "SarcomaMR"])
def test_bodies_of_real_images_hold_the_tumour_and_leave_the_air_out(real_data: Path, name: str) -> None:
    for path in sorted((real_data / name / "labelsTr").glob("*.nii.gz"))[:5]:
        image = torch.from_numpy(nib.load(real_data / name / "imagesTr" / path.name).get_fdata(dtype=np.float32))
        tumour = torch.from_numpy(np.asarray(nib.load(path).dataobj) > 0)
        found = body(image)
        assert (found & tumour).sum() >= 0.99 * tumour.sum()
        assert 0.3 < found.float().mean() < 0.95


def test_likely_is_the_organ_and_what_the_model_gives_some_probability() -> None:
    organ = torch.tensor([True, False, False, True])
    probability = torch.tensor([0.0, 0.05, 0.049, 1.0])
    assert likely(organ, probability).tolist() == [True, True, False, True]


def test_regions_take_what_they_need_of_a_case() -> None:
    organ = organ_of((6, 4, 3))
    image, probability = torch.rand(SHAPE), torch.rand(SHAPE)
    found = {name: region(organ, (1, 2, 3), image, probability) for name, region in REGIONS.items()}
    assert all(region.dtype == torch.bool and region.shape == SHAPE for region in found.values())
    assert torch.equal(found["body"], body(image))
    assert torch.equal(found["box"], box(organ, (1, 2, 3)))
    assert torch.equal(found["shell"], shell(organ, (1, 2, 3)))
    assert torch.equal(found["likely"], likely(organ, probability))


def test_follows_prediction_marks_the_regions_that_change_with_it() -> None:
    organ = organ_of((6, 4, 3))
    generator = torch.Generator().manual_seed(0)
    image, *predicted = torch.rand(3, *SHAPE, generator=generator)
    for region in REGIONS.values():
        one, other = (region(organ, (1, 2, 3), image, probability) for probability in predicted)
        assert torch.equal(one, other) != region.follows_prediction


def test_what_a_region_needs_must_be_given() -> None:
    with pytest.raises(DataError, match="derives from the image"):
        REGIONS["body"](organ_of(), (1, 2, 3))
    with pytest.raises(DataError, match="derives from the probability"):
        REGIONS["likely"](organ_of(), (1, 2, 3), torch.rand(SHAPE))
