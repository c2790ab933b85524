"""Statistics against scipy, brute force and numbers worked by hand; and the promise of few false findings."""

import math
from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from scipy.stats import false_discovery_control, rankdata, wilcoxon

from medmtl.experiment.analysis.statistics import (
    RESAMPLES,
    Estimate,
    compare_paired,
    decide,
    estimate_mean,
    holm,
    patients_needed,
    signed_rank,
    smallest_holm,
    smallest_p,
)


def names(count: int) -> list[str]:
    return [f"p{index:03}" for index in range(count)]


def brute_signed_rank(differences: np.ndarray) -> float:
    """Two-sided p-value by trying every assignment of signs."""
    values = differences[differences != 0]
    ranks = rankdata(np.abs(values))
    observed = ranks[values > 0].sum()
    sums = np.array(list(product((0, 1), repeat=len(values)))) @ ranks
    return min(1.0, 2 * min(np.mean(sums <= observed), np.mean(sums >= observed)))


def brute_holm(p_values: list[float]) -> list[float]:
    """By the definition: the largest, over the hypotheses up to this one, of (how many are left) x p."""
    adjusted = []
    for p in p_values:
        before = [q for q in p_values if q <= p]
        adjusted.append(min(1.0, max(q * sum(other >= q for other in p_values) for q in before)))
    return adjusted


@pytest.mark.parametrize("n", [1, 2, 5, 13, 30, 50])
def test_the_signed_rank_test_is_scipys_exact_one_where_nothing_is_tied(n: int) -> None:
    for seed in range(5):
        differences = np.random.default_rng(seed).normal(0.3, 1, n)
        p, rank_biserial = signed_rank(differences)
        assert p == pytest.approx(wilcoxon(differences, method="exact").pvalue)
        assert np.sign(rank_biserial) == np.sign(rankdata(abs(differences)) @ np.sign(differences))


@pytest.mark.parametrize("seed", range(30))
def test_the_signed_rank_test_tries_every_assignment_of_signs_where_there_are_ties_and_zeros(seed: int) -> None:
    rng = np.random.default_rng(seed)
    differences = rng.integers(-3, 5, rng.integers(2, 10)).astype(float)
    if differences.any():
        assert signed_rank(differences)[0] == pytest.approx(brute_signed_rank(differences))


def test_many_patients_are_tested_by_the_normal_approximation() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 300)
    assert signed_rank(differences)[0] == wilcoxon(differences).pvalue
    assert signed_rank(differences[:200])[0] == pytest.approx(wilcoxon(differences[:200]).pvalue, abs=2e-3)


def test_effect_sizes_by_hand() -> None:
    # Ranks 1 to 4; the second is negative: (1 + 3 + 4 - 2) / 10.
    found = compare_paired([0.1, -0.2, 0.3, 0.4], names(4), ["A"] * 4)
    assert found.estimate.mean == pytest.approx(0.15)
    assert found.rank_biserial == pytest.approx(0.6)
    assert found.cohen_dz == pytest.approx(0.15 / math.sqrt((0.05**2 + 0.35**2 + 0.15**2 + 0.25**2) / 3))
    # Of 16 assignments of signs three give a rank sum of 8 or more: 1 + 3 + 4, 2 + 3 + 4, and all.
    assert found.p == pytest.approx(2 * 3 / 16)


def test_differences_that_are_all_zero_show_nothing() -> None:
    found = compare_paired([0.0] * 8, names(8), ["A"] * 8)
    assert found.estimate == Estimate(0.0, 0.0, 0.0, 8)
    assert (found.p, found.rank_biserial, found.cohen_dz) == (1.0, 0.0, None)


def test_a_single_patient_has_a_mean_and_nothing_else() -> None:
    found = compare_paired([0.2, 0.4], ["p", "p"], ["A", "A"])
    assert found.estimate.mean == pytest.approx(0.3)
    assert (found.estimate.low, found.estimate.high, found.estimate.n) == (None, None, 1)
    assert (found.p, found.rank_biserial, found.cohen_dz) == (1.0, 1.0, None)


