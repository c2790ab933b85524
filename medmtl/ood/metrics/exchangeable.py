"""What the conformal rule promises, seen at work: rejections if held-out and test patients are exchangeable.

Patients are dealt to calibration and test at random many times. That makes the two exchangeable whatever the scores
are, so the rate describes the procedure and says nothing about the test images: it is the same where they all score far
above the held-out ones. False alarms are measured in `medmtl.ood.metrics.false_alarms`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medmtl.bootstrap import SEED, CaseDraws
from medmtl.ood.conformal import ConformalRule
from medmtl.ood.metrics.resampling import Interval, bootstrap_interval

PARTITIONS = 200


@dataclass(frozen=True)
class RateIfExchangeable:
    """How often in-distribution images are rejected if their patients are exchangeable with the calibration patients.

    Attributes:
        rate: mean over the partitions, with a bootstrap interval by patient; None where the rule could not decide.
        tasks: the same of the images of each task alone, whose rate a common threshold does not bound; None where no
            image of the task was tested.
        decided: partitions in which there were enough calibration patients to decide.
    """

    rate: Interval
    tasks: Mapping[str, float | None]
    decided: int


def rate_if_exchangeable(
    scores: ArrayLike,
    tasks: Sequence[str],
    patients: Sequence[str],
    alpha: float,
    share: float = 0.5,
    partitions: int = PARTITIONS,
) -> RateIfExchangeable:
    """Rate of rejection by the conformal rule over re-partitions by patient, from scores alone.

    Patients are divided at random, not by task. A patient counts once in a partition's rate, with the share of the
    images that were rejected, as in the rule. For the interval patients are drawn with replacement, each with the
    decisions of all partitions in which it was a test patient.

    Args:
        scores: of held-out in-distribution images, validation and test, `(images,)`; higher = more
            out-of-distribution. Nothing may have been fitted to any of them.
        tasks: of which task, one an image.
        patients: whose image it is; the same name is the same person in all tasks.
        alpha: share of in-distribution images that may be rejected, in (0, 1).
        share: of the patients in the calibration part, in (0, 1).
        partitions: how many.

    Returns:
        The rate, its interval, and the rate of each task.
    """
    values = np.asarray(scores, dtype=np.float64)
    kinds = np.asarray(tasks, dtype=str)
    names, who = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    # Images of a patient, of all tasks and of each.
    sets = {"": np.ones(len(values), dtype=bool), **{task: kinds == task for task in dict.fromkeys(tasks)}}
    rejected = {name: np.zeros(len(names)) for name in sets}
    tested = {name: np.zeros(len(names)) for name in sets}
    generator, decided = np.random.default_rng(SEED), 0
    for _ in range(partitions):
        calibrates = np.zeros(len(names), dtype=bool)
        calibrates[generator.permutation(len(names))[: round(share * len(names))]] = True
        known = calibrates[who]
        held = {task: np.flatnonzero(known & (kinds == task)) for task in np.unique(kinds).tolist()}
        rule = ConformalRule(
            {task: values[where].tolist() for task, where in held.items()},
            alpha,
            {task: names[who[where]].tolist() for task, where in held.items()},
        )
        if rule.decides and not known.all():
            decided += 1
            for name, chosen in sets.items():
                test = np.flatnonzero(~known & chosen)
                images = np.bincount(who[test], minlength=len(names))
                rejected[name] += np.bincount(who[test], values[test] > rule.threshold, len(names)) / np.maximum(
                    images, 1
                )
                tested[name] += images > 0
    rates = {name: float(rejected[name].sum() / tested[name].sum()) if tested[name].any() else None for name in sets}
    overall = rates.pop("")
    draws = CaseDraws.of({"": names.tolist()})
    if overall is None or draws is None:
        return RateIfExchangeable(Interval(None, None, None), rates, decided)
    drawn = draws.weights[""] @ tested[""]
    of_resamples = np.divide(draws.weights[""] @ rejected[""], drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)
    return RateIfExchangeable(bootstrap_interval(overall, of_resamples, draws.of_patients), rates, decided)
