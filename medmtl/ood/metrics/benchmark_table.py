"""The benchmark table: how well each detector detects each kind of OOD image, and which detector ranks first.

All detectors are evaluated on the same resamples of the patients, so that a mean over columns has an interval and two
detectors can be compared by the interval of their difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmtl.bootstrap import CaseDraws
from medmtl.errors import DataError
from medmtl.ood.metrics.auroc_interval import auroc_interval
from medmtl.ood.metrics.detection import detection_metrics
from medmtl.ood.metrics.resampling import Floats, Interval, bootstrap_interval, weighted_auroc

# The columns in the order of the table, each a key of a detector in `ood.json`, and those that `mean` is over.
COLUMNS = ("far", "near", "covariate", "covariate_severe", "nonsense", "mean")
AVERAGED = ("far", "near", "covariate", "nonsense")
SEVERE = 3

# Smaller differences are rounding.
ROUNDING = 1e-12

Rank = Literal["first", "tied", "behind"]
# Group, and of a covariate shift its name and severity.
Part = tuple[str, str, int]
INSIDE = "in_distribution"


@dataclass(frozen=True)
class Scored:
    """The images that all detectors scored; one entry an image in each.

    Attributes:
        groups: `in_distribution`, `far`, `near`, `covariate` or `nonsense`; others are ignored.
        conditions: of a covariate shift its name.
        severities: of a covariate shift 1 to 5, or 0 where severity has no meaning.
        patients: whose image it is; the same name is the same person, in every group.
    """

    groups: Sequence[str]
    conditions: Sequence[str]
    severities: Sequence[int]
    patients: Sequence[str]


class PartFigures(NamedTuple):
    """One detector on one set of OOD images.

    Attributes:
        aurocs: of the images as they are, followed by those of the resamples, `(1 + resamples,)`, which are NaN where
            the OOD images are of a single patient; the first alone where the in-distribution ones are.
        fpr: `fpr_at_95_in_kept` of the images as they are.
    """

    aurocs: Floats
    fpr: float


@dataclass(frozen=True)
class TableEntry:
    """How well a detector detects one kind of OOD image.

    Attributes:
        auroc: P(OOD > in-distribution) + P(equal) / 2; the mean over its parts in columns that have several.
        fpr_at_95_in_kept: share of OOD images accepted where 95 % of the in-distribution ones are; averaged alike.
        people: patients with an OOD image in the column.
        rank: by AUROC in this column: `first`; `tied` where the interval of the difference to the first contains
            0; else `behind`. None where there is no interval.
    """

    auroc: Interval
    fpr_at_95_in_kept: float
    people: int
    rank: Rank | None = None


def benchmark_table(images: Scored, scores: Mapping[str, ArrayLike]) -> dict[str, dict[str, TableEntry]]:
    """Figures of all detectors in all columns.

    `far`, `near` and `nonsense` compare all their images with the in-distribution ones. `covariate` is the mean over
    the pairs of shift and severity, each against the in-distribution images; `covariate_severe` the mean over those of
    severity 3 and above and those without severity. `mean` is over far, near, covariate and nonsense, as far as
    they exist.

    Intervals of AUROC are those of `auroc_interval`. Ranks come from the bootstrap interval of the paired difference:
    a resample draws patients with all their images, shifted versions included, the same for all detectors; groups of
    images without a patient in common are drawn separately. The FPR has no interval: it hangs on one in-distribution
    image, and a bootstrap of 9 OOD patients covers an FPR of .1 in 73 % of samples.

    Args:
        images: what was scored.
        scores: detector -> score of each image, `(images,)`, higher = more out-of-distribution.

    Returns:
        Detector -> column -> figures; columns without images are missing.

    Raises:
        DataError: a detector does not have one number for every image.
    """
    groups, patients = np.asarray(images.groups, dtype=str), np.asarray(images.patients, dtype=str)
    inside = np.flatnonzero(groups == INSIDE)
    parts = _parts(images) if inside.size else {}
    columns = _columns(list(parts))
    people = {part: patients[where].tolist() for part, where in parts.items()}
    several = {part: names for part, names in people.items() if len(set(names)) > 1}
    draws = CaseDraws.of({INSIDE: patients[inside].tolist(), **{str(part): names for part, names in several.items()}})
    measured = {name: _measured(name, values, len(groups), inside, parts, draws) for name, values in scores.items()}
    found: dict[str, dict[str, TableEntry]] = {name: {} for name in scores}
    for column, shares in columns.items():
        of_parts = [people[part] for part in shares]
        aurocs = {name: _mean([row[part].aurocs for part in shares], shares) for name, row in measured.items()}
        ranks = _ranks(aurocs, draws) if draws is not None and several.keys() >= shares.keys() else {}
        for name, figures in measured.items():
            found[name][column] = TableEntry(
                auroc_interval(float(aurocs[name][0]), patients[inside].tolist(), of_parts, list(shares.values())),
                float(_mean([figures[part].fpr for part in shares], shares)),
                len({patient for names in of_parts for patient in names}),
                ranks.get(name),
            )
    return found


def _parts(images: Scored) -> dict[Part, NDArray[np.intp]]:
    """The sets of images to compare with the in-distribution ones: a group, or a covariate shift at one severity."""
    parts: dict[Part, list[int]] = {}
    for index, group in enumerate(images.groups):
        if group == "covariate":
            parts.setdefault((group, images.conditions[index], int(images.severities[index])), []).append(index)
        elif group in AVERAGED:
            parts.setdefault((group, "", 0), []).append(index)
    return {part: np.array(where) for part, where in parts.items()}


def _columns(parts: Sequence[Part]) -> dict[str, dict[Part, float]]:
    """Column -> its parts, and the share of each in the column's mean; without the columns that have none."""
    members = {column: [part for part in parts if part[0] == column] for column in AVERAGED}
    members["covariate_severe"] = [part for part in members["covariate"] if part[2] == 0 or part[2] >= SEVERE]
    shares = {column: {part: 1 / len(own) for part in own} for column, own in members.items()}
    averaged = [column for column in AVERAGED if members[column]]
    shares["mean"] = {part: share / len(averaged) for column in averaged for part, share in shares[column].items()}
    return {column: shares[column] for column in COLUMNS if shares[column]}