@pytest.mark.parametrize("values", [[], [math.nan], [math.nan, math.inf]])
def test_without_a_defined_value_there_is_nothing(values: list[float]) -> None:
    found = compare_paired(values, names(len(values)), ["A"] * len(values))
    assert found.estimate == Estimate(None, None, None, 0)
    assert (found.p, found.rank_biserial, found.cohen_dz) == (None, None, None)


def test_undefined_values_are_left_out() -> None:
    values = [0.1, math.nan, 0.3, 0.2, math.nan]
    kept = compare_paired([0.1, 0.3, 0.2], ["p000", "p002", "p003"], ["A"] * 3)
    assert compare_paired(values, names(5), ["A"] * 5) == kept
    assert kept.estimate.n == 3


def test_equal_differences_are_tied_though_rounding_parts_them() -> None:
    differences = [0.3 - 0.2, 0.2 - 0.1, -(0.4 - 0.3), 0.5 - 0.4, 0.1 - 0.1]
    assert len(set(map(abs, differences))) > 2
    found = compare_paired(differences, names(5), ["A"] * 5)
    assert found.p == pytest.approx(brute_signed_rank(np.array([1.0, 1, -1, 1])))


def test_cases_of_one_patient_stay_together() -> None:
    """Ten equal cases of one patient say no more than one of them."""
    values, patients = [0.0, 1.0, 2.0, 3.0], ["a", "b", "c", "d"]
    many = [value for value in values for _ in range(10)]
    owners = [patient for patient in patients for _ in range(10)]
    alone = estimate_mean(values, patients, ["A"] * 4)
    together = estimate_mean(many, owners, ["A"] * 40)
    assert together == alone
    assert compare_paired(many, owners, ["A"] * 40) == compare_paired(values, patients, ["A"] * 4)
    naive = estimate_mean(many, names(40), ["A"] * 40)
    assert naive.high - naive.low < 0.5 * (alone.high - alone.low)


def test_the_mean_is_over_cases_and_the_test_over_patients() -> None:
    found = compare_paired([0.1, 0.2, 0.3, -0.9], ["a", "a", "a", "b"], ["A"] * 4)
    assert found.estimate.mean == pytest.approx(-0.3 / 4)
    assert found.rank_biserial == pytest.approx((1 - 2) / 3)  # 0.2 for a, -0.9 for b
    assert found.estimate.n == 2


def test_tasks_weigh_the_same_in_the_mean_and_a_patient_of_several_counts_once() -> None:
    values = [0.0, 0.2, 0.4, 1.0]
    found = compare_paired(values, ["a", "b", "c", "a"], ["A", "A", "A", "B"])
    assert found.estimate.mean == pytest.approx((0.2 + 1.0) / 2)
    assert found.estimate.n == 3
    # One number a patient: a has 0 in task A and 1 in task B.
    assert found.cohen_dz == pytest.approx(np.mean([0.5, 0.2, 0.4]) / np.std([0.5, 0.2, 0.4], ddof=1))


def test_a_mean_over_tasks_needs_a_value_in_every_task() -> None:
    found = compare_paired([0.1, 0.3, math.nan], names(3), ["A", "A", "B"])
    assert found.estimate == Estimate(None, None, None, 2)
    assert (found.p, found.rank_biserial, found.cohen_dz) == (None, None, None)


def test_a_small_task_is_in_every_resample() -> None:
    """Tasks that share no patient keep their numbers: without that, a resample could lack both patients of B."""
    found = estimate_mean([0.0, 1.0, 2.0, 30.0, 30.0], names(5), ["A", "A", "A", "B", "B"])
    assert found.low >= 15
    assert found.high <= 16


