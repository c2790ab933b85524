"""Coverage of the 95 % intervals of AUROC, by simulation; `tests/benchmarks/coverage.py` has the full table."""

import numpy as np
import pytest
from scipy.stats import norm

from medmtl.ood.metrics.benchmark_table import Scored, benchmark_table

SAMPLES = 300


def sample(rng: np.random.Generator, people: int, several: bool) -> tuple[list[int], np.ndarray]:
    """Patient and score of each image; where `several`, a third of the patients have three images, much alike."""
    images = np.where(np.arange(people) < people // 3, 3, 1) if several else np.ones(people, dtype=int)
    who = np.repeat(np.arange(people), images)
    return who.tolist(), np.sqrt(0.8) * rng.normal(size=people)[who] + np.sqrt(0.2) * rng.normal(size=len(who))


@pytest.mark.parametrize("several", [False, True], ids=["one image", "several images"])
@pytest.mark.parametrize(("inside", "outside", "auroc"), [(21, 14, 0.75), (33, 9, 0.93), (21, 9, 0.98)])
def test_intervals_of_auroc_cover_it(inside: int, outside: int, auroc: float, several: bool) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(SAMPLES):
        (known, low), (other, high) = (sample(rng, people, several) for people in (inside, outside))
        groups = ["in_distribution"] * len(low) + ["far"] * len(high)
        patients = [f"in {who}" for who in known] + [f"far {who}" for who in other]
        images = Scored(groups, ["A"] * len(groups), [0] * len(groups), patients)
        scores = np.r_[low, high + np.sqrt(2) * norm.ppf(auroc)]
        found = benchmark_table(images, {"one": scores})["one"]["far"].auroc
        covered += found.low <= auroc <= found.high
    # Three standard errors of a coverage of .95 below it.
    assert covered / SAMPLES >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / SAMPLES)
