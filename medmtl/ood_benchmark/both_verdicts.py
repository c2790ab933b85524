"""Both verdicts of the run on the images of a benchmark, as `medmtl predict` gives them, and how often they are right.

Detectors rank images; a user sees two verdicts, on the image and on the mask, each at its threshold. Here they are
compared with what they are for: images of other organs, and masks that are wrong.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.mask_rule import MaskRule
from medmtl.ood.metrics.auroc_interval import auroc_interval
from medmtl.ood.metrics.detection import detection_metrics
from medmtl.ood.metrics.false_alarms import flagged_people
from medmtl.ood_benchmark.images import Image
from medmtl.results.benchmark import Record
from medmtl.results.both_verdicts import BothVerdicts

FLIP = "flip_disagreement"


def verdicts_of(
    image: Image, evidence: Evidence, nearest_task: str, dice: float | None, rule: MaskRule
) -> BothVerdicts | None:
    """The verdict on the mask of an image; that on the image itself is added by `with_verdicts`.

    Args:
        image: of the benchmark, not a calibration image.
        evidence: with the view chosen of the task that it is taken for.
        nearest_task: that task.
        dice: of the mask under the image's own preprocessing; None without a label.
        rule: of the run.

    Returns:
        None where the mask was not described.
    """
    view, task = evidence.view, nearest_task
    if image.own is not None and dice is not None:  # the mask that was measured
        view = next(each for each in evidence.views if each.preprocessing == str(image.own))
        task = image.task
    if view.shape is None:
        return None
    volume = view.shape.get("volume_ml", 0.0)
    verdict = rule(task, volume, view.outputs.get(FLIP))
    known = dice is not None and not math.isnan(dice)
    return BothVerdicts(
        group=image.group,
        condition=image.condition,
        severity=image.severity,
        task=image.task,
        case=image.case.name,
        patient=image.case.patient,
        nearest_task=nearest_task,
        volume_ml=volume,
        p_value=None,
        rejected=None,
        disagreement=verdict.disagreement,
        mask_p_value=verdict.p_value,
        mask_reliable=verdict.reliable,
        dice=dice,
        acceptable=bool(dice >= rule.bar(image.task)) if known and dice is not None else None,
    )


def with_verdicts(verdicts: Sequence[BothVerdicts], records: Sequence[Record]) -> list[BothVerdicts]:
    """The same with the verdicts on the images themselves.

    Args:
        verdicts: masks.
        records: of the deciding detector.
    """
    of = {_key(record): record for record in records}
    both = []
    for each in verdicts:
        found = of[_key(each)]
        reliable = None if found.rejected and each.mask_reliable else each.mask_reliable  # as `MaskRule` has it
        both.append(replace(each, p_value=found.p_value, rejected=found.rejected, mask_reliable=reliable))
    return both


def verdict_summary(verdicts: Sequence[BothVerdicts], rule: MaskRule) -> dict[str, Any]:
    """What the two verdicts find, for `ood.json`.

    Returns:
        `groups`: for each kind of image, and each severity of covariate shifts, how many there are and how many of them
        are flagged by the image's verdict, the mask's and either, with the mean Dice of those that are flagged by
        neither; `wrong_masks` and `acceptable_masks`: the same of masks below and above the bar, by image and by
        patient; `auroc`: how well the disagreement tells wrong masks, with its score interval by patient;
        `threshold` of the disagreement; `bars` of Dice by task; `missed`: images of other organs and wrong masks that
        neither verdict flags, by name.
    """
    groups: dict[str, list[BothVerdicts]] = {}
    for each in verdicts:
        severity = f", severity {each.severity}" if each.group == "covariate" and each.severity else ""
        groups.setdefault(f"{each.group}{severity}", []).append(each)
    wrong = [each for each in verdicts if each.acceptable is False]
    right = [each for each in verdicts if each.acceptable is True]
    missed = [each for each in verdicts if not each.flagged and (each.group == "far" or each.acceptable is False)]
    return {
        "groups": {name: _counts(own) for name, own in sorted(groups.items(), key=lambda item: _place(item[0]))},
        "wrong_masks": _counts(wrong) | {"people": len({each.patient for each in wrong})},
        "acceptable_masks": _counts(right) | _flagged_people(right),
        "auroc": _auroc(right, wrong),
        "threshold": None if math.isinf(rule.threshold) else rule.threshold,
        "bars": {task: rule.bar(task) for task in sorted({each.task for each in verdicts if each.task})},
        "missed": [_named(each) for each in missed],
    }


ORDER = ("in_distribution", "far", "near", "covariate", "control", "nonsense")


def _place(name: str) -> tuple[int, str]:
    return ORDER.index(name.split(",")[0]), name


def _counts(verdicts: Sequence[BothVerdicts]) -> dict[str, Any]:
    passed = [
        each.dice for each in verdicts if not each.flagged and each.dice is not None and not math.isnan(each.dice)
    ]
    return {
        "images": len(verdicts),
        "image": sum(each.rejected is True for each in verdicts),
        "mask": sum(each.mask_reliable is False for each in verdicts),
        "either": sum(each.flagged for each in verdicts),
        "dice_of_unflagged": float(np.mean(passed)) if passed else None,
    }


def _flagged_people(verdicts: Sequence[BothVerdicts]) -> dict[str, Any]:
    """Patients with an acceptable mask of an unchanged test image that gets a flag."""
    own = [each for each in verdicts if each.group == "in_distribution"]
    by: Mapping[str, Callable[[BothVerdicts], bool]] = {
        "image": lambda each: each.rejected is True,
        "mask": lambda each: each.mask_reliable is False,
        "either": lambda each: each.flagged,
    }
    patients = [each.patient for each in own]
    counts = {name: flagged_people([flagged(each) for each in own], patients) for name, flagged in by.items()}
    people = next(iter(counts.values())).people
    return {"people": people, "people_flagged": {name: found.people_flagged for name, found in counts.items()}}


def _auroc(right: Sequence[BothVerdicts], wrong: Sequence[BothVerdicts]) -> dict[str, Any] | None:
    parts = [[each for each in part if each.disagreement is not None] for part in (right, wrong)]
    if not all(parts):
        return None
    scores = [np.array([each.disagreement for each in part], dtype=np.float64) for part in parts]
    inside, outside = ([each.patient for each in part] for part in parts)
    found = auroc_interval(detection_metrics(*scores)["auroc"], inside, [outside])
    return {"value": found.value, "low": found.low, "high": found.high, "reliable": found.reliable}


def _named(each: BothVerdicts) -> dict[str, Any]:
    return {
        "condition": each.condition,
        "severity": each.severity,
        "task": each.task,
        "case": each.case,
        "nearest_task": each.nearest_task,
        "volume_ml": each.volume_ml,
        "p_value": each.p_value,
        "mask_p_value": each.mask_p_value,
        "dice": each.dice,
    }


def _key(each: BothVerdicts | Record) -> tuple[str, str, int, str, str]:
    return each.group, each.condition, each.severity, each.task, each.case
