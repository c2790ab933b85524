"""Silent failure figures against scipy, against the average over all orders of ties, and by hand."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy.stats import norm, spearmanr, t

from medmtl.bootstrap import CaseDraws
from medmtl.errors import DataError
from medmtl.ood.metrics.failure import (
    Rejection,
    expected_drop,
    failure_detection,
    rejection,
    risk_coverage,
    weighted_aurc,
    weighted_spearman,
)
from medmtl.ood.metrics.resampling import Interval


def brute_curve(scores: list[float], risks: list[float]) -> np.ndarray:
    """Mean over every order that respects the scores."""
    curves = [
        [np.mean([risks[index] for index in order[: count + 1]]) for count in range(len(order))]
        for order in permutations(range(len(scores)))
        if all(scores[one] <= scores[other] for one, other in pairwise(order))
    ]
    return np.mean(curves, axis=0)


def brute_drop(scores: np.ndarray, dice: np.ndarray, inside: np.ndarray, counts: np.ndarray) -> float:
    """The expected drop of images that occur so often, one after the other."""
    threshold = sorted(scores[inside])[int(np.ceil(0.95 * (inside.sum() - 1)))]
    usual = float(np.mean(np.repeat(dice[inside], counts[inside])))
    drops = []
    for score, overlap, times in zip(scores[~inside], dice[~inside], counts[~inside], strict=True):
        drops += [usual - overlap if score <= threshold else 0.0] * int(times)
    return float(np.mean(drops))


def test_who_rejects_just_the_bad_images_loses_nothing_and_who_rejects_none_the_whole_drop() -> None:
    dice = [0.9, 0.9, 0.8, 0.1, 0.2, 0.9]
    inside = [True, True, True, False, False, False]
    usual = np.mean(dice[:3])
    assert expected_drop([0, 1, 2, 9, 9, 1], dice, inside) == pytest.approx((usual - 0.9) / 3)
    assert expected_drop([0, 1, 2, 0, 0, 0], dice, inside) == pytest.approx(usual - np.mean(dice[3:]))
    assert expected_drop([0, 1, 2, 9, 0, 9], dice, inside) == pytest.approx((usual - 0.2) / 3)
    assert np.isnan(expected_drop([0, 1], [0.9, 0.8], [True, True]))


@pytest.mark.parametrize("seed", range(4))
def test_the_curve_is_the_mean_over_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, dice = rng.integers(0, 4, 6).astype(float), rng.random(6)
    coverage, risk = risk_coverage(scores, dice)
    expected = brute_curve(scores.tolist(), (1 - dice).tolist())
    assert coverage == pytest.approx(np.arange(1, 7) / 6)
    assert risk == pytest.approx(expected)
    assert weighted_aurc(scores, 1 - dice, np.ones((1, 6))) == pytest.approx([expected.mean()])


@pytest.mark.parametrize("ties", [False, True])
def test_figures_of_a_resample_are_those_of_the_images_repeated(ties: bool) -> None:
    rng = np.random.default_rng(3)
    scores, dice = rng.normal(size=30), rng.random(30)
    if ties:
        scores, dice = np.round(scores), np.round(dice, 1)
    weights = rng.multinomial(30, np.full(30, 1 / 30), 50).astype(float)
    correlations, areas = weighted_spearman(scores, dice, weights), weighted_aurc(scores, 1 - dice, weights)
    for row, counts in enumerate(weights.astype(int)):
        repeated = np.repeat(scores, counts), np.repeat(dice, counts)
        assert correlations[row] == pytest.approx(spearmanr(*repeated).statistic)
        assert areas[row] == pytest.approx(risk_coverage(*repeated)[1].mean())


def test_the_intervals_are_those_of_resampled_patients() -> None:
    rng = np.random.default_rng(4)
    patients = [f"p{number % 12}" for number in range(30)]
    dice = rng.random(30)
    scores = -dice + rng.normal(0, 0.3, 30)
    inside = [number < 15 for number in range(30)]
    found = failure_detection(np.r_[scores, 5.0], np.r_[dice, np.nan], [*patients, "p99"], [*inside, True])
    assert (found.images, found.people) == (30, 12)
    draws: dict[str, list[float]] = {"spearman": [], "aurc": [], "e_aurc": [], "drop": []}
    resamples = CaseDraws.of({"all": patients})
    assert resamples is not None
    for counts in resamples.weights["all"].astype(int)[:300]:
        repeated = np.repeat(scores, counts), np.repeat(dice, counts)
        area, oracle = risk_coverage(*repeated)[1].mean(), risk_coverage(-repeated[1], repeated[1])[1].mean()
        draws["spearman"].append(spearmanr(*repeated).statistic)
        draws["aurc"].append(area)
        draws["e_aurc"].append(area - oracle)
        draws["drop"].append(brute_drop(scores, dice, np.array(inside), counts))
    assert found.spearman.value == pytest.approx(spearmanr(scores, dice).statistic)
    assert found.aurc.value == pytest.approx(risk_coverage(scores, dice)[1].mean())
    assert found.e_aurc.value == pytest.approx(found.aurc.value - risk_coverage(-dice, dice)[1].mean())
    assert found.drop.value == pytest.approx(brute_drop(scores, dice, np.array(inside), np.ones(30, int)))
    for name, values in draws.items():
        interval = getattr(found, name)
        # The first 300 of its 2,000 resamples; the ends are those of 12 patients, expanded.
        spread, tail = np.std(values), norm.cdf(np.sqrt(12 / 11) * t.ppf(0.025, 11))
        assert (interval.low, interval.high) == pytest.approx(np.quantile(values, (tail, 1 - tail)), abs=0.7 * spread)
        assert interval.reliable
        assert interval.low < interval.value < interval.high


def test_a_perfect_order_and_its_reverse_by_hand() -> None:
    dice = np.array([0.9, 0.8, 0.4])
    perfect, reverse = (failure_detection(scores, dice, list("abc"), [True] * 3) for scores in (-dice, dice))
    assert perfect.spearman.value == pytest.approx(-1)
    assert perfect.aurc.value == pytest.approx((0.1 + 0.15 + 0.3) / 3)
    assert perfect.e_aurc.value == pytest.approx(0)
    assert reverse.spearman.value == pytest.approx(1)
    assert reverse.aurc.value == pytest.approx((0.6 + 0.4 + 0.3) / 3)
    blind = failure_detection([1, 1, 1], dice, list("abc"), [True] * 3)
    assert blind.spearman == Interval(None, None, None)
    assert blind.aurc.value == pytest.approx(0.3)


def test_the_sentence_by_hand() -> None:
    scores, dice = np.array([1.0, 2, 3, 4, 5]), np.array([0.9, 0.8, 0.7, 0.6, 0.0])
    found = rejection(scores, dice, 0.2)
    assert (found.rejected, found.images, found.before, found.after) == pytest.approx((1, 5, 0.6, 0.75))
    assert str(found) == "rejecting the worst 20 % (1 of 5 images) would have raised mean Dice from 0.600 to 0.750"
    assert str(rejection(-scores, dice, 0.2)).endswith("would have lowered mean Dice from 0.600 to 0.525")
    assert rejection(scores, dice, 0.21).rejected == 2
    assert rejection(np.ones(5), dice, 0.4).after == pytest.approx(0.6)
    assert rejection(scores, np.r_[dice[:4], np.nan], 0.25) == Rejection(1, 4, pytest.approx(0.75), pytest.approx(0.8))
    assert rejection(scores[:1], dice[:1], 0.1) is None
    assert rejection([], [], 0.1) is None


def test_what_cannot_be_said() -> None:
    missing = Interval(None, None, None)
    none = failure_detection([1.0], [np.nan], ["a"], [True])
    assert (none.spearman, none.aurc, none.e_aurc, none.images, none.people) == (missing, missing, missing, 0, 0)
    single = failure_detection([1.0, 2.0], [0.9, 0.5], ["a", "a"], [True] * 2)
    assert single.aurc == Interval(pytest.approx((0.1 + 0.3) / 2), None, None)
    with pytest.raises(DataError, match="a score is not a number"):
        failure_detection([np.nan, 1], [0.5, 0.5], ["a", "b"], [True] * 2)
