"""Voxels that lie behind a header or in files beside it, compressed or not, as those of NRRD and MetaImage do."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.stored import check_bytes
from medmtl.io.stream import Held, Plain, Stream, Unpacked

HEADER_BYTES = 1 << 20  # of the longest header
MOST_FILES = 1 << 14  # of one volume
NUMBERED = re.compile(r"(\S*%\S*)((?:\s+\d{1,9}){3})(?:\s.*)?", re.ASCII)  # a pattern, and first, last and step
PATTERN = re.compile(r"[^%]*%0?\d{0,2}d[^%]*", re.ASCII)  # a longer width would make names of any length


class Place(NamedTuple):
    """Where voxels lie.

    Attributes:
        files: in their order, each with as many slices as the others.
        start: bytes before them in each file; below 0: they end where the file ends.
        packed: whether each file is compressed from `start` on.
        skip: unpacked bytes before them.
        text: whether they are written as text.
    """

    files: tuple[Path, ...]
    start: int = 0
    packed: bool = False
    skip: int = 0
    text: bool = False


class Header(NamedTuple):
    """What a header says of its voxels, left-posterior-superior as for ITK.

    Attributes:
        size: voxels along each axis, the one that changes fastest first.
        dtype: of a number, with its order of bytes.
        components: numbers of a voxel.
        axes: `(3, 3)`, a column for each of the first three axes, mm for a voxel.
        origin: centre of the first voxel, mm.
        place: of the voxels.
    """

    size: tuple[int, ...]
    dtype: np.dtype
    components: int
    axes: NDArray[np.float64]
    origin: tuple[float, ...]
    place: Place


def broken(path: Path) -> DataError:
    """The error of a header that cannot be followed."""
    return DataError(f"{path} has a header that cannot be read", fix="replace the file")


def open_voxels(path: Path, header: Header) -> tuple[Stream, int]:
    """The bytes of the voxels, and where they begin in them.

    Args:
        path: the header, for messages.
        header: of the voxels.

    Raises:
        DataError: the files hold fewer bytes.
    """
    place = header.place
    number = int(np.prod(header.size, dtype=object))
    needed = number * header.dtype.itemsize
    if place.text:
        return _of_text(path, header, number), 0
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


def named_files(path: Path, named: str, listed: list[str] | None) -> tuple[Path, ...]:
    """The files that a header names.

    Args:
        path: the header.
        named: a name, or a pattern with first and last number and step: `slice%03d.raw 1 40 1`.
        listed: a name each; None where there is no list.

    Raises:
        DataError: one lies outside the folder of the header or is not there, or they are too many.
    """
    names: Sequence[Any] = [named] if listed is None else [each for each in listed if each]
    form = ""
    if listed is None and (numbered := NUMBERED.fullmatch(named)):
        form, (first, last, step) = numbered[1], map(int, numbered[2].split())
        if not PATTERN.fullmatch(form):
            raise DataError(f"{path} names its voxels {form[:80]}", fix="correct its header")
        names = range(first, last + 1, max(step, 1))
    if not names or len(names) > MOST_FILES:
        raise DataError(f"{path} names {len(names)} files for its voxels", fix="correct its header")
    return tuple(_inside(path, form % name if form else name) for name in names)


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


def _of_text(path: Path, header: Header, number: int) -> Stream:
    (file, *others) = header.place.files
    if others or header.place.start < 0:
        raise broken(path)
    check_bytes(str(path), header.place.start + 2 * number - 1, file.stat().st_size)  # a digit each, and a space
    with Plain(file) as plain:
        plain.seek(header.place.start)
        words = plain.read().split()
    if len(words) < number:
        raise DataError(f"{path} ends before its last voxel", fix="replace the file")
    value = float if header.dtype.kind == "f" else int
    return Held(np.fromiter(map(value, words[:number]), header.dtype, number).tobytes())


def _inside(path: Path, name: str) -> Path:
    """A file beside a header or below its folder. Links are followed, since data managers put them there."""
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - without following links
    file = Path(os.path.normpath(folder / name))
    if not file.is_relative_to(folder):
        raise DataError(f"{path} names {name}, which lies outside its folder", fix="keep the voxels beside the header")
    if not file.is_file():
        raise DataError(f"{path} names {name}, which is not there", fix="restore it")
    return file
