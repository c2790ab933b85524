"""AUROC of resamples against scikit-learn on the images repeated as often as they were drawn, and intervals of them."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medmtl.bootstrap import Resamples
from medmtl.ood.metrics.resampling import Interval, bootstrap_interval, weighted_auroc


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_a_resample_are_those_of_the_images_repeated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 60, 2)
    inside, outside = rng.normal(0, 1, n), rng.normal(1, 1, m)
    if seed % 2:  # many ties
        inside, outside = np.round(inside), np.round(outside)
    draws = [rng.multinomial(size, np.full(size, 1 / size), 40).astype(float) for size in (n, m)]
    aurocs = weighted_auroc(inside, outside, *draws)
    for row, (kept, found) in enumerate(zip(*draws, strict=True)):
        repeated = np.repeat(inside, kept.astype(int)), np.repeat(outside, found.astype(int))
        is_ood = np.repeat([0, 1], [len(repeated[0]), len(repeated[1])])
        assert aurocs[row] == pytest.approx(roc_auc_score(is_ood, np.concatenate(repeated)), abs=1e-12)


def test_a_side_that_was_not_drawn_has_no_figure() -> None:
    scores, none, all_of = np.array([1.0, 2.0]), np.zeros((1, 2)), np.ones((1, 2))
    assert np.isnan(weighted_auroc(scores, scores, none, all_of)).all()
    assert np.isnan(weighted_auroc(scores, scores, all_of, none)).all()
    assert np.isfinite(weighted_auroc(scores, scores, all_of, all_of)).all()


@pytest.mark.parametrize(("patients", "reliable"), [(5, False), (6, True)])
def test_an_interval_is_that_of_the_package_s_bootstrap(patients: int, reliable: bool) -> None:
    resamples = Resamples.of(np.ones((patients, 1)), 1000)
    assert resamples is not None
    draws = np.random.default_rng(0).normal(size=1000)
    draws[::7] = np.nan  # resamples without a figure are left out
    low, high = resamples.interval(draws)
    assert bootstrap_interval(0.4, draws, resamples) == Interval(0.4, low, high, reliable)
    assert high - low > np.ptp(np.nanquantile(draws, (0.025, 0.975)))
    assert bootstrap_interval(float("nan"), draws, resamples) == Interval(None, None, None)
    assert bootstrap_interval(0.4, np.full(1000, np.nan), resamples) == Interval(0.4, None, None)
    assert bootstrap_interval(0.4, draws, None) == Interval(0.4, None, None)
