"""Detection figures against scikit-learn and against brute force over every threshold."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medmtl.ood.metrics.detection import detection_metrics

KEYS = {"auroc", "aupr_out", "fpr_at_95_in_kept", "fpr_at_95_out_found"}


def random_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets of 1 to 130 scores; for odd seeds with many ties, for every third seed with 95 % a whole number."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 131, 2) if seed % 3 else 20 * rng.integers(1, 7, 2)
    inside, outside = rng.normal(0, 1, sizes[0]), rng.normal(1.5, 1, sizes[1])
    return (np.round(inside * 2), np.round(outside * 2)) if seed % 2 else (inside, outside)


def share_of_outside_accepted(inside: np.ndarray, outside: np.ndarray) -> float:
    """At the lowest threshold that keeps 95 % of the inside cases."""
    keeping = [t for t in np.unique(np.r_[inside, outside]) if 100 * np.sum(inside <= t) >= 95 * len(inside)]
    return float(np.mean(outside <= min(keeping)))


def share_of_inside_rejected(inside: np.ndarray, outside: np.ndarray) -> float:
    """At the highest threshold that finds 95 % of the outside cases."""
    finding = [t for t in np.unique(np.r_[inside, outside]) if 100 * np.sum(outside >= t) >= 95 * len(outside)]
    return float(np.mean(inside >= max(finding)))


@pytest.mark.parametrize("seed", range(60))
def test_auroc_and_aupr_are_those_of_scikit_learn(seed: int) -> None:
    inside, outside = random_scores(seed)
    found = detection_metrics(inside, outside)
    foreign, scores = np.repeat([0, 1], [len(inside), len(outside)]), np.r_[inside, outside]
    assert found["auroc"] == pytest.approx(roc_auc_score(foreign, scores))
    assert found["aupr_out"] == pytest.approx(average_precision_score(foreign, scores))
    wins = (outside[:, None] > inside).mean() + (outside[:, None] == inside).mean() / 2
    assert found["auroc"] == pytest.approx(wins)


@pytest.mark.parametrize("seed", range(60))
def test_both_kinds_of_fpr95_are_those_of_a_search_over_all_thresholds(seed: int) -> None:
    inside, outside = random_scores(seed)
    found = detection_metrics(inside, outside)
    assert found["fpr_at_95_in_kept"] == pytest.approx(share_of_outside_accepted(inside, outside))
    assert found["fpr_at_95_out_found"] == pytest.approx(share_of_inside_rejected(inside, outside))


@pytest.mark.parametrize("count", [20, 40, 60, 100])
def test_a_threshold_that_finds_exactly_95_percent_of_the_outside_cases_is_enough(count: int) -> None:
    outside = np.repeat([0.0, 5.0], [count // 20, count - count // 20])
    assert detection_metrics(np.linspace(1, 2, 10), outside)["fpr_at_95_out_found"] == 0


def test_the_two_kinds_of_fpr95_by_hand() -> None:
    inside = np.arange(100.0)
    # 95 of 100 are kept up to 94; 50 of the 59 outside cases do not lie above it.
    outside = np.r_[np.linspace(45, 94, 50), np.linspace(200, 300, 9)]
    found = detection_metrics(inside, outside)
    assert found["fpr_at_95_in_kept"] == pytest.approx(50 / 59)
    # 57 of 59 are the fewest that make 95 %: from 47 on, where 53 inside cases lie.
    assert found["fpr_at_95_out_found"] == pytest.approx(53 / 100)


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [
        ([1], [2], {"auroc": 1, "aupr_out": 1, "fpr_at_95_in_kept": 0, "fpr_at_95_out_found": 0}),
        ([2], [1], {"auroc": 0, "aupr_out": 0.5, "fpr_at_95_in_kept": 1, "fpr_at_95_out_found": 1}),
        ([1], [1], {"auroc": 0.5, "aupr_out": 0.5, "fpr_at_95_in_kept": 1, "fpr_at_95_out_found": 1}),
        ([1, 1, 1], [1], {"auroc": 0.5, "aupr_out": 0.25, "fpr_at_95_in_kept": 1, "fpr_at_95_out_found": 1}),
        ([0, 1], [1, 2], {"auroc": 0.875, "aupr_out": 5 / 6, "fpr_at_95_in_kept": 0.5, "fpr_at_95_out_found": 0.5}),
    ],
)
def test_tiny_sets_by_hand(inside: list[float], outside: list[float], expected: dict[str, float]) -> None:
    assert detection_metrics(inside, outside) == pytest.approx(expected)


def test_reversing_the_score_reverses_the_auroc() -> None:
    inside, outside = random_scores(3)
    one, other = detection_metrics(inside, outside), detection_metrics(-inside, -outside)
    assert one["auroc"] + other["auroc"] == pytest.approx(1)


def test_an_empty_side_gives_nan() -> None:
    for inside, outside in (([], [1.0]), ([1.0], []), ([], [])):
        found = detection_metrics(inside, outside)
        assert set(found) == KEYS
        assert all(np.isnan(value) for value in found.values())
