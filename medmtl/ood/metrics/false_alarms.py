"""False alarms that were measured, by patient, with exact intervals.

The threshold comes from held-out images, the alarms are those of test images. A patient with a rejected image is one
false alarm, however many images there are of that patient, so that patients are independent trials and the interval is
that of a binomial share. The rule promises its level for any one image: of a patient with several images, one of them
is rejected more often than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class FlaggedPeople:
    """How many patients have an image that was rejected.

    Attributes:
        people: patients with a decision on an image of theirs.
        people_flagged: those with a rejected image.
        rate: share of those, in [0, 1]; None without a patient.
        low: lower end of its exact 95 % interval (Clopper & Pearson 1934); None without a patient.
        high: upper end of it.
    """

    people: int
    people_flagged: int
    rate: float | None
    low: float | None
    high: float | None


def flagged_people(rejected: Sequence[bool | None], patients: Sequence[str]) -> FlaggedPeople:
    """Patients with a rejected image: false alarms if these are in-distribution images, detections if OOD ones.

    Args:
        rejected: the verdict on each image; None = no verdict, the image does not count.
        patients: whose image it is; the same name is the same person.

    Example:
        >>> found = flagged_people([False] * 22, [f"p{number}" for number in range(21)] + ["p0"])
        >>> found.people, found.people_flagged, round(found.high, 2)
        (21, 0, 0.16)
    """
    decided = {patient for patient, verdict in zip(patients, rejected, strict=True) if verdict is not None}
    flagged = {patient for patient, verdict in zip(patients, rejected, strict=True) if verdict}
    if not decided:
        return FlaggedPeople(0, 0, None, None, None)
    low, high = binomtest(len(flagged), len(decided)).proportion_ci(method="exact")
    return FlaggedPeople(len(decided), len(flagged), len(flagged) / len(decided), float(low), float(high))


def flagged_by_task(
    rejected: Sequence[bool | None], patients: Sequence[str], tasks: Sequence[str]
) -> dict[str, FlaggedPeople]:
    """`flagged_people` of each task alone, in the order in which tasks first appear."""
    found = {}
    for task in dict.fromkeys(tasks):
        own = [index for index, each in enumerate(tasks) if each == task]
        found[task] = flagged_people([rejected[index] for index in own], [patients[index] for index in own])
    return found
