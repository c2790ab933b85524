"""Bootstrap by patient, and figures of detection that are computed for all resamples at once.

A resample is a weight for every image: how often its patient was drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
SEED = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure and its bootstrap interval.

    Attributes:
        value: the figure; None where it does not exist.
        low: lower end of the 95 % percentile interval; None where there is none, as for a single patient.
        high: upper end of it.
    """

    value: float | None
    low: float | None
    high: float | None


def interval(value: float, draws: ArrayLike) -> Interval:
    """The 95 % percentile interval of a figure.

    Args:
        value: the figure; NaN = does not exist.
        draws: the figure of each resample, `(resamples,)`; those in which it does not exist are NaN and left out.
    """
    found = np.asarray(draws, dtype=np.float64)
    found = found[np.isfinite(found)]
    if not np.isfinite(value):
        return Interval(None, None, None)
    if not found.size:
        return Interval(float(value), None, None)
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(float(value), float(low), float(high))


def patient_weights(patients: Sequence[str], sides: Sequence[str], resamples: int = RESAMPLES) -> Floats:
    """Draw patients with replacement, with all their images; each side keeps its number of patients.

    Args:
        patients: whose image it is, one an image; the same name is the same person.
        sides: what to draw within, such as in-distribution and OOD, one an image; a patient of several sides is drawn
            within the first, together on all.
        resamples: how many.

    Returns:
        How often each image was drawn, whole numbers, `(resamples, images)`.
    """
    names, first, who = np.unique(np.asarray(patients, dtype=str), return_index=True, return_inverse=True)
    side = np.asarray(sides, dtype=str)[first]
    generator = np.random.default_rng(SEED)
    counts = np.zeros((resamples, len(names)))
    for found in np.unique(side):
        members = np.flatnonzero(side == found)
        counts[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    return counts[:, who]


def weighted_auroc(inside: Floats, outside: Floats, inside_weights: Floats, outside_weights: Floats) -> Floats:
    """AUROC of weighted images, for all resamples; ties count one half.

    Args:
        inside: scores of in-distribution images, `(n,)`.
        outside: scores of OOD images, `(m,)`.
        inside_weights: how often each was drawn, `(resamples, n)`.
        outside_weights: the same of the OOD images, `(resamples, m)`.

    Returns:
        `(resamples,)`; NaN where a side was not drawn.
    """
    ordered, below = _cumulated(outside, outside_weights)
    up_to, before = (np.searchsorted(ordered, inside, side) for side in ("right", "left"))
    above = below[:, -1:] - (below[:, up_to] + below[:, before]) / 2
    with np.errstate(invalid="ignore"):
        return (inside_weights * above).sum(1) / (inside_weights.sum(1) * below[:, -1])


def weighted_fpr_at_95_in_kept(
    inside: Floats, outside: Floats, inside_weights: Floats, outside_weights: Floats
) -> Floats:
    """`fpr_at_95_in_kept` of `detection_metrics` with weighted images, for all resamples; as `weighted_auroc`."""
    kept_up_to, kept = _cumulated(inside, inside_weights)
    # Whole numbers on both sides, without rounding.
    first = np.argmax(100 * kept[:, 1:] >= 95 * kept[:, -1:], axis=1)
    ordered, below = _cumulated(outside, outside_weights)
    places = np.searchsorted(ordered, kept_up_to, "right")[first]
    with np.errstate(invalid="ignore"):
        share = below[np.arange(len(below)), places] / below[:, -1]
    return np.where(kept[:, -1] > 0, share, np.nan)


def _cumulated(scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The scores in rising order, and the weight of the k lowest for k from 0 on, `(resamples, scores + 1)`."""
    order = np.argsort(scores, kind="stable")
    return scores[order], np.pad(np.cumsum(weights[:, order], axis=1), [(0, 0), (1, 0)])
