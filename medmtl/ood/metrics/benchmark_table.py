"""The benchmark table: how well each detector detects each kind of OOD image, and which detector ranks first.

All detectors are evaluated on the same resamples of the patients, so that a mean over columns has an interval and two
detectors can be compared by the interval of their difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmtl.errors import DataError
from medmtl.ood.metrics.resampling import (
    Floats,
    Interval,
    interval,
    patient_weights,
    weighted_auroc,
    weighted_fpr_at_95_in_kept,
)

# The columns in the order of the table, each a key of a detector in `ood.json`, and those that `mean` is over.
COLUMNS = ("far", "near", "covariate", "covariate_severe", "nonsense", "mean")
AVERAGED = ("far", "near", "covariate", "nonsense")
SEVERE = 3

# Smaller differences are rounding.
ROUNDING = 1e-12

Rank = Literal["first", "tied", "behind"]
# Group, and of a covariate shift its name and severity.
Part = tuple[str, str, int]


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


@dataclass(frozen=True)
class TableEntry:
    """How well a detector detects one kind of OOD image.

    Attributes:
        auroc: P(OOD > in-distribution) + P(equal) / 2; the mean over its parts in columns that have several.
        fpr_at_95_in_kept: share of OOD images accepted where 95 % of the in-distribution ones are; averaged alike.
        rank: by AUROC in this column: `first`; `tied` where the interval of the difference to the first contains
            0; else `behind`. None where there is no interval.
    """

    auroc: Interval
    fpr_at_95_in_kept: Interval
    rank: Rank | None = None


def benchmark_table(images: Scored, scores: Mapping[str, ArrayLike]) -> dict[str, dict[str, TableEntry]]:
    """Figures of all detectors in all columns.

    `far`, `near` and `nonsense` compare all their images with the in-distribution ones. `covariate` is the mean over
    the pairs of shift and severity, each against the in-distribution images; `covariate_severe` the mean over those of severity 3 and
    above and those without severity. `mean` is the mean over far, near, covariate and nonsense, as far as they exist.

    A bootstrap resample draws patients with all their images: in-distribution patients, with all shifted versions of
    their images, and those of each OOD group separately. The intervals are percentile intervals of 2,000 resamples; one of
    an AUROC of 1 has no width, whatever the number of patients, and there is none where a side has a single patient.

    Args:
        images: what was scored.
        scores: detector -> score of each image, `(images,)`, higher = more out-of-distribution.

    Returns:
        Detector -> column -> figures; columns without images are missing.

    Raises:
        DataError: a detector does not have one number for every image.
    """
    groups, patients = np.asarray(images.groups, dtype=str), np.asarray(images.patients, dtype=str)
    inside = np.flatnonzero(groups == "in_distribution")
    parts = _parts(images) if inside.size else {}
    members = _members(list(parts))
    sides = np.where(np.isin(patients, patients[inside]), "in_distribution", groups)
    # The first row is the images as they are.
    weights = np.vstack([np.ones(len(groups)), patient_weights(images.patients, sides.tolist())])
    single = {part for part, where in parts.items() if min(_count(patients, where), _count(patients, inside)) < 2}
    tables = {name: _table(name, values, inside, parts, members, weights) for name, values in scores.items()}
    found: dict[str, dict[str, TableEntry]] = {name: {} for name in scores}
    for column, among in members.items():
        known = not single.intersection(among)
        ranks = _ranks({name: table[column][0] for name, table in tables.items()}) if known else {}
        for name, table in tables.items():
            auroc, fpr = (interval(row[0], row[1:] if known else []) for row in table[column])
            found[name][column] = TableEntry(auroc, fpr, ranks.get(name))
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


def _members(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """Column -> its parts; without the columns that have none."""
    members = {column: [part for part in parts if part[0] == column] for column in AVERAGED}
    members["covariate_severe"] = [part for part in members["covariate"] if part[2] == 0 or part[2] >= SEVERE]
    members["mean"] = list(parts)
    return {column: members[column] for column in COLUMNS if members[column]}


def _table(
    name: str,
    values: ArrayLike,
    inside: NDArray[np.intp],
    parts: Mapping[Part, NDArray[np.intp]],
    members: Mapping[str, Sequence[Part]],
    weights: Floats,
) -> dict[str, Floats]:
    """Column -> AUROC and `fpr_at_95_in_kept` of one detector for every row of weights, `(2, rows)`."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != weights.shape[1:] or np.isnan(scores).any():
        raise DataError(f"detector {name}: not one number for every image", fix="leave the detector out")
    figures = {}
    for part, where in parts.items():
        compared = scores[inside], scores[where], weights[:, inside], weights[:, where]
        figures[part] = np.stack([weighted_auroc(*compared), weighted_fpr_at_95_in_kept(*compared)])
    table = {column: np.mean([figures[part] for part in members[column]], axis=0) for column in members}
    if table:
        table["mean"] = np.mean([table[column] for column in AVERAGED if column in table], axis=0)
    return table


def _ranks(aurocs: Mapping[str, Floats]) -> dict[str, Rank]:
    """Detector -> rank, from the AUROC of every row of weights, the first of which is the images as they are."""
    best = max(aurocs.values(), key=lambda rows: float(rows[0]))
    ranks: dict[str, Rank] = {}
    for name, rows in aurocs.items():
        behind = interval(float(best[0] - rows[0]), (best - rows)[1:])
        if behind.value is not None and behind.value <= ROUNDING:
            ranks[name] = "first"
        elif behind.low is not None and behind.low <= ROUNDING:
            ranks[name] = "tied"
        else:
            ranks[name] = "behind"
    return ranks


def _count(patients: NDArray[np.str_], where: NDArray[np.intp]) -> int:
    return len(np.unique(patients[where]))
