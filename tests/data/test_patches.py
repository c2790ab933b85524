"""Training patches: where they are centred, what is cut out, and that they depend on their seed alone."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import get_track_meta
from monai.transforms import Compose, RandCropByPosNegLabeld, SpatialPad
from scipy.ndimage import gaussian_filter

from medmtl.data.centres import Centres, find_foreground
from medmtl.data.patches import random_patch, seeded_patch
from medmtl.losses.masked import UNKNOWN

Item = dict[str, Any]


def item(shape: tuple[int, ...] = (20, 18, 16)) -> Item:
    """A smooth image, and an organ away from its middle."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 1.5)
    x, y, z = np.indices(shape)
    organ = ((((x - 7) / 5) ** 2 + ((y - 6) / 4) ** 2 + ((z - 6) / 3) ** 2) < 1).astype(np.uint8)
    return {
        "image": torch.from_numpy((noise / noise.std()).astype(np.float32))[None],
        "label": torch.from_numpy(organ)[None],
    }


def patch_of(draw: Compose, volume: Item, size: tuple[int, int, int], seed: int) -> Item:
    found = find_foreground(volume["image"], volume["label"])
    return seeded_patch(draw, volume, Centres({**volume, **found}, size), seed)


def test_a_patch_depends_on_its_seed_alone() -> None:
    size = (8, 8, 8)
    draw, other = (random_patch(size, 0.7) for _ in range(2))
    first = [patch_of(draw, item(), size, seed) for seed in range(10)]
    for seed in (7, 3, 0):
        patch_of(other, item((30, 9, 12)), size, seed + 100)
        again = patch_of(other, item(), size, seed)
        assert all(torch.equal(again[key], first[seed][key]) for key in ("image", "label"))
    assert len({patch["image"].numpy().tobytes() for patch in first}) == 10