def _measured(
    name: str,
    values: ArrayLike,
    images: int,
    inside: NDArray[np.intp],
    parts: Mapping[Part, NDArray[np.intp]],
    draws: CaseDraws | None,
) -> dict[Part, PartFigures]:
    """The figures of one detector in each part, AUROC also of the resamples that draw the part."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (images,) or np.isnan(scores).any():
        raise DataError(f"detector {name}: not one number for every image", fix="leave the detector out")
    figures = {}
    for part, where in parts.items():
        known, other = scores[inside], scores[where]
        found = detection_metrics(known, other)
        aurocs = np.array([found["auroc"]])
        if draws is not None:
            drawn = np.full(len(draws.of_patients.drawn), np.nan)
            if str(part) in draws.weights:
                drawn = weighted_auroc(known, other, draws.weights[INSIDE], draws.weights[str(part)])
            aurocs = np.r_[aurocs, drawn]
        figures[part] = PartFigures(aurocs, found["fpr_at_95_in_kept"])
    return figures


def _mean(values: Sequence[ArrayLike], shares: Mapping[Part, float]) -> Floats:
    """Mean over parts by their shares."""
    return np.average(np.asarray(values, dtype=np.float64), axis=0, weights=list(shares.values()))


def _ranks(aurocs: Mapping[str, Floats], draws: CaseDraws) -> dict[str, Rank]:
    """Detector -> rank, from the AUROC of the images as they are, followed by those of the resamples."""
    best = max(aurocs.values(), key=lambda rows: float(rows[0]))
    ranks: dict[str, Rank] = {}
    for name, rows in aurocs.items():
        behind = bootstrap_interval(float(best[0] - rows[0]), (best - rows)[1:], draws.of_patients)
        if behind.value is not None and behind.value <= ROUNDING:
            ranks[name] = "first"
        elif behind.low is not None and behind.low <= ROUNDING:
            ranks[name] = "tied"
        else:
            ranks[name] = "behind"
    return ranks
