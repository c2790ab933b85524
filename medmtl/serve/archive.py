"""Archives: a zipped series unpacked under names of our own, after its table of contents was looked at."""

import stat
import struct
import zipfile
import zlib
from http import HTTPStatus
from pathlib import Path
from typing import IO

from medmtl.errors import on_one_line
from medmtl.io.input import SUFFIXES, hidden
from medmtl.serve.answers import RequestError
from medmtl.serve.options import MEGABYTE

MOST_FILES = 20_000
CONTENTS_BYTES = 1 << 23  # of the table of contents
END = 22  # bytes of the record at the end, which says where the table of contents is; a comment may follow
TAIL = END + (1 << 16)
ENDS, ENDS_64 = b"PK\x05\x06", b"PK\x06\x07"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack a little to much at once
ENCRYPTED = 0x1  # among the flags of a file
PIECE = 1 << 20
LONGEST = 120  # letters of a name in a message


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", ENDS)


def unpack(path: Path, label: str, folder: Path, most: int) -> dict[str, str]:
    """Unpack the files of a zip into one folder.

    Args:
        path: the zip.
        label: what the client calls it.
        folder: an empty one.
        most: bytes of all files together.

    Returns:
        Name in the folder -> name in the zip, for messages.

    Raises:
        RequestError: it is damaged or encrypted, unpacks to more, or holds links or names that lead elsewhere.
    """
    names: dict[str, str] = {}
    try:
        with path.open("rb") as stream:
            _check_contents(stream, label)
            with zipfile.ZipFile(stream) as archive:
                unpacking = archive.open  # as bytes
                files = [entry for entry in archive.infolist() if not entry.is_dir()]
                _check(files, label, most)
                for entry in files:
                    inside = Path(entry.filename)
                    if hidden(inside) or "__MACOSX" in inside.parts:
                        continue
                    name = f"{len(names):05d}{suffix_of(inside.name)}"
                    with unpacking(entry) as packed, (folder / name).open("xb") as unpacked:
                        while piece := packed.read(PIECE):
                            unpacked.write(piece)
                    names[name] = on_one_line(entry.filename)[-LONGEST:]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error):
        raise _refused(label, "is a damaged zip", "zip it again") from None
    return names


def _check_contents(stream: IO[bytes], label: str) -> None:
    """Check the table of contents before it is read: `zipfile` makes an object of each of its lines."""
    size = stream.seek(0, 2)
    stream.seek(max(size - TAIL, 0))
    tail = stream.read()
    last = len(tail) - END if tail[-END:].startswith(ENDS) else -1
    for place in {last, tail.rfind(ENDS)} - {-1}:  # `zipfile` takes one or the other
        if tail[max(place - 20, 0) :].startswith(ENDS_64):
            raise _refused(label, "is a zip of more than 4 GB or 65,535 files", "zip one series")
        (length,) = struct.unpack_from("<L", tail.ljust(place + END, b"\0"), place + 12)
        if length > CONTENTS_BYTES:
            raise _refused(label, "is a zip with a table of contents that is too long", "zip one series")
    stream.seek(0)


def _check(files: list[zipfile.ZipInfo], label: str, most: int) -> None:
    """Check what a zip says of its files; `zipfile` unpacks no more of one than is said here."""
    if len(files) > MOST_FILES:
        raise _refused(label, f"holds {len(files):,} files", f"zip one series, of at most {MOST_FILES:,}")
    for entry in files:
        name = on_one_line(entry.filename)[-LONGEST:]
        inside = entry.filename.replace("\\", "/")
        if inside.startswith("/") or ".." in inside.split("/") or inside[1:2] == ":":
            raise _refused(label, f"holds a path that leads out of it ({name})", "zip a folder by its name")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused(label, f"holds a link ({name})", "zip the files themselves")
        if entry.flag_bits & ENCRYPTED:
            raise _refused(label, "is encrypted", "zip it without a password")
        if entry.compress_type not in METHODS:
            raise _refused(label, "is compressed in a way that is not read", "zip it by deflate")
    total = sum(entry.file_size for entry in files)
    if total > most:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{label} unpacks to {total // MEGABYTE:,} MB, more than the {most // MEGABYTE:,} MB that are taken",
            "zip one series, or raise --max-upload of medmtl serve",
        )


def suffix_of(name: str) -> str:
    """The ending of a name, where it is that of an image; else nothing: its content may be one of DICOM."""
    return next((each for each in SUFFIXES if name.lower().endswith(each)), "")


def _refused(label: str, what: str, fix: str) -> RequestError:
    return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{label} {what}", fix)
