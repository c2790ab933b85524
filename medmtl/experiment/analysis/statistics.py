"""Statistics of the comparison: intervals and tests by patient, Holm's correction, and the verdict that follows.

The unit is the patient: cases of one patient are no independent observations, and neither are the images of one
patient in several tasks. A value that is not finite is undefined and left out; a difference is undefined where either
side is, so that both arms are always compared on the same cases.

A mean over tasks weighs tasks equally, its test patients: where effects have opposite signs in tasks of different size,
the two answer different questions. A difference is called better or worse only where test and interval both show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, wilcoxon

from medmtl.bootstrap import Resamples

RESAMPLES = 10_000

# Above it the error of the normal approximation is below 0.001, and the exact distribution takes seconds.
EXACT_UP_TO = 200

# Values that differ by rounding alone are equal: a tie, or no difference.
DECIMALS = 12

Verdict = Literal["better", "worse", "no evidence", "no evidence: n too small"]


@dataclass(frozen=True)
class Estimate:
    """A mean over cases and its bootstrap interval.

    Attributes:
        mean: the mean; None where it does not exist.
        low: lower end of the interval; None where there is no interval, as of a single patient.
        high: upper end of it.
        n: number of patients.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """Statistics of paired differences.

    Attributes:
        estimate: their mean, its interval and the number of patients.
        p: two-sided p-value of the signed-rank test; None without a patient.
        rank_biserial: matched-pairs rank-biserial correlation, -1 to 1; None without a patient.
        cohen_dz: mean over standard deviation of the patients' differences; None where that deviation is 0 or unknown.
    """

    estimate: Estimate
    p: float | None
    rank_biserial: float | None
    cohen_dz: float | None


def estimate_mean(values: ArrayLike, patients: Sequence[str], tasks: Sequence[str], level: float = 0.05) -> Estimate:
    """Mean over cases, tasks weighted equally, with a bootstrap interval by patient.

    Patients are drawn as in `Resamples`, and the interval is its expanded percentile interval. No bootstrap interval
    reaches beyond the patients there are, so with two of them (50 %), three (75 %) or four (88 %) it is still too
    narrow. A patient alone in a task adds no width at all: next to a task of six, the mean over both would be covered
    in 64 % of samples (54 % where that patient is one of the six), so that there is no interval.

    Args:
        values: one a case, `(cases,)`; what is not finite is left out.
        patients: its patient, one a case.
        tasks: its task, one a case.
        level: 1 minus the coverage.

    Returns:
        The mean and its interval. There is no mean without a patient, nor where a task has no value at all, and no
        interval where a task has a single patient.
    """
    sums, counts = _by_patient(values, patients, tasks)
    n = len(sums)
    if not n or not counts.any(axis=0).all():
        return Estimate(None, None, None, n)
    mean = float(np.mean(sums.sum(0) / counts.sum(0)))
    resamples = Resamples.of(counts, RESAMPLES)
    if resamples is None:
        return Estimate(mean, None, None, n)
    totals, numbers = np.split(resamples.drawn @ np.hstack([sums, counts]), 2, axis=1)
    with np.errstate(invalid="ignore"):  # a task of which no patient was drawn: a resample without a mean
        means = np.mean(totals / numbers, axis=1)
    low, high = resamples.interval(means, level)
    return Estimate(mean, float(low), float(high), n)


def compare_paired(
    differences: ArrayLike, patients: Sequence[str], tasks: Sequence[str], level: float = 0.05
) -> Paired:
    """Mean of paired differences with its interval, a test by patient, and effect sizes.

    The mean is over cases, as of the arms themselves, so that it is the difference of their means. Test and effect
    sizes use one number a patient: the mean of the patient's cases within a task, then over the patient's tasks. So the
    mean weighs tasks equally and the test patients; `decide` calls a difference better or worse only where both agree.

    Args:
        differences: one a case, `(cases,)`; what is not finite is left out.
        patients: its patient, one a case.
        tasks: its task, one a case.
        level: 1 minus the coverage of the interval.

    Returns:
        The statistics; only `n` where `estimate_mean` gives no mean.
    """
    estimate = estimate_mean(differences, patients, tasks, level)
    if estimate.mean is None:
        return Paired(estimate, None, None, None)
    sums, counts = _by_patient(differences, patients, tasks)
    with np.errstate(invalid="ignore"):
        each = np.round(np.nanmean(sums / counts, axis=1), DECIMALS)
    p, rank_biserial = signed_rank(each)
    cohen_dz = float(np.mean(each) / np.std(each, ddof=1)) if np.ptp(each) else None
    return Paired(estimate, p, rank_biserial, cohen_dz)


