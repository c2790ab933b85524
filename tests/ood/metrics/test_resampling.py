"""Weighted figures against scikit-learn on the images repeated as often as they were drawn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medmtl.ood.metrics.detection import detection_metrics
from medmtl.ood.metrics.resampling import (
    Interval,
    interval,
    patient_weights,
    weighted_auroc,
    weighted_fpr_at_95_in_kept,
)


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_a_resample_are_those_of_the_images_repeated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 60, 2)
    inside, outside = rng.normal(0, 1, n), rng.normal(1, 1, m)
    if seed % 2:  # many ties
        inside, outside = np.round(inside), np.round(outside)
    draws = [rng.multinomial(size, np.full(size, 1 / size), 40).astype(float) for size in (n, m)]
    aurocs, fprs = weighted_auroc(inside, outside, *draws), weighted_fpr_at_95_in_kept(inside, outside, *draws)
    for row, (kept, found) in enumerate(zip(*draws, strict=True)):
        repeated = np.repeat(inside, kept.astype(int)), np.repeat(outside, found.astype(int))
        foreign = np.repeat([0, 1], [len(repeated[0]), len(repeated[1])])
        assert aurocs[row] == pytest.approx(roc_auc_score(foreign, np.concatenate(repeated)), abs=1e-12)
        assert fprs[row] == pytest.approx(detection_metrics(*repeated)["fpr_at_95_in_kept"], abs=1e-12)


def test_a_side_that_was_not_drawn_has_no_figure() -> None:
    scores, none, all_of = np.array([1.0, 2.0]), np.zeros((1, 2)), np.ones((1, 2))
    for figure in (weighted_auroc, weighted_fpr_at_95_in_kept):
        assert np.isnan(figure(scores, scores, none, all_of)).all()
        assert np.isnan(figure(scores, scores, all_of, none)).all()
        assert np.isfinite(figure(scores, scores, all_of, all_of)).all()


def test_patients_are_drawn_with_all_their_images_and_each_side_keeps_its_number() -> None:
    patients = ["a", "b", "c", "a", "b", "c", "x", "y", "y"]
    sides = ["in_distribution"] * 6 + ["far"] * 3
    weights = patient_weights(patients, sides, resamples=500)
    assert weights.shape == (500, 9)
    assert np.array_equal(weights, np.round(weights))
    assert np.array_equal(weights[:, :3], weights[:, 3:6])
    assert np.array_equal(weights[:, 7], weights[:, 8])
    assert (weights[:, :3].sum(1) == 3).all()
    assert (weights[:, 6] + weights[:, 7] == 2).all()
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.2)
    assert np.array_equal(weights, patient_weights(patients, sides, resamples=500))
    assert patient_weights(patients, sides).shape == (2000, 9)


def test_an_interval_leaves_out_resamples_without_a_figure() -> None:
    draws = np.r_[np.linspace(0, 1, 1001), np.full(50, np.nan)]
    found = interval(0.4, draws)
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.025, 0.975))
    assert interval(float("nan"), draws) == Interval(None, None, None)
    assert interval(0.4, [np.nan]) == Interval(0.4, None, None)