@pytest.mark.parametrize("alone", ["p006", "p000"])  # in no other task, and in the larger one too
def test_a_mean_over_tasks_has_no_interval_where_a_task_has_a_single_patient(alone: str) -> None:
    """The patient of B shows no spread, so that resamples would say nothing of half of the mean."""
    values, patients, tasks = [*np.linspace(0.1, 0.3, 6), 0.4], [*names(6), alone], [*"AAAAAAB"]
    found = compare_paired(values, patients, tasks)
    assert (found.estimate.mean, found.estimate.low, found.estimate.high) == (pytest.approx(0.3), None, None)
    assert found.p == 2.0 ** (1 - found.estimate.n)
    with_another = estimate_mean([*values, 0.5], [*patients, "p001"], [*tasks, "B"])
    assert with_another.low < with_another.mean < with_another.high


def test_the_interval_is_that_of_resampled_patients() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 15)
    patients = [name for name, size in zip(names(15), sizes, strict=True) for _ in range(size)]
    values = rng.normal(0, 1, len(patients)) + np.repeat(rng.normal(0, 1, 15), sizes)
    found = estimate_mean(values, patients, ["A"] * len(patients))
    cases = [values[np.array(patients) == name] for name in names(15)]
    means = [np.concatenate([cases[i] for i in rng.integers(0, 15, 15)]).mean() for _ in range(RESAMPLES)]
    # Of 15 patients the expanded interval takes quantiles at Phi(-sqrt(15 / 14) x 2.1448) = 1.32 %.
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.0132, 0.9868]).tolist(), abs=0.04)
    assert found.mean == pytest.approx(values.mean())


def test_the_order_of_the_cases_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    values, patients = rng.normal(size=12), [*names(6), *names(6)]
    tasks = ["A"] * 6 + ["B"] * 6
    order = rng.permutation(12)
    shuffled = compare_paired(values[order], [patients[i] for i in order], [tasks[i] for i in order])
    found = compare_paired(values, patients, tasks)
    assert shuffled.p == found.p
    numbers = [(one.estimate.mean, one.estimate.low, one.estimate.high) for one in (shuffled, found)]
    assert numbers[0] == pytest.approx(numbers[1])


@pytest.mark.parametrize("n", [6, 12, 40])
def test_the_interval_covers_the_mean_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    found = [estimate_mean(rng.normal(0, 1, n), names(n), ["A"] * n) for _ in range(400)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.03)


def test_holm_by_hand() -> None:
    # In order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_by_its_definition_and_more_cautious_than_benjamini_and_hochberg() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        p_values = rng.uniform(0, 0.2, rng.integers(1, 12)).tolist()
        adjusted = holm(p_values)
        assert adjusted == pytest.approx(brute_holm(p_values))
        assert (np.array(adjusted) >= false_discovery_control(p_values) - 1e-12).all()


def test_a_test_that_could_not_be_made_is_no_member_of_the_family() -> None:
    assert holm([None, 0.01, None, 0.02]) == [None, 0.02, None, 0.02]


def test_the_smallest_p_value_is_that_of_differences_which_all_point_one_way() -> None:
    for n in range(1, 12):
        assert smallest_p(n) == pytest.approx(signed_rank(np.arange(1.0, n + 1))[0])
    assert smallest_p(0) == 1


def test_the_smallest_adjusted_p_value_leaves_the_others_as_they_are() -> None:
    p_values, sizes = [0.5, 0.001, None, 0.02], [4, 12, 0, 8]
    found = smallest_holm(p_values, sizes)
    # The first could have had 1/8, still the largest of three; the second 1/2048, the smallest; the last 1/128.
    assert found == [pytest.approx(0.125), pytest.approx(3 / 2048), None, pytest.approx(2 / 128)]


def test_how_many_patients_are_needed() -> None:
    assert patients_needed(1, 0.05) == 6
    assert patients_needed(15, 0.05) == 10
    for tests in (1, 2, 15, 75):
        n = patients_needed(tests, 0.05)
        assert tests * smallest_p(n) <= 0.05 < tests * smallest_p(n - 1)


