"""The images of a benchmark whose verdict is wrong, worst first, and what is said of each."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from medmtl.report.html import anchor
from medmtl.report.ood.numbers import shift_label
from medmtl.report.wrong_verdicts import FIRST, said_of, wrong
from medmtl.results.benchmark import Record, rule_of

SHOWN = 40  # of a kind with a picture, about 100 kB each
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
    groups = {**dict.fromkeys(OOD, True), "in_distribution": False}
    chosen = wrong([r for r in records if r.detector == detector], lambda record: groups.get(record.group))

    def described(kind: str, record: Record) -> Wrong:
        shift = record.condition if record.group == "far" else shift_label(statistics, record.condition)
        of = f"{record.task}, {record.case}" if record.group == "in_distribution" else f"{shift}, {record.case}"
        words = said_of(kind, record.p_value, patients, record.score, rule.threshold)
        place = anchor(kind, record.group, record.condition, str(record.severity), record.task, record.case)
        return Wrong(record, kind, of, words, place)

    return {kind: [described(kind, record) for record in found] for kind, found in chosen.items()}


def first_of(found: Mapping[str, Sequence[Wrong]]) -> list[Wrong]:
    """The cases to look at first, missed images and false alarms in turn."""
    turns = chain.from_iterable(zip_longest(*found.values()))
    return [each for each in turns if each is not None][:FIRST]