@pytest.mark.parametrize("shape", [(20, 18, 16), (5, 18, 7), (8, 8, 8), (8, 12, 10)])
@pytest.mark.parametrize("foreground", [0.0, 0.5, 1.0])
def test_patches_are_those_that_monai_cuts_out_of_the_padded_volume(
    shape: tuple[int, int, int], foreground: float
) -> None:
    size, volume = (8, 12, 10), item(shape)
    ours = random_patch(size, foreground)
    theirs = RandCropByPosNegLabeld(("image", "label"), "inside", size, foreground, 1 - foreground)
    padded: Item = {
        key: SpatialPad(size, value=fill)(volume[key])
        for key, fill in (("image", float(volume["image"].min())), ("label", 0))
    }
    padded["inside"] = padded["label"].bool()
    for seed in range(30):
        # Only centre and cut: the other transforms are MONAI's own.
        draw = Compose(ours.transforms[:2])
        found = patch_of(draw, volume, size, seed)
        theirs.set_random_state(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (expected,) = theirs(padded)
        for key in ("image", "label"):
            np.testing.assert_array_equal(found[key].numpy(), expected[key].numpy())


@pytest.mark.parametrize("shape", [(20, 18, 16), (5, 18, 7), (8, 8, 8)])
def test_patches_have_the_size_asked_for_even_where_the_image_is_smaller(shape: tuple[int, int, int]) -> None:
    size = (8, 12, 10)
    draw, volume = random_patch(size, 0.7), item(shape)
    for seed in range(20):
        patch = patch_of(draw, volume, size, seed)
        assert patch["image"].shape == patch["label"].shape == (1, *size)
        assert (patch["image"].dtype, patch["label"].dtype) == (torch.float32, torch.uint8)
        assert type(patch["image"]) is type(patch["label"]) is torch.Tensor
        assert set(patch["label"].unique().tolist()) <= {0, 1}


def test_drawing_changes_neither_the_cached_volume_nor_monais_setting() -> None:
    volume, size = item(), (20, 18, 16)
    before = {key: value.clone() for key, value in volume.items()}
    for seed in range(20):
        patch_of(random_patch(size, 0.5), volume, size, seed)
    assert all(torch.equal(volume[key], before[key]) for key in before)
    assert get_track_meta()


@pytest.mark.parametrize("foreground", [0.0, 0.3, 1.0])
def test_patches_are_centred_in_the_organ_as_often_as_asked_and_else_outside_it(foreground: float) -> None:
    label = torch.zeros(1, 20, 20, 20, dtype=torch.uint8)
    label[0, 5:15, 5:15, 5:15] = 1
    marked = {"image": label.float(), "label": label}
    draw, trials = random_patch((1, 1, 1), foreground), 100
    found = sum(int(patch_of(draw, marked, (1, 1, 1), seed)["label"]) for seed in range(trials))
    assert abs(found - trials * foreground) <= 4 * np.sqrt(trials * foreground * (1 - foreground))


def test_every_voxel_can_be_the_centre_and_background_ones_alike() -> None:
    label = torch.tensor([0, 1, 1, 0, 0, 1, 0], dtype=torch.uint8).reshape(1, 7, 1, 1)
    volume = {"image": torch.arange(7.0).reshape(1, 7, 1, 1), "label": label}
    draw = Compose(random_patch((1, 1, 1), 0.0).transforms[:2])
    seen = [int(patch_of(draw, volume, (1, 1, 1), seed)["image"]) for seed in range(400)]
    counts = {voxel: seen.count(voxel) for voxel in range(7)}
    assert [counts[voxel] for voxel in (1, 2, 5)] == [0, 0, 0]
    assert min(counts[voxel] for voxel in (0, 3, 4, 6)) > 65, counts


def test_a_foreground_patch_shows_each_class_equally_often() -> None:
    label = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    label[:, 2:10, 2:10, 2:10], label[:, 5, 5, 5] = 1, 2
    volume = {"image": torch.rand(1, 12, 12, 12), "label": label}
    draw = random_patch((1, 1, 1), foreground=1.0, by_class=True)
    seen = [int(patch_of(draw, volume, (1, 1, 1), seed)["label"]) for seed in range(200)]
    assert 70 < seen.count(2) < 130, seen.count(2)
    volume["label"] = torch.where(label == 2, UNKNOWN, 0).to(torch.uint8)
    assert {int(patch_of(draw, volume, (1, 1, 1), seed)["label"]) for seed in range(5)} == {0}


def test_image_and_label_of_a_patch_stay_together() -> None:
    organ, size = item()["label"], (10, 10, 10)
    draw = random_patch(size, 1.0)
    for seed in range(20):
        patch = patch_of(draw, {"image": organ.float() * 10, "label": organ}, size, seed)
        inside = patch["image"][patch["label"] > 0].mean()
        assert inside > patch["image"][patch["label"] == 0].mean() + 5


def test_patches_that_are_not_mirrored_keep_their_sides() -> None:
    image = torch.zeros(1, 8, 8, 8)
    image[:, 6:] = 1
    volume, size = {"image": image, "label": (image > 0).to(torch.uint8)}, (8, 8, 8)
    kept, mirrored = (random_patch(size, 1.0, mirror=mirror) for mirror in (False, True))

    def sides(draw: Compose) -> set[bool]:
        patches = [patch_of(draw, volume, size, seed)["label"][0].float().mean((1, 2)) for seed in range(30)]
        return {bool(along[4:].sum() >= along[:4].sum()) for along in patches}

    assert sides(kept) == {True}
    assert sides(mirrored) == {True, False}


def test_an_image_without_any_organ_still_gives_patches() -> None:
    empty = {**item(), "label": torch.zeros(1, 20, 18, 16, dtype=torch.uint8)}
    patch = patch_of(random_patch((8, 8, 8), 0.7), empty, (8, 8, 8), 0)
    assert not patch["label"].any()
    assert torch.isfinite(patch["image"]).all()
