"""Files written atomically, so that a reader never reads half of one; and all text, which is UTF-8 in any locale."""

import csv
import json
import os
import re
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from medmtl.errors import MedMTLError

PACKAGE = Path(__file__).parent
MOST_ENTRIES = 100_000  # of a YAML text, those of aliases counted wherever they stand
# What a spreadsheet takes for a formula; behind apostrophes, a text that `write_table` has marked.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class TextError(MedMTLError):
    """A file that is not UTF-8."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` if the block ends without an error.

    Args:
        path: the file's final place; its folder is made if need be.

    Yields:
        The temporary path, with the same suffix.

    Raises:
        OSError: it cannot be written, on a full disk for example; `filename` is `path`, which is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of two machines or containers that share a folder may have one number, and a process several threads.
    beside = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")
    try:
        with naming(path, beside):
            yield beside
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def shipped_config(name: str) -> Path:
    """A configuration of the installed package, whatever the current folder holds under its name."""
    return next(path for place in (PACKAGE, PACKAGE.parent) if (path := place / "configs" / name).is_file())


def cache_folder() -> Path:
    """The folder of all that can be made again: `$MEDMTL_CACHE`, or `~/.cache/medmtl` if that is not set."""
    return Path(os.environ.get("MEDMTL_CACHE") or Path.home() / ".cache" / "medmtl")


def is_there(path: Path) -> bool:
    """Whether a path leads to a file or folder.

    What the system refuses to look up, such as a name of 300 letters in a list, is not there; `Path.exists` raises.
    """
    return os.path.exists(path)  # noqa: PTH110


def resolved(path: Path) -> Path:
    """A path without links, to compare it with others; of what the system refuses to look up, the path as it is."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # the last for links that lead in a circle
        return path.absolute()


def read_text(path: Path) -> str:
    """A text file, whatever the locale; a byte-order mark, as spreadsheets and some editors write it, is left out.

    Raises:
        TextError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 text (byte {error.start + 1})", fix="save it as UTF-8") from None


@contextmanager
def naming(path: Path, beside: Path | None = None) -> Iterator[None]:
    """Let errors of the system within the block name a file, as those of a full disk do not do by themselves.

    Args:
        path: the file, or folder, that is written.
        beside: its temporary name.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and (
            error.filename is None or (beside is not None and error.filename == str(beside))
        ):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8. What is no character, as in some file names, is written as its code."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is not JSON.
        OSError: it cannot be read.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """What a YAML text holds.

    Raises:
        ValueError: it is not YAML, or its aliases make more of it than any configuration holds.
    """
    try:
        content = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, AttributeError, KeyError, OverflowError, TypeError) as error:  # of wrong tags, too
        raise ValueError(" ".join(str(error).split())) from None
    waiting, count = [content], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if count > MOST_ENTRIES:
            raise ValueError(f"more than {MOST_ENTRIES:,} entries")
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return content


def read_table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a CSV file with a header, as `write_table` wrote them; a short row lacks its last columns.

    Raises:
        ValueError: it is not a table.
        OSError: it cannot be read.
    """
    try:
        rows = list(csv.DictReader(StringIO(read_text(path), newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [
        {_as_written(key): _as_written(value) for key, value in row.items() if key and value is not None}
        for row in rows
    ]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with a header, atomically; see `table_text`."""
    write_text(path, table_text(columns, rows))


def table_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV, with a header; what a row lacks is empty.

    Texts that a spreadsheet would take for a formula get an apostrophe in front, which `read_table` takes away. Numbers
    are written as they are.
    """
    lines = [columns, *([row.get(column) for column in columns] for row in rows)]
    return "".join(map(_csv_line, lines))


def remove_others(folder: Path, pattern: str, kept: Container[Path] = ()) -> None:
    """Remove files that an earlier command left in a folder.

    Nothing is removed where the folder is a link: what it leads to may be anyone's.

    Args:
        folder: the folder.
        pattern: of their names.
        kept: paths that stay.
    """
    for path in [] if folder.is_symlink() else list(folder.glob(pattern)):
        if path not in kept:
            path.unlink()


def _csv_line(cells: Iterable[Any]) -> str:
    stream = StringIO(newline="")
    csv.writer(stream).writerow(map(_harmless, cells))  # by its own end of lines it knows what to quote
    return stream.getvalue().removesuffix("\r\n") + "\n"


def _harmless(cell: Any) -> Any:
    """A cell that no spreadsheet computes."""
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _as_written(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
