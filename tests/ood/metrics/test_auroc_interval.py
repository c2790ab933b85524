"""The interval of an AUROC against the equation that defines it, and its coverage by simulation.

`tests/benchmarks/coverage.py` has the full table, with the intervals that were tried.
"""

import numpy as np
import pytest
from scipy.stats import norm

from medmtl.ood.metrics.auroc_interval import auroc_interval, score_interval
from medmtl.ood.metrics.resampling import Interval

SAMPLES = 500


@pytest.mark.parametrize("auroc", [0.0, 0.3, 0.75, 0.98, 1.0])
@pytest.mark.parametrize(("inside", "outside"), [(21, 9), (33, 14), (4, 250)])
def test_the_observed_value_is_z_standard_errors_from_both_ends(auroc: float, inside: int, outside: int) -> None:
    low, high = score_interval(auroc, inside, outside)
    assert 0 <= low <= auroc <= high <= 1
    mean = (inside + outside) / 2 - 1
    for end in (low, high):
        if 0 < end < 1:
            # Hanley & McNeil: the chance that two images of one side are both ordered right against one of the other.
            both, shared = end / (2 - end), 2 * end**2 / (1 + end)
            variance = (end * (1 - end) + mean * (both - end**2 + shared - end**2)) / (inside * outside)
            assert abs(end - auroc) == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-4)
        else:
            assert end == auroc


def test_a_perfect_separation_has_a_width_that_shrinks_with_more_patients() -> None:
    widths = [1 - score_interval(1.0, people, people)[0] for people in (5, 10, 20, 200)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.2
    assert 0 < widths[-1] < 0.02


def test_patients_count_and_not_their_images() -> None:
    inside, outside = [f"in {who}" for who in range(21)], [f"out {who}" for who in range(9)]
    one = auroc_interval(0.93, inside, [outside])
    assert auroc_interval(0.93, inside * 3, [outside * 3]) == one
    uneven = auroc_interval(0.93, inside + inside[:7] * 2, [outside])
    assert uneven.low < one.low
    assert one.reliable
    assert not auroc_interval(0.93, inside, [outside[:5]]).reliable
    assert not auroc_interval(0.93, inside[:3], [outside]).reliable


def test_what_has_no_interval() -> None:
    assert auroc_interval(float("nan"), ["a", "b"], [["c", "d"]]) == Interval(None, None, None)
    assert auroc_interval(1.0, ["a", "b"], [["c", "c"]]) == Interval(1.0, None, None)


def sample(rng: np.random.Generator, people: int, several: bool) -> tuple[list[str], np.ndarray]:
    """Patient and score of each image; where `several`, a third of the patients have three images, much alike."""
    who = np.repeat(np.arange(people), np.where(np.arange(people) < people // 3, 3, 1) if several else 1)
    scores = np.sqrt(0.8) * rng.normal(size=people)[who] + np.sqrt(0.2) * rng.normal(size=len(who))
    return [f"p{number}" for number in who], scores


@pytest.mark.parametrize("several", [False, True], ids=["one image", "several images"])
@pytest.mark.parametrize(("inside", "outside", "auroc"), [(21, 14, 0.75), (33, 9, 0.93), (21, 9, 0.98)])
def test_intervals_cover_the_auroc(inside: int, outside: int, auroc: float, several: bool) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(SAMPLES):
        (known, low), (other, high) = (sample(rng, people, several) for people in (inside, outside))
        observed = np.mean(high[:, None] + np.sqrt(2) * norm.ppf(auroc) > low)
        found = auroc_interval(float(observed), known, [other])
        covered += found.low <= auroc <= found.high
    assert covered / SAMPLES >= 0.93
