"""The records of a benchmark as a table, `ood.csv`: a row for each detector and image."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from medmtl.errors import RunError
from medmtl.files import written_whole
from medmtl.report.ood_record import Record

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
