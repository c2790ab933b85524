"""Silent failure: does a high score indicate a bad segmentation?

The risk of an image is 1 - Dice. Images are accepted from the lowest score on; of images that tie, each is as likely
to come first, and the figures are expectations over that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

from medmtl.bootstrap import CaseDraws
from medmtl.errors import DataError
from medmtl.ood.metrics.resampling import Floats, Interval, bootstrap_interval

KEPT = 0.95  # share of in-distribution images that the threshold of `expected_drop` accepts


@dataclass(frozen=True)
class FailureDetection:
    """How well a score detects bad segmentations.

    Attributes:
        spearman: rank correlation of score and Dice, -1 to 1; -1 is best.
        aurc: area under the risk-coverage curve, 0 to 1; 0 is best (Geifman & El-Yaniv, arXiv 1705.08500).
        e_aurc: AURC minus that of a perfect order (Geifman et al., arXiv 1805.08206); 0 is best.
        drop: what Dice is expected to lose on images that are accepted, see `expected_drop`; lower is better.
        images: how many have a Dice.
        people: number of their patients.
    """

    spearman: Interval
    aurc: Interval
    e_aurc: Interval
    drop: Interval
    images: int
    people: int


@dataclass(frozen=True)
class Rejection:
    """The effect of rejecting the images of highest score.

    Attributes:
        rejected: images rejected.
        images: number of images.
        before: mean Dice of all.
        after: mean Dice of those accepted.
    """

    rejected: int
    images: int
    before: float
    after: float

    def __str__(self) -> str:
        """The sentence for a report."""
        share = f"{self.rejected / self.images:.0%}".replace("%", " %")
        verb = "raised" if self.after >= self.before else "lowered"
        return (
            f"rejecting the worst {share} ({self.rejected} of {self.images} images) would have {verb} mean Dice "
            f"from {self.before:.3f} to {self.after:.3f}"
        )


def failure_detection(
    scores: ArrayLike, dice: ArrayLike, patients: Sequence[str], inside: Sequence[bool]
) -> FailureDetection:
    """Figures of failure detection with expanded percentile intervals from resamples of the patients.

    Args:
        scores: higher = more out-of-distribution, `(images,)`.
        dice: 0 to 1, `(images,)`; images whose Dice is NaN, without a label, are left out.
        patients: whose image it is; the same name is the same person.
        inside: whether it is an in-distribution image as it is.

    Returns:
        The figures; None where they do not exist, as the correlation with a constant.
    """
    values, risks, labelled = _labelled(scores, dice)
    people = np.asarray(patients, dtype=str)[labelled].tolist()
    if not people:
        missing = Interval(None, None, None)
        return FailureDetection(missing, missing, missing, missing, 0, 0)
    draws = CaseDraws.of({"labelled": people})
    weights = np.ones((1, len(people)))  # the images as they are
    if draws is not None:
        weights = np.vstack([weights, draws.weights["labelled"]])
    aurc, oracle = (weighted_aurc(order, risks, weights) for order in (values, risks))
    resamples = None if draws is None else draws.of_patients
    within = np.asarray(inside, dtype=bool)[labelled]
    spearman, area, excess, drop = (
        bootstrap_interval(float(rows[0]), rows[1:], resamples)
        for rows in (
            weighted_spearman(values, -risks, weights),
            aurc,
            aurc - oracle,
            weighted_drop(values, risks, within, weights),
        )
    )
    return FailureDetection(spearman, area, excess, drop, len(people), len(set(people)))


def expected_drop(scores: ArrayLike, dice: ArrayLike, inside: Sequence[bool], kept: float = KEPT) -> float:
    """What Dice is expected to lose when an image that is not in-distribution is accepted.

    The threshold accepts 95 % of the in-distribution images. The drop of an image is the mean Dice of the
    in-distribution images less its own, 0 where it is rejected; the mean is over all images that are not
    in-distribution. An image that is segmented as well as those need not be rejected, one that is not must be. This is
    what the Expected Performance Drop of Vasiliuk et al. (arXiv 2308.07324) is made for; their exact formula was not
    at hand, so that figures need not agree with theirs.

    Args:
        scores: higher = more out-of-distribution, `(images,)`.
        dice: 0 to 1, `(images,)`; images whose Dice is NaN are left out.
        inside: whether it is an in-distribution image as it is.
        kept: share of the in-distribution images that the threshold accepts, at least.

    Returns:
        -1 to 1; NaN where there are no images of either kind.

    Example:
        >>> inside = [True, True, False, False]
        >>> round(expected_drop([0.1, 0.2, 0.15, 0.9], [0.9, 0.8, 0.25, 0.1], inside), 3)  # one of two is rejected
        0.3
    """
    values, risks, labelled = _labelled(scores, dice)
    within = np.asarray(inside, dtype=bool)[labelled]
    return float(weighted_drop(values, risks, within, np.ones((1, len(values))), kept)[0])


def weighted_drop(scores: Floats, risks: Floats, inside: np.ndarray, weights: Floats, kept: float = KEPT) -> Floats:
    """`expected_drop` for all resamples; the threshold is that of the images as they are.

    Args:
        scores: `(images,)`.
        risks: 1 - Dice, `(images,)`.
        inside: bool `(images,)`.
        weights: how often each image was drawn, `(resamples, images)`.
        kept: share of the in-distribution images that the threshold accepts, at least.

    Returns:
        `(resamples,)`; NaN where a resample has no images of either kind.
    """
    if not inside.any() or inside.all():
        return np.full(len(weights), np.nan)
    threshold = np.quantile(scores[inside], kept, method="higher")
    accepted = scores[~inside] <= threshold
    within, outside = weights[:, inside], weights[:, ~inside]
    with np.errstate(invalid="ignore", divide="ignore"):
        usual = within @ risks[inside] / within.sum(1)
        drops = np.where(accepted, risks[~inside] - usual[:, None], 0.0)
        found: Floats = (outside * drops).sum(1) / outside.sum(1)
    return found


def risk_coverage(scores: ArrayLike, dice: ArrayLike) -> tuple[Floats, Floats]:
    """The risk-coverage curve.

    Args:
        scores: higher = more out-of-distribution, `(images,)`.
        dice: 0 to 1, `(images,)`; images whose Dice is NaN are left out.

    Returns:
        Share of the images accepted, 1/n to 1, and their mean risk, both `(n,)`.
    """
    values, risks, _ = _labelled(scores, dice)
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    tied = (np.bincount(group, risks) / sizes)[np.sort(group)]
    accepted = np.arange(1, len(tied) + 1)
    return accepted / max(len(tied), 1), np.cumsum(tied) / accepted


def rejection(scores: ArrayLike, dice: ArrayLike, share: float) -> Rejection | None:
    """The effect on mean Dice of rejecting a share of the images, those of highest score.

    Args:
        scores: higher = more out-of-distribution, `(images,)`.
        dice: 0 to 1, `(images,)`; images whose Dice is NaN are left out.
        share: to reject, in (0, 1); rounded up to whole images.

    Returns:
        The means before and after; None where no image would be left.
    """
    _, risk = risk_coverage(scores, dice)
    rejected = math.ceil(share * len(risk) - 1e-9)
    if rejected >= len(risk):
        return None
    return Rejection(rejected, len(risk), float(1 - risk[-1]), float(1 - risk[-1 - rejected]))


def weighted_aurc(scores: Floats, risks: Floats, weights: Floats) -> Floats:
    """Mean over the number of accepted images of their mean risk, for all resamples.

    Of a group of W tied images of mean risk r, after N accepted ones of summed risk S, the j-th adds
    (S + j r) / (N + j) = r + (S - N r) / (N + j), so that the group adds r W + (S - N r) (H(N + W) - H(N)) with the
    harmonic numbers H.

    Args:
        scores: order of acceptance, lowest first, `(images,)`.
        risks: of each image, `(images,)`.
        weights: how often each image was drawn, whole numbers, `(resamples, images)`.

    Returns:
        `(resamples,)` in the unit of the risks.
    """
    count, risk = _by_value(scores, weights), _by_value(scores, weights * risks)
    before, risk_before = np.cumsum(count, axis=1) - count, np.cumsum(risk, axis=1) - risk
    mean = risk / np.maximum(count, 1)
    harmonic = digamma(before + count + 1) - digamma(before + 1)
    return (risk + (risk_before - before * mean) * harmonic).sum(1) / count.sum(1)


def weighted_spearman(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Spearman's rank correlation with mean ranks for ties, for all resamples.

    Args:
        first: `(images,)`.
        second: `(images,)`.
        weights: how often each image was drawn, whole numbers, `(resamples, images)`.

    Returns:
        `(resamples,)` in [-1, 1]; NaN where either is constant.
    """
    total = weights.sum(1, keepdims=True)
    deviations = []
    for values in (first, second):
        count = _by_value(values, weights)
        rank = np.cumsum(count, axis=1) - (count - 1) / 2
        deviations.append(rank[:, np.unique(values, return_inverse=True)[1]] - (total + 1) / 2)
    one, other = deviations
    spread = np.sqrt((weights * one**2).sum(1) * (weights * other**2).sum(1))
    return np.divide((weights * one * other).sum(1), spread, out=np.full(len(spread), np.nan), where=spread > 0)


def _by_value(values: Floats, weights: Floats) -> Floats:
    """Sum of the weights of images of equal value, values rising, `(resamples, distinct values)`."""
    order = np.argsort(values, kind="stable")
    first_of_each = np.unique(values[order], return_index=True)[1]
    return np.add.reduceat(weights[:, order], first_of_each, axis=1)


def _labelled(scores: ArrayLike, dice: ArrayLike) -> tuple[Floats, Floats, np.ndarray]:
    """Scores and risks of the images that have a Dice, and which these are."""
    values, accuracy = np.asarray(scores, dtype=np.float64), np.asarray(dice, dtype=np.float64)
    labelled = np.isfinite(accuracy)
    if np.isnan(values[labelled]).any():
        raise DataError("a score is not a number", fix="leave the detector out")
    return values[labelled], 1 - accuracy[labelled], labelled
