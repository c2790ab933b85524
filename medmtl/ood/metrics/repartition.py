"""False-alarm rate of the conformal rule, over many partitions of held-out images into calibration and test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medmtl.ood.conformal import ConformalRule
from medmtl.ood.metrics.resampling import SEED, Interval, interval, patient_weights

PARTITIONS = 200


@dataclass(frozen=True)
class FalseAlarms:
    """How often in-distribution images were rejected.

    Attributes:
        rate: mean over the partitions, with a bootstrap interval by patient; None where the rule could not decide.
        decided: partitions in which there were enough calibration patients to decide.
    """

    rate: Interval
    decided: int


def false_alarms(
    scores: ArrayLike,
    tasks: Sequence[str],
    patients: Sequence[str],
    alpha: float,
    share: float = 0.5,
    partitions: int = PARTITIONS,
) -> FalseAlarms:
    """False-alarm rate of the conformal rule over re-partitions by patient, from scores alone.

    Patients are divided at random, not by task, so that calibration and test patients are exchangeable, as the guarantee
    requires. A patient counts once in a partition's rate, with the share of the images that were rejected, as in the
    rule. For the interval test patients are drawn with replacement, each with the decisions of all partitions in which
    it was one.

    Args:
        scores: of held-out in-distribution images, validation and test, `(images,)`; higher = more
            out-of-distribution. Nothing may have been fitted to any of them.
        tasks: of which task, one an image.
        patients: whose image it is; the same name is the same person in all tasks.
        alpha: share of in-distribution images that may be rejected, in (0, 1).
        share: of the patients in the calibration part, in (0, 1).
        partitions: how many.

    Returns:
        The rate and its interval.
    """
    values = np.asarray(scores, dtype=np.float64)
    kinds = np.asarray(tasks, dtype=str)
    names, who = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    generator = np.random.default_rng(SEED)
    rejected, tested, decided = np.zeros(len(names)), np.zeros(len(names)), 0
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
            test = np.flatnonzero(~known)
            alarms = np.bincount(who[test], values[test] > rule.threshold, len(names))
            rejected += alarms / np.maximum(np.bincount(who[test], minlength=len(names)), 1)
            tested += ~calibrates
    if not decided:
        return FalseAlarms(Interval(None, None, None), 0)
    weights = patient_weights(names.tolist(), ["in_distribution"] * len(names))
    drawn = weights @ tested
    rates = np.divide(weights @ rejected, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)
    return FalseAlarms(interval(float(rejected.sum() / tested.sum()), rates), decided)
