"""Conformal decisions against their definition, and the promise they are made for: few false alarms."""

import math

import numpy as np
import pytest

from medmtl.ood.conformal import ConformalRule, cases_needed, correction, p_value

# 1 - 0.9 lies a little below 0.1 and must decide as 0.1 does.
ALPHAS = [0.01, 0.05, 0.1, 1 - 0.9, 0.15, 0.2, 1 / 3, 0.5]


def brute_p(score: float, calibration: list[float]) -> tuple[int, int]:
    """Numerator and denominator of the p-value, by its definition."""
    return 1 + sum(1 for other in calibration if other >= score), len(calibration) + 1


def test_p_values_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        calibration = rng.integers(0, 10, rng.integers(0, 30)).tolist()
        score = float(rng.integers(-1, 11))
        numerator, denominator = brute_p(score, calibration)
        assert p_value(score, calibration) == pytest.approx(numerator / denominator)


def test_a_p_value_by_hand() -> None:
    calibration = [0.1, 0.2, 0.3, 0.4]
    assert [p_value(score, calibration) for score in (0.5, 0.4, 0.25, 0.0)] == pytest.approx([0.2, 0.4, 0.6, 1.0])
    assert p_value(3.0, []) == 1


@pytest.mark.parametrize(
    ("alpha", "needed"),
    [(0.05, 19), (0.1, 9), (1 - 0.9, 9), (0.01, 99), (0.2, 4), (0.5, 1), (0.3, 3), (1 / 3, 2), (0.001, 999)],
)
def test_a_rule_decides_only_with_enough_cases(alpha: float, needed: int) -> None:
    assert cases_needed(alpha) == needed
    enough = ConformalRule({"A": list(range(needed))}, alpha)
    assert enough.decides
    assert enough.rejects(needed + 1.0) is True
    assert enough.rejects(-1.0) is False
    assert math.isfinite(enough.threshold)
    few = ConformalRule({"A": list(range(needed - 1))}, alpha)
    assert not few.decides
    assert few.rejects(1e9) is None
    assert few.threshold == math.inf
    assert few.p_value(1e9) > alpha


def test_a_rule_without_any_case_does_not_decide() -> None:
    for scores in ({}, {"A": []}, {"A": [], "B": []}):
        rule = ConformalRule(scores, 0.05)
        assert not rule.decides
        assert rule.rejects(1.0) is None
        assert rule.p_value(1.0) == 1


@pytest.mark.parametrize("alpha", ALPHAS)
def test_an_image_is_rejected_just_where_its_score_is_above_the_threshold(alpha: float) -> None:
    rng = np.random.default_rng(1)
    needed, decided = cases_needed(alpha), 0
    for number in range(40):
        sizes = rng.integers(max(needed - 2, 1), 3 * needed + 3, rng.integers(1, 5))
        # Every other time with ties.
        draw = (lambda size: rng.integers(0, 15, size)) if number % 2 else (lambda size: rng.normal(size=size))
        rule = ConformalRule({f"T{task}": draw(size).tolist() for task, size in enumerate(sizes)}, alpha)
        highest = np.sort([score for group in rule.groups.values() for score in group.scores])[-3 * max(sizes) :]
        chosen = np.r_[rng.choice(highest, 6), rule.threshold if rule.decides else 0]
        for score in (*chosen, *(chosen + 1e-6), *(chosen - 1e-6)):
            if rule.decides:
                decided += 1
                fractions = [brute_p(score, list(group.scores)) for group in rule.groups.values()]
                expected = all(numerator <= alpha * denominator + 1e-9 for numerator, denominator in fractions)
                assert rule.rejects(float(score)) == (score > rule.threshold) == expected
                assert rule.p_value(score) == pytest.approx(max(n / d for n, d in fractions))
            else:
                assert rule.rejects(float(score)) is None
    assert decided > 100


def test_each_task_judges_with_its_own_cases_where_all_have_enough() -> None:
    near, far = list(np.linspace(0, 1, 19)), list(np.linspace(10, 20, 40))
    rule = ConformalRule({"Near": near, "Far": far}, 0.05)
    assert {task: group.scores for task, group in rule.groups.items()} == {"Near": near, "Far": far}
    # Accepted as soon as one task accepts it.
    assert rule.rejects(5.0) is False
    assert rule.p_value(5.0) == p_value(5.0, far) == 1
    assert rule.rejects(25.0) is True


