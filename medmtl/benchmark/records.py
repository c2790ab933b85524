"""Record: the score that one detector gave one image; `ood.csv` has a row for each."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medmtl.errors import RunError
from medmtl.files import written_whole


@dataclass(frozen=True)
class Record:
    """One row of `ood.csv`.

    Attributes:
        detector: its name.
        group: `familiar` (test cases as they are), `calibration` (validation cases), `far`, `near`, `covariate`,
            `control` or `nonsense`.
        source: the task, the folder or the shift.
        severity: of the shift, 1 to 5; 0 where it has no meaning.
        task: the task of the image, of a shifted one that of the test case; empty for foreign images.
        case: its name.
        patient: whose image it is.
        score: higher = more foreign.
        dice: against the label on the image's own grid, under the task's own recipe; None without a label, NaN without
            foreground.
        p_value: conformal p-value with the calibration cases' scores of this detector; None for those cases.
        rejected: at the benchmark's alpha; None for calibration cases, and where there are too few of them.
    """

    detector: str
    group: str
    source: str
    severity: int
    task: str
    case: str
    patient: str
    score: float
    dice: float | None = None
    p_value: float | None = None
    rejected: bool | None = None


COLUMNS = [field.name for field in fields(Record)]


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write `ood.csv`, whole. None is an empty cell; rejected is 0 or 1."""
    with written_whole(path) as beside, beside.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for record in records:
            rejected = None if record.rejected is None else int(record.rejected)
            writer.writerow({**asdict(record), "rejected": rejected})


def read_records(path: Path) -> list[Record]:
    """Read what `write_records` wrote.

    Raises:
        RunError: the file is missing, or holds something else.
    """
    try:
        with path.open(newline="") as stream:
            return [_record(row) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        raise RunError(f"there is no {path}", fix="run `medmtl ood` first") from None
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} is not a table of scores ({error})", fix="run `medmtl ood` again") from None


def _record(row: dict[str, str]) -> Record:
    return Record(
        detector=row["detector"],
        group=row["group"],
        source=row["source"],
        severity=int(row["severity"]),
        task=row["task"],
        case=row["case"],
        patient=row["patient"],
        score=float(row["score"]),
        dice=float(row["dice"]) if row["dice"] else None,
        p_value=float(row["p_value"]) if row["p_value"] else None,
        rejected=bool(int(row["rejected"])) if row["rejected"] else None,
    )
