"""Detection figures against brute force over all pairs and every threshold."""

import numpy as np
import pytest

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


def average_precision(inside: np.ndarray, outside: np.ndarray) -> float:
    """Sum over thresholds, from the highest, of the precision times the gain in recall."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted({*inside, *outside}, reverse=True):
        found, alarms = np.sum(outside >= threshold), np.sum(inside >= threshold)
        recall = found / len(outside)
        total += (recall - recall_before) * found / (found + alarms)
        recall_before = recall
    return total


@pytest.mark.parametrize("seed", range(6))  # with and without ties, with and without 95 % being a whole number
def test_all_figures_are_those_of_pairs_and_of_a_search_over_all_thresholds(seed: int) -> None:
    inside, outside = random_scores(seed)
    found = detection_metrics(inside, outside)
    pairs = (outside[:, None] > inside).mean() + (outside[:, None] == inside).mean() / 2
    assert found["auroc"] == pytest.approx(pairs)
    assert found["aupr_out"] == pytest.approx(average_precision(inside, outside))
    assert found["fpr_at_95_in_kept"] == pytest.approx(share_of_outside_accepted(inside, outside))
    assert found["fpr_at_95_out_found"] == pytest.approx(share_of_inside_rejected(inside, outside))


@pytest.mark.parametrize("count", [20, 100])
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


def test_an_empty_side_gives_nan() -> None:
    for inside, outside in (([], [1.0]), ([1.0], []), ([], [])):
        found = detection_metrics(inside, outside)
        assert set(found) == KEYS
        assert all(np.isnan(value) for value in found.values())
