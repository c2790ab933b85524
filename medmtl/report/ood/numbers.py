"""What the page and the figures of an out-of-distribution benchmark take from its records and from `ood.json`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmtl.ood.metrics.benchmark_table import AVERAGED
from medmtl.ood.metrics.detection import detection_metrics
from medmtl.report.style import SCORE_LOOKS
from medmtl.results.benchmark import Record, rule_of

TITLES = {"covariate_severe": "severe"}  # of columns that are not headed by their own name
SHIFTED = (*AVERAGED, "control")  # what is compared with the in-distribution images


class Condition(NamedTuple):
    """The origin of images, or how they were shifted.

    Attributes:
        group: as in `Record`.
        name: the dataset, the task or the shift.
        severity: 1 to 5, or 0 where it has no meaning.
    """

    group: str
    name: str
    severity: int


def detectors_by_mean(statistics: Mapping[str, Any]) -> list[str]:
    """All detectors, the best in the mean first; those without a mean at the end."""

    def mean(name: str) -> float:
        value = statistics["detectors"][name].get("mean", {}).get("auroc")
        return -math.inf if value is None or math.isnan(value) else value

    return sorted(statistics["detectors"], key=mean, reverse=True)


def score_label(statistics: Mapping[str, Any], detector: str) -> str:
    """How pages and figures call a detector."""
    label: str = statistics["scores"][detector]["label"]
    return label


def shift_label(statistics: Mapping[str, Any], condition: str) -> str:
    """How pages and figures call a shift; a dataset by its name."""
    label: str = statistics.get("shifts", {}).get(condition, {}).get("label", condition)
    return label


def without_network(statistics: Mapping[str, Any]) -> list[str]:
    """The detectors that need no more of the network than its segmentation."""
    return [name for name, score in statistics["scores"].items() if not score["needs_network"]]


def in_role(statistics: Mapping[str, Any], role: str) -> list[str]:
    """The detectors of a role, see `OODScore`."""
    return [name for name, score in statistics["scores"].items() if score["role"] == role]


def tied(statistics: Mapping[str, Any]) -> list[str]:
    """Detectors whose mean does not differ from the best one's, by the `rank` of their mean."""
    rows = statistics["detectors"]
    return [name for name in detectors_by_mean(statistics)[1:] if rows[name].get("mean", {}).get("rank") == "tied"]


def shown_by_name(statistics: Mapping[str, Any]) -> list[str]:
    """The few that figures name: the best in the mean, the paper's, and the baselines; the rest are pale."""
    ranked = detectors_by_mean(statistics)
    wanted = dict.fromkeys([*ranked[:1], *in_role(statistics, "paper"), *in_role(statistics, "baseline")])
    return [name for name in wanted if name in ranked][: len(SCORE_LOOKS)]


def verdict_detector(statistics: Mapping[str, Any]) -> str:
    """The detector that gives the verdict of the benchmark: the one that it names, else the first."""
    return statistics["verdict"].get("detector") or next(iter(statistics["detectors"]))


def leading(statistics: Mapping[str, Any]) -> list[str]:
    """The best detector in the mean, the one that gives the verdict, and the paper's: those shown in detail."""
    ranked = detectors_by_mean(statistics)
    chosen = dict.fromkeys([ranked[0], verdict_detector(statistics), *in_role(statistics, "paper")])
    return [name for name in chosen if name in ranked]


def tasks_of(records: Iterable[Record]) -> list[str]:
    """The tasks of the in-distribution images, in the order that gives them their colours."""
    return list(dict.fromkeys(r.task for r in records if r.group in ("in_distribution", "calibration")))


def conditions_of(records: Iterable[Record]) -> list[Condition]:
    """All conditions: by group, a group's conditions as they first appear, a condition's severities rising."""
    found = dict.fromkeys(Condition(r.group, r.condition, r.severity) for r in records if r.group in SHIFTED)
    conditions = list(dict.fromkeys((condition.group, condition.name) for condition in found))
    return sorted(found, key=lambda c: (SHIFTED.index(c.group), conditions.index((c.group, c.name)), c.severity))


def scores_of(
    records: Iterable[Record], detector: str
) -> tuple[NDArray[np.float64], dict[Condition, NDArray[np.float64]]]:
    """A detector's scores of the in-distribution images and of each condition, `(n,)` each; only finite ones."""
    inside: list[float] = []
    shifted: dict[Condition, list[float]] = {}
    for r in records:
        if r.detector == detector and math.isfinite(r.score):
            if r.group == "in_distribution":
                inside.append(r.score)
            elif r.group in SHIFTED:
                shifted.setdefault(Condition(r.group, r.condition, r.severity), []).append(r.score)
    return np.array(inside), {where: np.array(scores) for where, scores in shifted.items()}


def aurocs(records: Sequence[Record]) -> dict[str, dict[Condition, float]]:
    """AUROC of each detector and condition against the in-distribution images.

    Conditions are in the order of `conditions_of`; NaN where one side is empty.
    """
    conditions = conditions_of(records)
    found: dict[str, dict[Condition, float]] = {}
    for detector in dict.fromkeys(record.detector for record in records):
        inside, shifted = scores_of(records, detector)
        found[detector] = {where: detection_metrics(inside, shifted.get(where, []))["auroc"] for where in conditions}
    return found


def threshold(records: Iterable[Record], detector: str, alpha: float) -> float:
    """The score above which a detector flags an image; infinite where it cannot decide."""
    return rule_of(records, detector, alpha).threshold


class Count(NamedTuple):
    """Verdicts on some images: how many were flagged, and of how many."""

    flagged: int
    decided: int


def verdicts(records: Iterable[Record], detector: str) -> dict[str, Count]:
    """Group -> how many of its images a detector flagged; groups without a verdict are left out."""
    found: dict[str, Count] = {}
    for r in records:
        if r.detector == detector and r.rejected is not None:
            flagged, decided = found.get(r.group, (0, 0))
            found[r.group] = Count(flagged + r.rejected, decided + 1)
    return found


def images_of(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Group -> number of its `conditions`, `images`, `patients` and `labelled` images."""
    images: dict[str, dict[tuple[str, str, int, str], Record]] = {}
    for r in records:
        images.setdefault(r.group, {})[r.condition, r.task, r.severity, r.case] = r
    return {
        group: {
            "conditions": len({r.condition for r in found.values()}),
            "images": len(found),
            "patients": len({r.patient for r in found.values()}),
            "labelled": sum(r.dice is not None for r in found.values()),
        }
        for group, found in images.items()
    }
