"""The 95 % interval of an AUROC, by patient.

A bootstrap of few OOD patients is too narrow, and has no width at all where every OOD image scores higher than every
in-distribution one: of 21 in-distribution and 9 OOD patients the percentile bootstrap covers an AUROC of .93 in 86 % of
samples and one of .98 in 71 %, DeLong's interval of its logit in 96 and 69 %. A score interval asks which AUROC the
observed one is compatible with; Newcombe's method 5 (2006, Stat. Med. 25:559-573) covers both in 97 %.
`tests/benchmarks/coverage.py` has the table.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import norm

from medmtl.bootstrap import RELIABLE_FREEDOM
from medmtl.ood.metrics.resampling import Interval

# Smallest distance of a root from 0 and 1, which solve the equation for any numbers of patients.
MARGIN = 1e-9


def auroc_interval(
    auroc: float, inside: Sequence[str], parts: Sequence[Sequence[str]], shares: ArrayLike = (1.0,)
) -> Interval:
    """An AUROC, or a mean of several against the same in-distribution images, and its interval.

    For the mean, parts count with their shares. Its variance is taken as that of one AUROC of this height, which is
    never less: the variance is a concave function of the AUROC. That in-distribution and OOD images are partly of the
    same patients, as with shifted images, is not used; it makes the interval too wide rather than too narrow.

    Args:
        auroc: in [0, 1]; NaN = does not exist.
        inside: patient of each in-distribution image.
        parts: for each AUROC that the mean is over, patient of each OOD image.
        shares: weight of each of them, adding up to 1.

    Returns:
        The figure. There is no interval where a side has a single patient, whose spread is unknown.
    """
    if not np.isfinite(auroc):
        return Interval(None, None, None)
    fewest = min(len(set(side)) for side in (inside, *parts))
    if fewest < 2:
        return Interval(float(auroc), None, None)
    weights = np.repeat(np.asarray(shares, dtype=np.float64) / [len(part) for part in parts], [len(p) for p in parts])
    outside = effective_patients([patient for part in parts for patient in part], weights)
    low, high = score_interval(auroc, effective_patients(inside, np.ones(len(inside))), outside)
    return Interval(float(auroc), low, high, fewest - 1 >= RELIABLE_FREEDOM)


def effective_patients(patients: Sequence[str], weights: ArrayLike) -> float:
    """How many patients with one image each say as much as these: (sum w)^2 / sum w^2 (Kish 1965).

    A patient's weight w is that of all images together, as if they were one: images of one patient are alike.

    Args:
        patients: of each image.
        weights: of each image in the mean, `(images,)`.

    Example:
        >>> effective_patients(["ann", "bob", "cid"], [1, 1, 1]), effective_patients(["ann", "bob", "bob"], [1, 1, 1])
        (3.0, 1.8)
    """
    whose = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    each = np.bincount(whose, np.asarray(weights, dtype=np.float64))
    return float(each.sum() ** 2 / (each**2).sum())


def score_interval(auroc: float, inside: float, outside: float, level: float = 0.05) -> tuple[float, float]:
    """Newcombe's method 5: the AUROCs from which the observed one is not further than z standard errors.

    The variance of an AUROC A of m and n patients is that of exponential scores (Hanley & McNeil 1982), with both
    numbers replaced by their mean where they weigh its two parts:
    A (1 - A) (1 + N ((1 - A) / (2 - A) + A / (1 + A))) / (m n), N = (m + n) / 2 - 1.

    Args:
        auroc: observed, in [0, 1].
        inside: number of in-distribution patients.
        outside: number of OOD patients.
        level: 1 minus the coverage.

    Returns:
        Lower and upper end.

    Example:
        >>> [round(end, 3) for end in score_interval(1.0, 21, 9)]
        [0.841, 1.0]
    """
    z, mean = norm.ppf(1 - level / 2), (inside + outside) / 2 - 1

    def beyond(value: float) -> float:
        spread = 1 + mean * ((1 - value) / (2 - value) + value / (1 + value))
        return float((value - auroc) ** 2 - z**2 * value * (1 - value) * spread / (inside * outside))

    low = 0.0 if auroc <= MARGIN else brentq(beyond, 0.0, min(auroc, 1 - MARGIN))
    high = 1.0 if auroc >= 1 - MARGIN else brentq(beyond, max(auroc, MARGIN), 1.0)
    return float(low), float(high)
