"""The records of a benchmark as a table, `ood.csv`: a row for each detector and image."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medmtl.errors import RunError
from medmtl.files import read_table, write_table
from medmtl.ood.conformal import ConformalRule


@dataclass(frozen=True)
class Record:
    """The score of one detector for one image.

    Attributes:
        detector: name of the detector.
        group: `in_distribution`: test images as they are; `calibration`: validation images, which set the threshold
            together with `training`: training images, scored by detectors that were fitted to other patients;
            `far`: another organ or modality; `near`: the same organ from another scanner or population; `covariate`:
            a shifted test image; `control`: one shifted in a way that should change nothing; `nonsense`: not an image
            of a body.
        condition: dataset or shift: the task, the folder of OOD images, or the name of the shift.
        severity: 1 to 5; 0 where it has no meaning.
        task: the task of the image, or of the test image that was shifted; empty for OOD images.
        case: name of the image within its condition, for a shifted one that of the test image.
        patient: whose image it is.
        score: higher = more out-of-distribution.
        dice: of the segmentation against the label, in [0, 1]; None without a label, NaN for a label without
            foreground.
        p_value: conformal, from this detector's scores of calibration and training images; None for these.
        rejected: the verdict, True for out-of-distribution; None for calibration and training images, and where there
            are too few of them.
    """

    detector: str
    group: str
    condition: str
    severity: int
    task: str
    case: str
    patient: str
    score: float
    dice: float | None = None
    p_value: float | None = None
    rejected: bool | None = None


THRESHOLD = ("calibration", "training")  # groups that set the threshold

COLUMNS = [field.name for field in fields(Record)]


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write `ood.csv`, whole. None is an empty cell; rejected is 0 or 1."""
    rows = ({**asdict(each), "rejected": None if each.rejected is None else int(each.rejected)} for each in records)
    write_table(path, COLUMNS, rows)


def rule_of(records: Iterable[Record], detector: str, alpha: float) -> ConformalRule:
    """The rule of a detector: from its scores of the calibration and the training images, those that are finite.

    Args:
        records: of all detectors.
        detector: name of one.
        alpha: share of in-distribution images that may be rejected.
    """
    scores: dict[str, dict[str, list[float]]] = {group: {} for group in THRESHOLD}
    patients: dict[str, dict[str, list[str]]] = {group: {} for group in THRESHOLD}
    for record in records:
        if record.detector == detector and record.group in THRESHOLD and math.isfinite(record.score):
            scores[record.group].setdefault(record.task, []).append(record.score)
            patients[record.group].setdefault(record.task, []).append(record.patient)
    held_out, training = (scores[group] for group in THRESHOLD)
    return ConformalRule(
        held_out, alpha, patients["calibration"], training or None, patients["training"] if training else None
    )


def read_records(path: Path) -> list[Record]:
    """Read what `write_records` wrote.

    Raises:
        RunError: the file is missing, of an earlier version, or something else.
    """
    try:
        rows = read_table(path)
        absent = [column for column in COLUMNS if rows and column not in rows[0]]
        if absent:
            raise RunError(f"{path} has no column {absent[0]}", fix="run `medmtl ood` again")
        return [_record(row) for row in rows]
    except FileNotFoundError:
        raise RunError(f"there is no {path}", fix="run `medmtl ood` first") from None
    except (ValueError, KeyError) as error:
        raise RunError(f"{path} is not a table of scores ({error})", fix="run `medmtl ood` again") from None


def _record(row: dict[str, str]) -> Record:
    return Record(
        detector=row["detector"],
        group=row["group"],
        condition=row["condition"],
        severity=int(row["severity"]),
        task=row["task"],
        case=row["case"],
        patient=row["patient"],
        score=float(row["score"]),
        dice=float(row["dice"]) if row["dice"] else None,
        p_value=float(row["p_value"]) if row["p_value"] else None,
        rejected=bool(int(row["rejected"])) if row["rejected"] else None,
    )
