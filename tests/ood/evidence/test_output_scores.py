"""Scores of the output against values worked out by hand; those of an ensemble against scipy and scikit-learn."""

import math

import pytest
import torch
from scipy import special, stats
from sklearn.metrics import f1_score

from medmtl.data.classes import Classes
from medmtl.models.outputs import Outputs
from medmtl.ood.evidence.output_scores import (
    Disagreement,
    mean_foreground_energy,
    mean_foreground_entropy,
    mean_foreground_max_logit,
    mean_foreground_max_softmax,
    pairwise_dice_distance,
)

SCORES = [mean_foreground_entropy, mean_foreground_max_softmax]


def test_entropy_is_the_mean_over_the_predicted_foreground() -> None:
    # Voxels below 0.5 do not count; 0.5 does.
    probability = torch.tensor([0.0, 0.3, 0.499, 0.5, 0.8, 1.0])
    hand = (math.log(2) - 0.8 * math.log(0.8) - 0.2 * math.log(0.2) + 0) / 3
    assert mean_foreground_entropy(probability) == pytest.approx(hand, abs=1e-6)


def test_max_softmax_is_the_mean_doubt_over_the_predicted_foreground() -> None:
    probability = torch.tensor([0.0, 0.3, 0.499, 0.5, 0.8, 1.0])
    assert mean_foreground_max_softmax(probability) == pytest.approx((0.5 + 0.2 + 0.0) / 3, abs=1e-6)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("value", [0.0, 0.3, 0.4999])
def test_an_empty_prediction_scores_0(score, value) -> None:
    assert score(torch.full((4, 5, 6), value)) == 0


@pytest.mark.parametrize("score", SCORES)
def test_a_certain_prediction_scores_0_and_an_undecided_one_the_most(score) -> None:
    assert score(torch.ones(3, 3, 3)) == 0
    most = math.log(2) if score is mean_foreground_entropy else 0.5
    assert score(torch.full((3, 3, 3), 0.5)) == pytest.approx(most)
    rising = [score(torch.full((8,), value)) for value in (0.99, 0.9, 0.75, 0.6, 0.5)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < rising[-1]


@pytest.mark.parametrize("score", SCORES)
def test_the_shape_does_not_matter_and_the_background_neither(score) -> None:
    probability = torch.rand(1, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    assert score(probability) == score(probability.flatten())
    padded = torch.zeros(1, 20, 20, 20)
    padded[:, :6, :7, :8] = probability
    assert score(padded) == pytest.approx(score(probability), abs=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_a_large_volume_is_averaged_without_rounding_away(score) -> None:
    probability = torch.full((3_000_000,), 0.9)
    assert score(probability) == pytest.approx(score(probability[:1]), rel=1e-9)


def test_max_logit_and_energy_are_means_over_the_predicted_foreground() -> None:
    logits = torch.tensor([-3.0, -0.1, 0.0, 0.5, 4.0])
    probability = logits.sigmoid()
    assert mean_foreground_max_logit(probability) == pytest.approx(-(0.0 + 0.5 + 4.0) / 3, abs=1e-5)
    hand = -sum(math.log(1 + math.exp(z)) for z in (0.0, 0.5, 4.0)) / 3
    assert mean_foreground_energy(probability) == pytest.approx(hand, abs=1e-5)


@pytest.mark.parametrize("score", [mean_foreground_max_logit, mean_foreground_energy])
def test_logit_scores_rise_with_doubt_and_an_empty_prediction_scores_the_most(score) -> None:
    rising = [score(torch.full((8,), value)) for value in (1.0, 0.99, 0.9, 0.75, 0.6, 0.5, 0.4)]
    assert rising == sorted(rising)
    assert rising[0] < rising[1] < rising[-2] == rising[-1]


def members(number: int, shape: tuple[int, ...] = (7, 6, 5)) -> torch.Tensor:
    """Probabilities of members that agree in part, `(members, H, W, D)`."""
    generator = torch.Generator().manual_seed(number)
    common = torch.randn(shape, generator=generator)
    return torch.sigmoid(2 * common + torch.randn(number, *shape, generator=generator))


def gathered(probabilities: torch.Tensor) -> Disagreement:
    disagreement = Disagreement()
    for probability in probabilities:
        disagreement.add(probability)
    return disagreement


@pytest.mark.parametrize("number", [2, 3, 6])
def test_mutual_information_is_that_of_the_stacked_members(number: int) -> None:
    p = members(number).double().numpy()
    mean = p.mean(0)
    of_the_mean, own = (stats.entropy([x, 1 - x], axis=0) for x in (mean, p))
    expected = (of_the_mean - own.mean(0))[mean >= 0.5].mean()
    assert expected > 0.01
    assert gathered(members(number)).scores()["mutual_information"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("number", [2, 3, 6])
def test_pairwise_dice_is_that_of_all_pairs(number: int) -> None:
    masks = members(number) >= 0.5
    dice = [f1_score(one.flatten(), other.flatten()) for place, one in enumerate(masks) for other in masks[place + 1 :]]
    expected = 1 - sum(dice) / len(dice)
    assert 0 < expected < 1
    assert gathered(members(number)).scores()["pairwise_dice_distance"] == pytest.approx(expected, abs=1e-9)
    assert pairwise_dice_distance(list(masks)) == pytest.approx(expected, abs=1e-9)


def test_equal_members_do_not_disagree_however_uncertain() -> None:
    for value in (0.0, 0.3, 0.5, 0.77, 1.0):
        scores = gathered(torch.full((3, 4, 4, 4), value)).scores()
        assert scores["mutual_information"] == pytest.approx(0, abs=1e-7)
        assert scores["pairwise_dice_distance"] == 0


def test_members_that_are_sure_of_opposite_things_disagree_the_most() -> None:
    scores = gathered(torch.stack([torch.ones(4, 4, 4), torch.zeros(4, 4, 4)])).scores()
    assert scores["mutual_information"] == pytest.approx(math.log(2))
    assert scores["pairwise_dice_distance"] == 1


def test_a_pool_without_foreground_has_no_mutual_information_and_one_member_no_disagreement() -> None:
    assert gathered(torch.tensor([[0.9, 0.1], [0.0, 0.1]])).scores()["mutual_information"] == 0
    assert gathered(torch.rand(1, 4)).scores() == {}
    assert pairwise_dice_distance([torch.ones(3, dtype=torch.bool)]) == 0


def test_of_several_classes_the_scores_are_those_of_all_together() -> None:
    """The entropy of all classes is that of the foreground, and p times the one within the foreground."""
    logits = 2 * torch.randn(4, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = Classes({str(value): frozenset({value}) for value in (1, 2, 3)})
    head = Outputs.per_task({"T": classes}).heads["T"]
    probability = torch.sigmoid(head.foreground(logits))[0]
    softmax = special.softmax(logits.numpy(), axis=0)
    foreground = softmax[1:].sum(0)
    inside = foreground >= 0.5
    within = foreground * stats.entropy(softmax[1:] / foreground)
    expected = (stats.entropy(softmax) - within)[inside].mean()
    assert mean_foreground_entropy(probability) == pytest.approx(expected)
    assert mean_foreground_max_softmax(probability) == pytest.approx(softmax[0][inside].mean())
