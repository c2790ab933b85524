"""Accuracy: Dice and surface distances against values by hand, brute force and MONAI."""

import itertools
import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from medmtl.accuracy import dice, surface_distances

SPACING = (0.7, 1.3, 2.5)


def blob(seed: int, shape: tuple[int, int, int] = (13, 11, 9)) -> torch.Tensor:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return torch.from_numpy(noise > 0.05)


def voxel(at: tuple[int, int, int], shape: tuple[int, int, int] = (8, 9, 10)) -> torch.Tensor:
    volume = torch.zeros(shape, dtype=torch.bool)
    volume[at] = True
    return volume


def brute_surface(volume: torch.Tensor) -> list[tuple[int, int, int]]:
    """Foreground voxels of which one of the six neighbours is background or outside of the volume."""
    inside = {tuple(index) for index in volume.nonzero().tolist()}
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, step)) == 1]
    return [
        index
        for index in inside
        if any(tuple(place + move for place, move in zip(index, step, strict=True)) not in inside for step in steps)
    ]


def brute_distances(predicted: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    surfaces = [np.array(brute_surface(volume)) * SPACING for volume in (predicted, label)]
    between = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    there, back = between.min(axis=1), between.min(axis=0)
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy")  # within MONAI's own metrics
@pytest.mark.parametrize("seed", range(2))
def test_surface_distances_are_those_of_brute_force_and_of_monai(seed: int) -> None:
    predicted, label = blob(seed), blob(seed + 100)
    hd95, asd = surface_distances(predicted, label, SPACING)
    assert (hd95, asd) == pytest.approx(brute_distances(predicted, label), rel=1e-6)
    batches = {"y_pred": predicted[None, None], "y": label[None, None], "include_background": True, "spacing": SPACING}
    assert hd95 == pytest.approx(float(compute_hausdorff_distance(**batches, percentile=95)), rel=1e-6)
    assert asd == pytest.approx(float(compute_average_surface_distance(**batches, symmetric=True)), rel=1e-6)
    assert 0 < asd < hd95


def test_two_voxels_are_as_far_as_their_centres() -> None:
    # 3 x 0.7, 2 x 1.3, 4 x 2.5 mm
    expected = math.sqrt(2.1**2 + 2.6**2 + 10**2)
    assert surface_distances(voxel((1, 2, 3)), voxel((4, 4, 7)), SPACING) == pytest.approx((expected, expected))


def test_the_far_tenth_of_a_surface_counts_in_hd95_and_not_its_far_twentieth() -> None:
    label = torch.zeros(100, 3, 40, dtype=torch.bool)
    label[:, 1, 0] = True
    for far, expected in ((10, 9.0), (4, 0.0)):
        predicted = label.clone()
        predicted[:far, 1, 0] = False
        predicted[:far, 1, 9] = True
        # The label's voxels beside the gap are nearer to the rest: only the prediction's are all 9 mm away.
        assert surface_distances(predicted, label, (10, 1, 1))[0] == pytest.approx(expected)


def test_the_same_surface_is_at_no_distance_and_order_does_not_matter() -> None:
    assert surface_distances(blob(0), blob(0), SPACING) == (0, 0)
    assert surface_distances(blob(0), blob(1), SPACING) == surface_distances(blob(1), blob(0), SPACING)


def test_a_wider_field_of_view_changes_nothing() -> None:
    predicted, label = (torch.nn.functional.pad(blob(seed), (1,) * 6) for seed in (0, 1))
    wider = [torch.nn.functional.pad(volume, (3, 9, 0, 5, 7, 1)) for volume in (predicted, label)]
    assert surface_distances(*wider, SPACING) == surface_distances(predicted, label, SPACING)


def test_without_foreground_in_the_label_nothing_is_defined() -> None:
    empty = torch.zeros(4, 5, 6, dtype=torch.bool)
    for predicted in (empty, ~empty):
        assert np.isnan(surface_distances(predicted, empty, SPACING)).all()
        assert math.isnan(dice(predicted, empty))


def test_an_empty_prediction_costs_the_volume_s_diagonal_which_no_other_prediction_exceeds() -> None:
    label = voxel((0, 0, 0), (3, 4, 6))
    assert surface_distances(torch.zeros_like(label), label, (1, 1, 2)) == pytest.approx((13, 13))  # 3, 4 and 12 mm
    farthest = surface_distances(voxel((2, 3, 5), (3, 4, 6)), label, (1, 1, 2))
    assert farthest == pytest.approx((math.sqrt(4 + 9 + 100),) * 2)
    assert max(farthest) < 13
    assert dice(torch.zeros_like(label), label) == 0


def test_labels_may_be_numbers() -> None:
    predicted, label = blob(0), blob(1)
    assert surface_distances(predicted, label.to(torch.uint8), SPACING) == surface_distances(predicted, label, SPACING)
    assert dice(predicted, label.to(torch.uint8)) == dice(predicted, label)


def test_dice_is_twice_the_common_voxels_over_all() -> None:
    predicted, label = blob(2), blob(3)
    common, both = int((predicted & label).sum()), int(predicted.sum()) + int(label.sum())
    assert dice(predicted, label) == pytest.approx(2 * common / both)
    assert dice(label, label) == 1
