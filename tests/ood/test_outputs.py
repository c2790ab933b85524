"""Scores of the output against values worked out by hand."""

import math

import pytest
import torch

from medmtl.ood.outputs import (
    mean_foreground_energy,
    mean_foreground_entropy,
    mean_foreground_max_logit,
    mean_foreground_max_softmax,
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
