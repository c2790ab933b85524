"""Summary of a dataset for `medmtl data check`: number of cases, and range of sizes, intensities and volumes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from medmtl.results.dataset import SEVERITIES, CaseFacts, Finding


class Range(NamedTuple):
    """The values of a quantity over the cases that have it.

    Attributes:
        name: what it is, with its unit.
        cases: how many have it.
        smallest: of all cases.
        median: of all cases.
        largest: of all cases.
    """

    name: str
    cases: int
    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class Summary:
    """A dataset as a whole.

    Attributes:
        name: the task or folder.
        labelled: cases with a label.
        test: images without one.
        patients: number of patients.
        axes: orders of the stored axes, the most frequent first, with how many cases have it if there are several.
        dtypes: types of a voxel as stored, in the same way.
        ranges: sizes, intensities and label volumes.
    """

    name: str
    labelled: int
    test: int
    patients: int
    axes: str
    dtypes: str
    ranges: tuple[Range, ...]


def summarise(name: str, cases: Sequence[CaseFacts], organs: Mapping[int, str]) -> Summary:
    """Summarise one dataset.

    Args:
        name: the task or folder.
        cases: of all datasets; those of others are ignored.
        organs: label value -> name.
    """
    own = [case for case in cases if case.dataset == name]
    values: dict[str, list[float]] = {}
    for case in own:
        for direction, size in case.shape_by_axis.items():
            values.setdefault(f"voxels {direction}", []).append(size)
    for case in own:
        for direction, size in case.spacing_by_axis.items():
            values.setdefault(f"voxel size {direction} (mm)", []).append(size)
    for case in own:
        for number, channel in enumerate(case.intensity):
            if math.isnan(channel.median):  # no value is finite
                continue
            for percentile, value in (("1", channel.low), ("50", channel.median), ("99", channel.high)):
                values.setdefault(f"channel {number}, percentile {percentile}", []).append(value)
    for label in sorted({value for case in own for value in case.volumes_ml}):
        known = [case.volumes_ml[label] for case in own if label in case.volumes_ml]
        values[f"label {label}{f' {organs[label]}' if label in organs else ''} (ml)"] = known
    return Summary(
        name=name,
        labelled=sum(case.part == "training" for case in own),
        test=sum(case.part == "test" for case in own),
        patients=len({case.patient for case in own}),
        axes=_counted([case.axes for case in own if case.shape]),
        dtypes=_counted([case.dtype for case in own if case.shape]),
        ranges=tuple(Range(what, len(each), min(each), median(each), max(each)) for what, each in values.items()),
    )


def headline(cases: Sequence[CaseFacts], findings: Sequence[Finding]) -> str:
    """The result in one sentence: how many cases there are, how many cannot be used, and how many findings."""
    unusable = {(finding.dataset, finding.case) for finding in findings if finding.severity == "error" and finding.case}
    counts = Counter(finding.severity for finding in findings)
    usable = f"{len(unusable)} cannot be used" if unusable else "all can be used"
    found = [_count(counts[severity], severity) for severity in SEVERITIES if counts[severity]]
    what = _count(len(cases), "case")
    if cases and all(case.part == "test" for case in cases):
        what = f"{_count(len(cases), 'image')} without labels"
        usable = f"{len(unusable)} cannot be used" if unusable else "usable as data.ood only"
    return f"{what}, {usable}: {', '.join(found) or 'no findings'}."


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _counted(names: Sequence[str]) -> str:
    counts = Counter(names).most_common()
    return ", ".join(f"{name} ({times})" if len(counts) > 1 else name for name, times in counts)