def test_the_cases_of_all_tasks_are_pooled_where_one_has_too_few() -> None:
    near, far = list(np.linspace(0, 1, 18)), list(np.linspace(10, 20, 40))
    rule = ConformalRule({"Near": near, "Far": far}, 0.05)
    (pooled,) = rule.groups.values()
    assert sorted(pooled.scores) == sorted(near + far)
    assert rule.p_value(5.0) == p_value(5.0, near + far) == 41 / 59
    assert rule.decides
    pair = ConformalRule({"A": [0.0] * 10, "B": [1.0] * 9}, 0.05)
    assert pair.decides
    assert pair.rejects(2.0) is True


@pytest.mark.parametrize(("alpha", "cases"), [(0.05, 19), (0.1, 25), (0.2, 50)])
def test_in_distribution_images_are_rejected_no_more_often_than_alpha(alpha: float, cases: int) -> None:
    rng, draws = np.random.default_rng(2), 2000
    scores = rng.gamma(2.0, size=(draws, cases + 1))
    alarms = sum(ConformalRule({"A": row[:-1].tolist()}, alpha).rejects(row[-1]) for row in scores)
    expected = math.floor(alpha * (cases + 1) + 1e-9) / (cases + 1)
    sigma = math.sqrt(expected * (1 - expected) / draws)
    assert alarms / draws <= alpha + 4 * sigma
    # For scores without ties the share is known, so that a rule that never rejects is found out.
    assert abs(alarms / draws - expected) <= 4 * sigma


def test_images_of_several_tasks_are_rejected_no_more_often_than_alpha() -> None:
    rng, draws, alpha, alarms = np.random.default_rng(3), 2000, 0.1, 0
    for number in range(draws):
        scores = {f"T{task}": rng.normal(task, 1 + task, size=12).tolist() for task in range(3)}
        task = number % 3
        alarms += bool(ConformalRule(scores, alpha).rejects(rng.normal(task, 1 + task)))
    assert alarms / draws <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / draws)
    assert alarms > 0


def test_a_patient_with_several_images_counts_once() -> None:
    scores, patients = [1.0, 2.0, 3.0, 2.5, 0.5], ["a", "a", "a", "b", "c"]
    # Two of three images of a, one of one of b, none of c.
    assert p_value(2.0, scores, patients) == pytest.approx((1 + 2 / 3 + 1) / 4)
    assert p_value(2.0, scores, [*"vwxyz"]) == p_value(2.0, scores) == pytest.approx((1 + 3) / 6)
    rule = ConformalRule({"CT": scores[:3], "MR": scores[3:]}, 0.5, {"CT": [*"aaa"], "MR": [*"bc"]})
    assert rule.p_value(2.0) == max(p_value(2.0, scores[:3], [*"aaa"]), p_value(2.0, scores[3:], [*"bc"]))
    # Twenty images of ten patients are ten patients, who are too few for 5 %.
    twice = {"CT": [float(number) for number in range(10)], "MR": [float(number) for number in range(10)]}
    names = [f"p{number}" for number in range(10)]
    assert ConformalRule(twice, 0.05).decides
    assert not ConformalRule(twice, 0.05, {"CT": names, "MR": names}).decides
    pooled = ConformalRule(twice, 0.1, {"CT": names, "MR": names[:5] + [f"q{number}" for number in range(5)]})
    assert list(pooled.groups) == ["CT", "MR"]


def test_with_several_images_a_patient_the_threshold_still_divides() -> None:
    rng, decided = np.random.default_rng(6), 0
    for _ in range(60):
        alpha, people = rng.choice(ALPHAS[1:]), rng.integers(5, 40)
        owners = {task: [f"p{who}" for who in rng.integers(0, people, 30)] for task in ("A", "B")}
        scores = {task: rng.integers(0, 20, 30).astype(float).tolist() for task in owners}
        rule = ConformalRule(scores, alpha, owners)
        decided += rule.decides
        for score in (*range(-1, 21), 7.5):
            assert rule.rejects(score) == ((score > rule.threshold) if rule.decides else None)
    assert decided > 20


