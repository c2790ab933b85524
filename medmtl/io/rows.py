"""Lists of images and cases as CSV or JSON, as spreadsheets, other systems and people write them."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

from medmtl.files import is_there, read_json, read_text

COLUMNS = ("image", "label", "name", "patient", "modality", "task")  # found whatever the case of their letters
DELIMITERS = ",;\t"  # spreadsheets of some countries write semicolons


def read_rows(path: Path) -> Any:
    """The entries of a list.

    Args:
        path: JSON, or CSV with a header and one of `DELIMITERS`.

    Returns:
        What the JSON file holds, which need not be a list, or a dict a line. Keys are as in `COLUMNS`, also before an
        underscore (`image_T1`).

    Raises:
        ValueError: it is not readable.
        OSError: it cannot be read.
    """
    if path.suffix.lower() == ".json":
        content = read_json(path)
        return (
            [_plain(row) if isinstance(row, dict) else row for row in content] if isinstance(content, list) else content
        )
    text = read_text(path)
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    try:
        rows = list(csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [_plain({key: (value or "").strip() for key, value in row.items() if key}) for row in rows]


def file_text(home: Path, text: str) -> str:
    """The path of a file as a list names it, with slashes where it exists only so: Windows writes backslashes."""
    return text.replace("\\", "/") if "\\" in text and not is_there(home / text) else text


def shown(row: Any) -> str:
    """An entry in a message: its beginning."""
    text = json.dumps(row)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {_column(key): value for key, value in row.items()}


def _column(key: str) -> str:
    head, mark, rest = key.strip().partition("_")
    return head.lower() + mark + rest if head.lower() in COLUMNS else key.strip()
