"""Bootstrap by patient: the resampled patients, and the interval from the resampled values.

The unit is the patient: the cases of one patient are not independent, and neither are the images of one patient in
several tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm, t

SEED = 0
RESAMPLES = 2_000

# With fewer degrees of freedom intervals are too narrow: those of 2, 3, 4 and 5 patients cover the mean of normal
# values in 50, 75, 88 and 93 % of samples instead of 95 %, and no signed-rank test of theirs can fall to 0.05.
RELIABLE_FREEDOM = 5


@dataclass(frozen=True, eq=False)
class Resamples:
    """Patients drawn with replacement, each with all its cases.

    Tasks that share patients form a group, and resampling is stratified by group, so that every resample has cases of
    every group.

    Attributes:
        drawn: number of draws of each patient, `(resamples, patients)` float64; each row adds up to `patients`.
        freedom: degrees of freedom, patients less groups.

    Example:
        >>> dice = np.array([0.80, 0.82, 0.91, 0.74, 0.88, 0.85])  # of six patients with one case each
        >>> resamples = Resamples.of(np.ones((6, 1)), resamples=2000)
        >>> means = resamples.drawn @ dice / 6
        >>> resamples.interval(means).round(2).tolist(), resamples.reliable
        ([0.77, 0.89], True)
    """

    drawn: NDArray[np.float64]
    freedom: int

    @classmethod
    def of(cls, counts: NDArray[np.float64], resamples: int) -> "Resamples | None":
        """Draw, deterministically for the same arguments.

        Args:
            counts: cases of each patient in each task, `(patients, tasks)`, with no row of zeros.
            resamples: number of resamples.

        Returns:
            The draws; None if a task has fewer than two patients, whose spread cannot be estimated.
        """
        if not counts.size or np.count_nonzero(counts, axis=0).min() < 2:
            return None
        groups, group_of_task = connected_components(counts.T @ counts, directed=False)
        group = group_of_task[counts.argmax(axis=1)]
        place = np.empty(len(counts), dtype=np.int64)
        place[np.argsort(group, kind="stable")] = np.arange(len(counts))
        drawn = _draws(tuple(np.bincount(group).tolist()), resamples)[:, place]
        return cls(drawn, len(counts) - int(groups))

    @property
    def reliable(self) -> bool:
        """Whether there are enough patients for a coverage near the nominal one."""
        return self.freedom >= RELIABLE_FREEDOM

    def interval(self, values: NDArray[np.float64], level: float = 0.05) -> NDArray[np.float64]:
        """The expanded percentile interval (Hesterberg 2015, Am. Stat. 69(4)).

        Its ends are the quantiles at Phi(-sqrt(n / (n - g)) t) and 1 less that instead of level / 2, for n patients in
        g groups, with t the quantile of Student's t of n - g degrees of freedom. The plain percentile interval is too
        narrow for few patients: for five normal values it covers the mean in 84 % of samples, this one in 93 %.

        Args:
            values: of each resample, `(resamples, ...)`; NaN for a resample without a value, which is left out.
            level: 1 minus the coverage.

        Returns:
            Lower and upper end, `(2, ...)`.
        """
        tail = norm.cdf(np.sqrt(self.drawn.shape[1] / self.freedom) * t.ppf(level / 2, self.freedom))
        ends: NDArray[np.float64] = np.nanquantile(values, [tail, 1 - tail], axis=0)
        return ends


@dataclass(frozen=True, eq=False)
class CaseDraws:
    """How often resamples of patients draw each case.

    A task may be any set of cases with a mean of its own, such as the in-distribution or the OOD images.

    Attributes:
        of_patients: the resamples.
        weights: task -> draws of each of its cases, `(resamples, cases)`.
    """

    of_patients: Resamples
    weights: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, patients: Mapping[str, Sequence[str]]) -> "CaseDraws | None":
        """Draw patients with all their cases of all tasks.

        Args:
            patients: task -> patient of each case. One name is one person, in all tasks.

        Returns:
            The draws; None where a task has fewer than two patients.
        """
        names = sorted({name for cases in patients.values() for name in cases})
        row = {name: index for index, name in enumerate(names)}
        whose = {task: np.array([row[name] for name in cases], dtype=np.int64) for task, cases in patients.items()}
        counts = [np.bincount(rows, minlength=len(names)) for rows in whose.values()]
        drawn = Resamples.of(np.array(counts, dtype=np.float64).T, RESAMPLES)
        return None if drawn is None else cls(drawn, {task: drawn.drawn[:, rows] for task, rows in whose.items()})


@lru_cache(maxsize=4)
def _draws(sizes: tuple[int, ...], resamples: int) -> NDArray[np.float64]:
    """Number of draws of each patient, `(resamples, patients)`, with replacement within groups of these sizes."""
    generator = np.random.default_rng(SEED)
    drawn = [generator.multinomial(size, np.full(size, 1 / size), resamples) for size in sizes]
    return np.concatenate(drawn, axis=1).astype(np.float64)