def test_images_of_new_patients_are_rejected_no_more_often_than_alpha_where_patients_have_several() -> None:
    rng, draws, alpha = np.random.default_rng(7), 2000, 0.1
    alarms = by_image = 0
    for _ in range(draws):
        # One to six images a patient, much alike, and with lower scores the more there are.
        counts = rng.integers(1, 7, 16)
        levels = rng.normal(0, 1, 16) - 0.6 * counts
        images = [
            (f"p{who}", level + rng.normal(0, 0.1)) for who, level in enumerate(levels) for _ in range(counts[who])
        ]
        known = [(who, score) for who, score in images if who != "p0"]
        new = next(score for who, score in images if who == "p0")
        names, scores = [who for who, _ in known], [score for _, score in known]
        alarms += bool(ConformalRule({"A": scores}, alpha, {"A": names}).rejects(new))
        by_image += bool(ConformalRule({"A": scores}, alpha).rejects(new))
    assert 0 < alarms / draws <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / draws)
    # Counting images, many of which few patients have, would break the promise.
    assert by_image / draws > alpha + 3 * math.sqrt(alpha * (1 - alpha) / draws)


def simulated(rng: np.random.Generator, sizes: dict[str, int], tight: float = 0.0) -> dict[str, list[float]]:
    """Standard normal scores by task; those of training images may vary less, as where a network remembers them."""
    return {task: ((1 - tight) * rng.normal(size=size)).tolist() for task, size in sizes.items()}


HELD_OUT, TRAINING = {"A": 12, "B": 3, "C": 6}, {"A": 36, "B": 9, "C": 18}


@pytest.mark.parametrize("tight", [0.0, 0.15])
def test_training_images_raise_the_power_and_keep_the_promise(tight: float) -> None:
    rng, draws, alpha = np.random.default_rng(8), 1500, 0.05
    alarms, found, found_without = 0, 0, 0
    for _ in range(draws):
        held_out, training = simulated(rng, HELD_OUT), simulated(rng, TRAINING, tight)
        rule = ConformalRule(held_out, alpha, training=training)
        alarms += bool(rule.rejects(rng.normal()))
        shifted = rng.normal() + 3
        found += bool(rule.rejects(shifted))
        found_without += bool(ConformalRule(held_out, alpha).rejects(shifted))
    assert alarms / draws <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / draws)
    assert found / draws > found_without / draws + 0.03


def test_training_scores_that_are_not_corrected_would_break_the_promise() -> None:
    rng, draws, alpha, alarms = np.random.default_rng(9), 1500, 0.05, 0
    for _ in range(draws):
        together = simulated(rng, HELD_OUT), simulated(rng, TRAINING, 0.3)
        scores = {"all": [score for part in together for own in part.values() for score in own]}
        alarms += bool(ConformalRule(scores, alpha).rejects(rng.normal()))
    assert alarms / draws > alpha + 3 * math.sqrt(alpha * (1 - alpha) / draws)


def test_a_correction_by_hand_and_that_it_lowers_no_score() -> None:
    low, high = list(range(11)), list(range(0, 22, 2))
    assert correction(training=low, held_out=high) == 9
    assert correction(training=high, held_out=low) == 0
    rule = ConformalRule({"A": high}, 0.05, training={"A": low})
    assert sorted(rule.groups["all tasks"].scores) == sorted([*high, *(score + 9 for score in low)])


def test_a_rule_says_what_it_promises() -> None:
    enough = {"A": [float(n) for n in range(19)], "B": [float(n) for n in range(25)]}
    each = ConformalRule(enough, 0.05, training={"A": [0.0] * 9, "B": [0.0] * 9})
    assert (each.promise, each.exact) == ("each task", True)
    few = {"A": [float(n) for n in range(15)], "B": [float(n) for n in range(5)]}
    pooled = ConformalRule(few, 0.05)
    assert (pooled.promise, pooled.exact) == ("the mix of tasks", True)
    joined = ConformalRule(few, 0.05, training={"A": [0.0, 1.0], "B": [2.0, 3.0]})
    assert (joined.promise, joined.exact) == ("the mix of tasks", False)
    assert sum(group.patient_count for group in joined.groups.values()) == 24


def test_a_rule_of_patients_who_chose_the_checkpoint_is_not_called_exact() -> None:
    scores = {"A": [float(n) for n in range(19)]}
    apart, reused = (ConformalRule(scores, 0.05, reused=reused) for reused in (False, True))
    assert (apart.exact, reused.exact) == (True, False)
    assert apart.stated == "each task, exactly"
    assert reused.stated == "each task, approximately (the held-out patients chose the checkpoint, too)"
    assert (apart.threshold, apart.p_value(3.0)) == (reused.threshold, reused.p_value(3.0))
    assert ConformalRule({"A": [0.0]}, 0.05).stated is None
