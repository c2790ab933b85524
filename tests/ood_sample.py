"""Records of an out-of-distribution benchmark and what `ood.json` would hold of them, plausible and telling a story."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from medmtl.ood.detectors import SCORES
from medmtl.ood.metrics.detection import detection_metrics
from medmtl.ood.metrics.false_alarms import flagged_by_task, flagged_people
from medmtl.ood.score import OODScore, in_words
from medmtl.ood.shifts import SHIFTS
from medmtl.results.benchmark import Record

TASKS = {"LiverCT": 3, "KidneyT2": 3, "HeartPET": 2}
GRADED = ("noise", "blur", "wrong_spacing")
UNGRADED = ("inverted",)
# Detector -> how far it shifts scores, in standard deviations of the in-distribution scores.
DETECTORS = {"spectral_published": 2.6, "entropy": 1.0, "ihf": 3.0, "fusion": 3.6, "volume": 0.5, "some_new_one": 1.6}
ALPHA = 0.05
DESCRIBED = {name: SHIFTS[name].description() for name in (*GRADED, *UNGRADED, "flip", "constant")}


def make_records(
    detectors: Mapping[str, float] = DETECTORS,
    tasks: Mapping[str, int] = TASKS,
    graded: Sequence[str] = GRADED,
    severities: Sequence[int] = (1, 3, 5),
    near: bool = True,
    labels: bool = True,
    calibration: int = 8,
) -> list[Record]:
    """Records of `detectors` on the test images of `tasks`; the same arguments give the same records.

    Args:
        detectors: name -> how well it separates OOD from in-distribution images, in standard deviations.
        tasks: name -> test images.
        graded: shifts with severities.
        severities: of these shifts.
        near: whether there are near images.
        labels: whether images of the tasks have a Dice.
        calibration: calibration images a task.
    """
    images: list[tuple[Any, ...]] = []  # group, dataset, severity, task, case, patient, shiftedness, Dice
    generator = np.random.default_rng(0)
    quality = {(task, i): generator.uniform(0.6, 0.95) for task, count in tasks.items() for i in range(count)}
    for task, count in tasks.items():
        rows = [("calibration", task, 0, 0.0, i) for i in range(100, 100 + calibration)]
        for i in range(count):
            rows.append(("in_distribution", task, 0, 0.0, i))
            rows += [("covariate", shift, level, level / 3, i) for shift in graded for level in severities]
            rows += [("covariate", shift, 0, 1.0, i) for shift in UNGRADED]
            rows += [("control", "flip", 0, 0.05, i), ("nonsense", "constant", 0, 4.0, i)]
        for group, dataset, severity, shifted, i in rows:
            dice = quality.get((task, i), 0.8) * (1 - 0.2 * shifted + 0.05 * generator.normal())
            has = labels and group != "nonsense"
            images.append(
                (group, dataset, severity, task, f"{task}_{i:02d}", f"{task}-{i}", shifted, dice if has else None)
            )
    foreign = [("far", "OtherPhantom", 7, 1.0), ("far", "Leg$", 4, 1.4)] + [("near", "OtherScanner", 5, 0.4)] * near
    for group, dataset, count, shifted in foreign:
        images += [(group, dataset, 0, "", f"{dataset}_{i}", f"{dataset}-{i}", shifted, None) for i in range(count)]
    return [record for name, strength in detectors.items() for record in _by_detector(name, strength, images)]


def _by_detector(name: str, strength: float, images: Sequence[tuple[Any, ...]]) -> list[Record]:
    generator = np.random.default_rng(len(name))
    scores = [1 + 0.2 * (generator.normal() + strength * image[6]) for image in images]
    held_out = np.array([score for score, image in zip(scores, images, strict=True) if image[0] == "calibration"])
    records = []
    for score, (*where, _, dice) in zip(scores, images, strict=True):
        p = (1 + int(np.sum(held_out >= score))) / (len(held_out) + 1)
        rejected = p <= ALPHA if len(held_out) >= 19 else None
        dice = None if dice is None else float(np.clip(dice, 0, 1))
        records.append(Record(name, *where, float(score), dice, None if where[0] == "calibration" else p,
                              None if where[0] == "calibration" else rejected))  # fmt: skip
    return records


def _flags(images: int, image: int, mask: int, either: int, dice: float | None = None) -> dict[str, Any]:
    return {"images": images, "image": image, "mask": mask, "either": either, "dice_of_unflagged": dice}


BOTH_VERDICTS = {
    "groups": {"in_distribution": _flags(21, 1, 2, 3, 0.81), "far": _flags(34, 20, 9, 27)},
    "wrong_masks": _flags(26, 14, 6, 20, 0.52) | {"people": 9},
    "acceptable_masks": _flags(200, 18, 3, 21, 0.83) | {"people": 20, "people_flagged": {"either": 1}},
    "auroc": {"value": 0.86, "low": 0.7, "high": 0.95, "reliable": True},
    "threshold": 0.29,
    "bars": dict.fromkeys(TASKS, 0.6),
    "missed": [
        {
            "condition": "BrainTumour",
            "severity": 0,
            "task": "",
            "case": "missed_scan",
            "nearest_task": "LiverCT",
            "volume_ml": 12.34,
            "p_value": 0.207,
            "mask_p_value": 0.4,
            "dice": None,
        }
    ],
}


def make_statistics(records: Sequence[Record]) -> dict[str, Any]:
    """What `ood.json` holds: AUROC by sklearn's rules, intervals of a plausible width."""
    detectors: dict[str, Any] = {}
    for name in dict.fromkeys(record.detector for record in records):
        mine = [record for record in records if record.detector == name]
        inside = [r.score for r in mine if r.group == "in_distribution"]
        row = {}
        for group in ("far", "near", "nonsense"):
            outside = [r.score for r in mine if r.group == group]
            if outside:
                row[group] = detection_metrics(inside, outside)
        pairs = sorted({(r.condition, r.severity) for r in mine if r.group == "covariate"})
        cells = {
            pair: detection_metrics(inside, [r.score for r in mine if (r.condition, r.severity) == pair])
            for pair in pairs
        }
        row["covariate"] = _mean(list(cells.values()))
        row["covariate_severe"] = _mean([cell for (_, severity), cell in cells.items() if severity in (0, 3, 4, 5)])
        row["mean"] = _mean([value for column, value in row.items() if column != "covariate_severe"])
        detectors[name] = {column: _shown(value) for column, value in row.items()}
    best = max(detectors, key=lambda name: detectors[name]["mean"]["auroc"])
    for name, row in detectors.items():
        near = row["mean"]["auroc"] > detectors[best]["mean"]["auroc"] - 0.07
        row["mean"]["rank"] = "first" if name == best else "tied" if near else "behind"
    verdict = {"alpha": ALPHA, "detector": best, "false_alarm_rate": 0.0, "detection_rate": 1.0}
    failure = {}
    for name in detectors:
        known = [r for r in records if r.detector == name and r.dice is not None and r.group != "calibration"]
        if known:
            spearman = spearmanr([r.score for r in known], [r.dice for r in known]).statistic
            failure[name] = {"aurc": 0.2 + 0.01 * len(name), "spearman": float(spearman)}
    scores = {name: make_description(name) for name in detectors}
    tested = {name: [r for r in records if r.detector == name and r.group == "in_distribution"] for name in detectors}
    alarms = {name: _alarms(own) for name, own in tested.items()}
    rate = {
        "rate": 0.04,
        "low": 0.0,
        "high": 0.1,
        "reliable": True,
        "decided": 200,
        "tasks": dict.fromkeys(TASKS, 0.03),
    }
    more = {"false_alarms": alarms, "rate_if_exchangeable": dict.fromkeys(detectors, rate)}
    return {
        **more,
        "scores": scores,
        "shifts": DESCRIBED,
        "detectors": detectors,
        "verdict": verdict,
        "failure": failure,
        "both_verdicts": BOTH_VERDICTS,
    }


def make_description(name: str) -> dict[str, Any]:
    """What `ood.json` says of a score: that of the built-in detector, or of one without a label."""
    return SCORES.get(name, OODScore(key=name, label=in_words(name))).description()


def _alarms(tested: Sequence[Record]) -> dict[str, Any]:
    rejected, patients = [r.rejected for r in tested], [r.patient for r in tested]
    tasks = flagged_by_task(rejected, patients, [r.task for r in tested])
    own = {task: asdict(found) for task, found in tasks.items()}
    return {**asdict(flagged_people(rejected, patients)), "tasks": own}


def _mean(cells: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([cell[key] for cell in cells])) for key in ("auroc", "fpr_at_95_in_kept")}


def _shown(cell: Mapping[str, float]) -> dict[str, Any]:
    auroc = cell["auroc"]
    wide = 0.02 + 0.3 * auroc * (1 - auroc)
    low, high = max(0.0, auroc - wide), min(1.0, auroc + wide)
    return {"auroc": auroc, "low": low, "high": high, "reliable": True, "fpr_at_95_in_kept": cell["fpr_at_95_in_kept"]}
