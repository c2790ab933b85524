"""Where the voxels of a NRRD or MetaImage file lie: in it, or in files beside it, compressed or not."""

import os
from pathlib import Path
from typing import NamedTuple

from medmtl.errors import DataError
from medmtl.io.stored import check_bytes
from medmtl.io.stream import Held, Plain, Stream, Unpacked

HEADER = 1 << 20  # bytes of the longest header
MOST_FILES = 1 << 14  # of one volume
PACKED = ("gzip", "gz")
TEXT = ("ascii", "text", "txt", "hex")


class Place(NamedTuple):
    """Where voxels lie.

    Attributes:
        files: in their order, each with as many slices as the others.
        start: bytes before them in each file; below 0: they end where the file ends.
        packed: whether each file is compressed from `start` on.
        skip: unpacked bytes before them.
        text: whether they are written as text.
        big: whether the first byte of a voxel is the most significant.
    """

    files: tuple[Path, ...]
    start: int = 0
    packed: bool = False
    skip: int = 0
    text: bool = False
    big: bool = False


def place_of(path: Path) -> Place:
    """Where the voxels of a file lie.

    Args:
        path: the file, or the header of a pair.

    Raises:
        DataError: a file that the header names lies outside the header's folder, or the header says something that
            cannot be followed.
    """
    with path.open("rb") as file:
        head = file.read(HEADER)
    return _nrrd(path, head) if path.suffix.lower() in (".nrrd", ".nhdr") else _meta(path, head)


def open_voxels(path: Path, place: Place, needed: int) -> tuple[Stream, int]:
    """The bytes of the voxels, and where they begin in them.

    Args:
        path: the header, for messages.
        place: of the voxels.
        needed: bytes of all voxels.

    Raises:
        DataError: the files hold fewer bytes.
    """
    if len(place.files) == 1:
        return _open_one(path, place, place.files[0], needed)
    each, rest = divmod(needed, len(place.files))
    if rest:
        raise DataError(f"{path} names {len(place.files)} files, which cannot be of one size", fix="correct it")
    parts = []
    for file in place.files:
        stream, first = _open_one(path, place, file, each)
        with stream:
            stream.seek(first)
            parts.append(stream.read(each))
            stream.finish(first + each)
    return Held(b"".join(parts)), 0


def _open_one(path: Path, place: Place, file: Path, needed: int) -> tuple[Stream, int]:
    plain = Plain(file)
    start = place.start if place.start >= 0 else max(plain.most - needed, 0)
    if place.packed:
        plain.seek(start)
        stream = Unpacked(plain)
        check_bytes(str(path), place.skip + needed, stream.most)
        return stream, place.skip
    check_bytes(str(path), start + needed, plain.most)
    return plain, start


def _nrrd(path: Path, head: bytes) -> Place:
    fields: dict[str, str] = {}
    listed: list[str] | None = None
    position, attached = 0, False
    for line in head.split(b"\n"):
        position += len(line) + 1
        text = line.decode("utf-8", "replace").strip()
        if listed is not None:
            listed += [text] if text else []
            continue
        if line in (b"", b"\r"):
            attached = position <= len(head)
            break
        key, mark, value = text.partition(":")
        if text.startswith("#") or not mark or value.startswith("="):
            continue
        key = key.replace(" ", "").lower()
        if key == "datafile" and "datafile" in fields:
            raise DataError(f"{path} names two data files", fix="correct its header")
        fields[key] = value.strip()
        if key == "datafile" and value.split()[:1] == ["LIST"]:
            listed = []
    named = fields.get("datafile")
    if named is None and not attached:
        raise DataError(f"{path} has a header that cannot be read", fix="replace the file")
    encoding = fields.get("encoding", "raw").lower()
    lines, skip = (_number(path, fields.get(key, "0")) for key in ("lineskip", "byteskip"))
    packed = encoding in PACKED
    if lines < 0 or skip < (-1 if encoding == "raw" else 0):
        raise DataError(f"{path} has a header that cannot be read", fix="replace the file")
    files = (path,) if named is None else _files(path, named, listed)
    start = position if named is None else 0
    if lines:
        with files[0].open("rb") as file:
            file.seek(start)
            for _ in range(min(lines, HEADER)):
                file.readline(HEADER)
            start = file.tell()
    return Place(
        files,
        -1 if skip < 0 else start + (0 if packed else skip),
        packed,
        skip if packed else 0,
        encoding in TEXT,
        fields.get("endian", "little").lower() == "big",
    )


def _meta(path: Path, head: bytes) -> Place:
    fields: dict[str, str] = {}
    lines = head.split(b"\n")
    position, rest = 0, []
    for number, line in enumerate(lines, 1):
        position += len(line) + 1
        key, _, value = line.decode("utf-8", "replace").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            rest = [each.decode("utf-8", "replace").strip() for each in lines[number:]]
            break
    named = fields.get("ElementDataFile", "")
    if not named:
        raise DataError(f"{path} has a header that cannot be read", fix="replace the file")
    local = named.upper() == "LOCAL"
    listed = rest if named.split()[0].upper() == "LIST" else None
    start = position if local else _number(path, fields.get("HeaderSize", "0"))
    packed = _true(fields.get("CompressedData", ""))
    if packed and start < 0:
        raise DataError(f"{path} has a header that cannot be read", fix="replace the file")
    big = _true(fields.get("ElementByteOrderMSB", fields.get("BinaryDataByteOrderMSB", "")))
    text = "BinaryData" in fields and not _true(fields["BinaryData"])
    return Place((path,) if local else _files(path, named, listed), start, packed, 0, text, big)


def _true(value: str) -> bool:
    return value[:1].upper() in ("T", "1", "Y")


def _number(path: Path, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{path} has a header that cannot be read", fix="replace the file") from None


def _files(path: Path, named: str, listed: list[str] | None) -> tuple[Path, ...]:
    """The files that a header names: one, a list, or a pattern with first and last number and step."""
    words = named.split()
    names = [named] if listed is None else [each for each in listed if each]
    if listed is None and "%" in named and len(words) >= 4 and all(word.isdigit() for word in words[1:4]):
        first, last, step = map(int, words[1:4])
        names = [_numbered(path, words[0], number) for number in range(first, last + 1, max(step, 1))[:MOST_FILES]]
    if not names or len(names) > MOST_FILES:
        raise DataError(f"{path} names {len(names)} files for its voxels", fix="correct its header")
    return tuple(_inside(path, name) for name in names)


def _numbered(path: Path, pattern: str, number: int) -> str:
    try:
        return pattern % number
    except (TypeError, ValueError):
        raise DataError(f"{path} names its voxels {pattern}", fix="correct its header") from None


def _inside(path: Path, name: str) -> Path:
    """A file beside a header or below its folder. Links are followed, since data managers put them there."""
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - without following links
    file = Path(os.path.normpath(folder / name))
    if not file.is_relative_to(folder):
        raise DataError(f"{path} names {name}, which lies outside its folder", fix="keep the voxels beside the header")
    if not file.is_file():
        raise DataError(f"{path} names {name}, which is not there", fix="restore it")
    return file