@pytest.mark.parametrize(
    ("difference", "low", "high", "ranks", "p_holm", "smallest", "better", "expected"),
    [
        (0.1, 0.01, 0.2, 0.8, 0.05, 0.01, "higher", "better"),
        (0.1, 0.01, 0.2, 0.8, 0.05, 0.01, "lower", "worse"),
        (-0.1, -0.2, -0.01, -0.8, 0.01, 0.01, "higher", "worse"),
        (-0.1, -0.2, -0.01, -0.8, 0.01, 0.01, "lower", "better"),
        (0.1, 0.01, 0.2, 0.8, 0.051, 0.01, "higher", "no evidence"),
        # An interval with 0 in it or at its end: the mean may be nothing, or point the other way.
        (0.1, -0.01, 0.2, 0.8, 0.01, 0.01, "higher", "no evidence"),
        (0.1, 0.0, 0.2, 0.8, 0.01, 0.01, "higher", "no evidence"),
        (-0.1, -0.2, 0.0, -0.8, 0.01, 0.01, "lower", "no evidence"),
        # One outlier turns the mean: it cannot be said which way.
        (0.1, 0.01, 0.2, -0.8, 0.01, 0.01, "higher", "no evidence"),
        (0.0, 0.0, 0.0, 0.0, 1.0, 0.01, "higher", "no evidence"),
        (0.1, 0.01, 0.2, 1.0, 0.2, 0.06, "higher", "no evidence: n too small"),
        # A task with a single patient: the test is significant, the mean has no interval.
        (0.1, None, None, 1.0, 0.01, 0.01, "higher", "no evidence: n too small"),
        (None, None, None, None, None, None, "higher", "no evidence"),
    ],
)
def test_verdicts_follow_from_the_numbers(difference, low, high, ranks, p_holm, smallest, better, expected) -> None:
    assert decide(difference, low, high, ranks, p_holm, smallest, better, 0.05) == expected


def found_with(effects: Mapping[int, float], trials: int = 200) -> tuple[float, float]:
    """How often normal differences of unit variance are called different, and how often test and ranks alone would.

    Args:
        effects: patients of a task -> their true mean difference; a task each.
        trials: samples.
    """
    rng = np.random.default_rng(0)
    patients, tasks = names(sum(effects)), [str(size) for size in effects for _ in range(size)]
    called = alone = 0
    for _ in range(trials):
        found = compare_paired(np.concatenate([rng.normal(mean, 1, n) for n, mean in effects.items()]), patients, tasks)
        estimate, p = found.estimate, found.p
        smallest = smallest_p(estimate.n)
        verdict = decide(estimate.mean, estimate.low, estimate.high, found.rank_biserial, p, smallest, "higher", 0.05)
        called += verdict in ("better", "worse")
        alone += p <= 0.05 and estimate.mean * found.rank_biserial > 0
    return called / trials, alone / trials


def test_opposite_effects_in_tasks_of_different_size_are_no_difference_of_the_mean() -> None:
    """The mean over tasks is 0; the signed-rank test sees 20 patients on one side and 5 on the other."""
    called, alone = found_with({5: 1.0, 20: -1.0})
    assert alone > 0.4
    # 5 % and three standard errors.
    assert called <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("effects", [{12: 1.0}, {10: 0.8, 12: 0.8}])
def test_the_interval_hardly_costs_power_where_effects_and_sizes_are_alike(effects: Mapping[int, float]) -> None:
    called, alone = found_with(effects)
    assert called > 0.8
    assert alone - called <= 0.05


def found_in_family(rng: np.random.Generator, effect: float) -> list[bool]:
    """Which of 15 comparisons of 14 patients are called different; tied values, as of surface distances, among them."""
    family = [np.round(rng.normal(effect, 1, 14), 1 if index % 3 else 6) for index in range(15)]
    return [p <= 0.05 for p in holm([signed_rank(differences)[0] for differences in family])]


def test_a_family_without_differences_seldom_shows_one() -> None:
    rng = np.random.default_rng(0)
    trials = 400
    wrong = sum(any(found_in_family(rng, 0.0)) for _ in range(trials))
    # 5 % and three standard errors.
    assert wrong / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert wrong > 0
    assert np.mean([np.mean(found_in_family(rng, 1.5)) for _ in range(20)]) > 0.7
