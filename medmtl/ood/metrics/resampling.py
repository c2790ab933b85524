"""A figure with its interval, and AUROC for all resamples of the patients at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmtl.bootstrap import Resamples

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval.

    Attributes:
        value: the figure; None where it does not exist.
        low: lower end of the interval; None where there is none, as for a single patient.
        high: upper end of it.
        reliable: whether there are enough patients on every side for a coverage near 95 %, see `RELIABLE_FREEDOM`.
    """

    value: float | None
    low: float | None
    high: float | None
    reliable: bool = False


def bootstrap_interval(value: float, draws: Floats, resamples: Resamples | None) -> Interval:
    """A figure and the expanded percentile interval of its values on resampled patients, see `Resamples.interval`.

    Args:
        value: the figure; NaN = does not exist.
        draws: the figure of each resample, `(resamples,)`; those in which it does not exist are NaN and left out.
        resamples: of the patients; None where there are too few.
    """
    if not np.isfinite(value):
        return Interval(None, None, None)
    if resamples is None or not np.isfinite(draws).any():
        return Interval(float(value), None, None)
    low, high = resamples.interval(draws)
    return Interval(float(value), float(low), float(high), resamples.reliable)


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
    order = np.argsort(outside, kind="stable")
    ordered = outside[order]
    # Weight of the k lowest for k from 0 on.
    below = np.pad(np.cumsum(outside_weights[:, order], axis=1), [(0, 0), (1, 0)])
    up_to, before = (np.searchsorted(ordered, inside, side) for side in ("right", "left"))
    above = below[:, -1:] - (below[:, up_to] + below[:, before]) / 2
    with np.errstate(invalid="ignore"):
        return (inside_weights * above).sum(1) / (inside_weights.sum(1) * below[:, -1])