def signed_rank(differences: ArrayLike) -> tuple[float, float]:
    """Wilcoxon's signed-rank test, two-sided, and its effect size.

    Differences of zero are dropped (Wilcoxon 1945) and ties share their mean rank. The p-value is exact, ties included:
    the distribution of the rank sum over all assignments of signs, by the shift algorithm (Streitberg & Röhmel 1986).
    scipy tries the assignments one by one where there are ties, up to 13 differences, and approximates above;
    surface distances, which come in steps of the voxel, are often tied. Above `EXACT_UP_TO` differences it is scipy's.

    Args:
        differences: one a patient, at least one, all finite.

    Returns:
        The p-value in (0, 1], and (W+ - W-) / (W+ + W-) in [-1, 1] (Kerby 2014). If all differences are zero: 1 and 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0, 0.0
    ranks = np.rint(2 * rankdata(np.abs(values))).astype(np.int64)  # twice, so that mean ranks are whole numbers
    positive, total = int(ranks[values > 0].sum()), int(ranks.sum())
    rank_biserial = (2 * positive - total) / total
    if len(values) > EXACT_UP_TO:
        return float(wilcoxon(values).pvalue), rank_biserial
    chance, reached = np.zeros(total + 1), 0  # of each rank sum
    chance[0] = 1
    for rank in ranks:
        chance[: reached + rank + 1] /= 2
        chance[rank : reached + rank + 1] += chance[: reached + 1].copy()
        reached += rank
    tail = min(chance[: positive + 1].sum(), chance[positive:].sum())
    return min(1.0, 2 * float(tail)), rank_biserial


def smallest_p(n: int) -> float:
    """The smallest p-value that the signed-rank test of n patients can give: 2^(1 - n), or 1 without a patient."""
    return min(1.0, 2.0 ** (1 - n))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (Holm 1979), which hold the chance of any false finding in the family at the level.

    Args:
        p_values: the family; None for a test that could not be made, which does not count.

    Returns:
        The adjusted values in [0, 1], in the same order.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = highest
    return adjusted


def smallest_holm(p_values: Sequence[float | None], sizes: Sequence[int]) -> list[float | None]:
    """For each test the smallest adjusted p-value that it could have had, the others being as they are.

    Args:
        p_values: the family, as for `holm`.
        sizes: patients of each test.

    Returns:
        Values in [0, 1], in the same order; None for a test that could not be made.
    """
    family = list(p_values)
    return [
        None if p is None else holm([*family[:index], smallest_p(n), *family[index + 1 :]])[index]
        for index, (p, n) in enumerate(zip(family, sizes, strict=True))
    ]


def patients_needed(tests: int, level: float) -> int:
    """The smallest number of patients at which one of `tests` comparisons can fall below the level by itself."""
    n = 1
    while tests * smallest_p(n) > level:
        n += 1
    return n


def decide(
    difference: float | None,
    low: float | None,
    high: float | None,
    rank_biserial: float | None,
    p_holm: float | None,
    smallest: float | None,
    better: Literal["higher", "lower"],
    level: float,
) -> Verdict:
    """The verdict of the first arm against the second.

    The p-value alone is not enough: it is about patients, while the mean over tasks is about tasks. With a true mean
    of 0, but opposite effects of one standard deviation in tasks of 5 and 20 patients, it would find one arm better in
    half of the samples; with the interval, which is about that mean, it is 3 %.

    Args:
        difference: mean of first minus second.
        low: lower end of its interval; None where there is no interval.
        high: upper end of it.
        rank_biserial: effect size of the test, of first minus second.
        p_holm: adjusted p-value; None where no test could be made.
        smallest: the smallest adjusted p-value that was possible, see `smallest_holm`.
        better: whether higher or lower values are better.
        level: of significance.

    Returns:
        `better` or `worse` where the adjusted p-value is at most the level, the interval excludes 0, and mean and ranks
        have the same sign; else `no evidence`, with the reason where the number of patients alone makes it impossible:
        no p-value could have been small enough, or there is no interval. Where values do not exist, their number is
        not the reason.
    """
    if difference is None or rank_biserial is None or p_holm is None or smallest is None:
        return "no evidence"
    if low is None or high is None or smallest > level:
        return "no evidence: n too small"
    if p_holm <= level and not low <= 0 <= high and difference * rank_biserial > 0:
        return "better" if (difference > 0) == (better == "higher") else "worse"
    return "no evidence"


def _by_patient(
    values: ArrayLike, patients: Sequence[str], tasks: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the finite values, both `(patients, tasks)`, in the order of their names."""
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    names, who = np.unique(np.asarray(patients, dtype=str)[finite], return_inverse=True)
    kinds, what = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
    sums, counts = np.zeros((2, len(names), len(kinds)))
    np.add.at(sums, (who, what[finite]), numbers[finite])
    np.add.at(counts, (who, what[finite]), 1)
    return sums, counts
