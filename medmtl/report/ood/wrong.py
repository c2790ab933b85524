"""The images of a benchmark whose verdict is wrong, worst first, and what is said of each."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from medmtl.report.html import anchor, number, p_in_words
from medmtl.report.ood.numbers import shift_label
from medmtl.results.benchmark import Record, rule_of

FIRST = 3
SHOWN = 40  # of a kind with a picture, about 100 kB each
MISSED, FALSE_ALARM = "missed", "false alarm"
WORDS = {
    MISSED: "an OOD image that was accepted as in-distribution",
    FALSE_ALARM: "an in-distribution image that was flagged as OOD",
}
OOD = ("far", "nonsense")  # groups that should be flagged whatever the detector; shifted images may be harmless


class Wrong(NamedTuple):
    """An image whose verdict is wrong.

    Attributes:
        record: of the detector that gives the verdict.
        kind: "missed" or "false alarm".
        name: of dataset and image.
        words: what is wrong, a sentence without a full stop.
        place: by which links find it, and the name of its figure.
    """

    record: Record
    kind: str
    name: str
    words: str
    place: str


def wrong_verdicts(records: Iterable[Record], detector: str, statistics: Mapping[str, Any]) -> dict[str, list[Wrong]]:
    """Kind -> the far and nonsense images that were accepted, and the in-distribution ones that were flagged.

    Args:
        records: of all detectors.
        detector: the one that gives the verdict.
        statistics: what `ood.json` holds.
    """
    records = list(records)
    rule = rule_of(records, detector, statistics["verdict"]["alpha"])
    patients = [group.patient_count for group in rule.groups.values()]
    own = sorted((r for r in records if r.detector == detector), key=lambda r: r.p_value or 0.0)
    chosen = {
        MISSED: [r for r in own[::-1] if r.group in OOD and r.rejected is False],
        FALSE_ALARM: [r for r in own if r.group == "in_distribution" and r.rejected is True],
    }

    def described(kind: str, record: Record) -> Wrong:
        shift = record.condition if record.group == "far" else shift_label(statistics, record.condition)
        of = f"{record.task}, {record.case}" if record.group == "in_distribution" else f"{shift}, {record.case}"
        score = f"score {number(record.score)} with the threshold at {number(rule.threshold)}"
        words = f"{WORDS[kind]}: {p_in_words(record.p_value, patients)}, {score}"
        place = anchor(kind, record.group, record.condition, str(record.severity), record.task, record.case)
        return Wrong(record, kind, of, words, place)

    return {kind: [described(kind, record) for record in found] for kind, found in chosen.items()}


def first_of(wrong: Mapping[str, Sequence[Wrong]]) -> list[Wrong]:
    """The cases to look at first, missed images and false alarms in turn."""
    turns = chain.from_iterable(zip_longest(*wrong.values()))
    return [each for each in turns if each is not None][:FIRST]
