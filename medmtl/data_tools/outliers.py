"""Outliers: what is unusual about a case among the cases of its dataset.

Numbers are compared by the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993), 0.6745
times the distance from the median over the median absolute deviation, with their limit of 3.5. Sizes and volumes are
compared on a logarithmic scale, because they differ by factors. Where most cases are alike the deviation is nearly 0
and anything would stand out; so a case must also differ by a factor that a reader would call different. Where many
stand out none does, and the dataset as a whole gets one note.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medmtl.results.dataset import CaseFacts, Finding

LIMIT = 3.5
FEWEST = 8  # cases; a median of fewer is not reliable
COMMON = 0.9  # share of the cases that makes a property the rule
MANY = 0.1  # share of the cases that stands out together


class _Quantity(NamedTuple):
    """A number of a case, and how it is reported.

    Attributes:
        rule: one word for the finding.
        name: what it is.
        unit: after the number; may be empty.
        factor: by which a case must differ from the median at least.
    """

    rule: str
    name: str
    unit: str
    factor: float


def outliers(cases: Sequence[CaseFacts], organs: Mapping[int, str]) -> Iterator[Finding]:
    """Find what stands out in one dataset.

    Args:
        cases: those that could be read.
        organs: label value -> name.

    Yields:
        A note for each quantity of a case that is far from the median, and for each property that nearly all others
        have and it has not.
    """
    for quantity, values in _quantities(cases, organs).items():
        far = list(_far(values, quantity.factor))
        if len(far) > max(MANY * len(values), 2):
            lowest, highest = min(value for _, value, _ in far), max(value for _, value, _ in far)
            text = f"{quantity.name} differs widely: in {len(far)} of {len(values)} cases it is far from the median, "
            text += f"{_three(lowest)} to {_three(highest)}{quantity.unit}"
            yield Finding("note", quantity.rule, cases[0].dataset, "", text, "are these cases of one kind?")
            continue
        for case, value, median in far:
            text = f"{quantity.name} is {_three(value)}{quantity.unit}, the median {_three(median)}{quantity.unit}"
            yield Finding("note", quantity.rule, case.dataset, case.case, text, "look at the case")
    yield from _levels(cases)
    yield from _uncommon(cases, organs)


def _quantities(
    cases: Sequence[CaseFacts], organs: Mapping[int, str]
) -> dict[_Quantity, list[tuple[CaseFacts, float]]]:
    """Positive numbers by quantity."""
    found: dict[_Quantity, list[tuple[CaseFacts, float]]] = {}
    for case in cases:
        for direction, size in case.spacing_by_axis.items():
            found.setdefault(_Quantity("spacing", f"voxel size {direction}", " mm", 1.5), []).append((case, size))
        for direction, extent in case.extent_by_axis.items():
            found.setdefault(_Quantity("extent", f"extent {direction}", " mm", 1.5), []).append((case, extent))
        for channel, intensity in enumerate(case.intensity):
            quantity = _Quantity("contrast", f"range of intensities (1 to 99 %) of channel {channel}", "", 3.0)
            found.setdefault(quantity, []).append((case, intensity.high - intensity.low))
        for value, volume in case.volumes_ml.items():
            quantity = _Quantity("volume", f"volume of label {_named(value, organs)}", " ml", 2.0)
            found.setdefault(quantity, []).append((case, volume))
    return found


def _far(values: Sequence[tuple[CaseFacts, float]], factor: float) -> Iterator[tuple[CaseFacts, float, float]]:
    """Cases far from the median on a logarithmic scale: case, value and median."""
    known = [(case, value) for case, value in values if value > 0 and math.isfinite(value)]
    if len(known) < FEWEST:
        return
    logs = np.log([value for _, value in known])
    median = float(np.median(logs))
    for (case, value), distance in zip(known, modified_z(logs), strict=True):
        if abs(distance) > LIMIT and abs(math.log(value) - median) > math.log(factor):
            yield case, value, math.exp(median)


def modified_z(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Signed distance from the median in robust standard deviations.

    Args:
        values: `(N,)`.

    Returns:
        `(N,)`; infinite where the median absolute deviation is 0 and a value is not the median.
    """
    distance = np.asarray(values, dtype=float) - np.median(values)
    deviation = np.median(np.abs(distance))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, 0.6745 * distance / deviation)


def _levels(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases whose intensities are shifted as a whole by over half of the usual range, as those of a CT without offset.

    Air around the body moves the median alone, and another scale the highest values most; so low, middle and high must
    agree within a factor of 2.
    """
    for channel in range(max((len(case.intensity) for case in cases), default=0)):
        known = [case for case in cases if case.intensity[channel:] and math.isfinite(case.intensity[channel].median)]
        if len(known) < FEWEST:
            continue
        values = np.array([case.intensity[channel][1:4] for case in known])  # low, median, high
        shifts = values - np.median(values, axis=0)
        usual = float(np.median(values[:, 2] - values[:, 0]))
        for case, shift in zip(known, shifts, strict=True):
            least, most = float(np.abs(shift).min()), float(np.abs(shift).max())
            if abs(np.sign(shift).sum()) == 3 and least > usual / 2 and most < 2 * least:
                way = "higher" if shift[0] > 0 else "lower"
                text = f"all intensities of channel {channel} are {way} by {least:.4g} or more than those of most cases"
                yield Finding("note", "level", case.dataset, case.case, text, "is it another unit, or an offset?")


def _uncommon(cases: Sequence[CaseFacts], organs: Mapping[int, str]) -> Iterator[Finding]:
    """Cases that lack what nearly all others have: a number of channels, an orientation, a label value."""
    if len(cases) < FEWEST:
        return
    properties = {
        "channels": [str(len(case.intensity)) for case in cases],
        "orientation": [case.axes for case in cases],
    }
    for rule, of in properties.items():
        (usual, times), *_ = Counter(of).most_common(1)
        for case, own in zip(cases, of, strict=True):
            if own != usual and times >= COMMON * len(cases):
                text = f"{rule} {own}, and {usual} in {times} of {len(cases)} cases"
                yield Finding("note", rule, case.dataset, case.case, text, "look at the case")
    labelled = [case for case in cases if case.volumes_ml]
    counts = Counter(value for case in labelled for value in case.volumes_ml)
    for value, times in sorted(counts.items()):
        if COMMON * len(labelled) <= times < len(labelled):
            for case in labelled:
                if value not in case.volumes_ml:
                    text = f"label {_named(value, organs)} is absent, which {times} of {len(labelled)} cases have"
                    yield Finding("note", "absent", case.dataset, case.case, text, "is it truly absent?")


def _three(value: float) -> str:
    """Three digits, without an exponent below a million."""
    return f"{float(f'{value:.3g}'):g}"


def _named(value: int, organs: Mapping[int, str]) -> str:
    return f"{value} ({organs[value]})" if value in organs else str(value)
