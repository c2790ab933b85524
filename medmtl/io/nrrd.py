"""The header of a NRRD file (`.nrrd`), or of one whose voxels lie beside it (`.nhdr`), as ITK reads it."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.voxel_files import HEADER_BYTES, Header, Place, broken, named_files

PACKED = ("gzip", "gz")
TEXT = ("ascii", "text", "txt")
WIDTHS = {"char": 1, "short": 2, "int": 4, "long long": 8, "longlong": 8}  # bytes of the types of C
FLOATS = {"float": "f4", "double": "f8"}
OF_PLACES = ("domain", "space", "time", "none", "???")  # kinds of axes along which voxels lie; those of others hold one
# Directions of the world that are turned round, of spaces that are known not to be left-posterior-superior.
TURNED = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1, -1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1, -1, 1)),
}


def read_nrrd(path: Path) -> Header:
    """Read a header.

    Raises:
        DataError: it cannot be followed, or names a file outside its folder.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if not head.startswith(b"NRRD"):
        raise broken(path)
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
        if key == "datafile" and key in fields:
            raise DataError(f"{path} names two data files", fix="correct its header")
        fields[key] = value.strip()
        if key == "datafile" and value.split()[:1] == ["LIST"]:
            listed = []
    try:
        return _header(path, fields, _place(path, fields, position if attached else None, listed))
    except (KeyError, ValueError, IndexError, OverflowError):
        raise broken(path) from None


def _header(path: Path, fields: Mapping[str, str], place: Place) -> Header:
    size = [int(word) for word in fields["sizes"].split()]
    if len(size) != int(fields["dimension"]):
        raise broken(path)
    kinds = fields.get("kinds", "").lower().split() or ["???"] * len(size)
    kept = [axis for axis in range(len(size)) if kinds[axis] in OF_PLACES]
    components = int(np.prod([size[axis] for axis in range(len(size)) if axis not in kept], dtype=object))
    vectors = _vectors(fields, len(size))
    grid = np.eye(3)
    for column, axis in enumerate(kept[:3]):
        vector = vectors[axis]
        if vector is not None:
            grid[:, column] = vector
    origin = [float(word) for word in fields.get("spaceorigin", "(0,0,0)").strip("() ").split(",")][:3]
    turned = np.array(TURNED.get(fields.get("space", "").lower(), (1, 1, 1)))
    return Header(
        tuple(size[axis] for axis in kept),
        _dtype(path, fields),
        components,
        grid * turned[:, None] if "space" in fields else grid,
        tuple((turned[: len(origin)] * origin).tolist()),
        place,
    )


def _vectors(fields: Mapping[str, str], axes: int) -> list[NDArray[np.float64] | None]:
    """For each axis what a voxel along it is in the world; None where nothing tells."""
    if "spacedirections" in fields:
        words = re.findall(r"none|\([^)]*\)", fields["spacedirections"])
        found: list[NDArray[np.float64] | None] = []
        for word in words:
            numbers = [] if word == "none" else [float(each) for each in word.strip("()").split(",")][:3]
            found.append(np.pad(np.array(numbers), (0, 3 - len(numbers))) if numbers else None)
        return found
    sizes = [float(word) for word in fields.get("spacings", "").split()] or [float("nan")] * axes
    places = [np.eye(3)[min(axis, 2)] for axis in range(axes)]
    return [size * place if np.isfinite(size) else None for size, place in zip(sizes, places, strict=True)]


def _dtype(path: Path, fields: Mapping[str, str]) -> np.dtype:
    native = _native(path, " ".join(fields["type"].lower().split()))
    return native.newbyteorder(">" if fields.get("endian", "little").lower() == "big" else "<")


def _native(path: Path, name: str) -> np.dtype:
    """The type that a NRRD file calls so."""
    if name in FLOATS:
        return np.dtype(FLOATS[name])
    known = re.fullmatch(r"(u?)int(8|16|32|64)(?:_t)?", name)
    if known:
        return np.dtype(f"{known[1] or 'i'}{int(known[2]) // 8}")
    sign = "u" if name.startswith("u") else "i"
    plain = re.sub(r"^(unsigned |signed |u)", "", name).removesuffix(" int")
    if plain not in WIDTHS:
        raise broken(path)
    return np.dtype(f"{sign}{WIDTHS[plain]}")


def _place(path: Path, fields: Mapping[str, str], position: int | None, listed: list[str] | None) -> Place:
    """Where the voxels lie; `position` is the end of the header, None where the file ends with it."""
    named = fields.get("datafile")
    encoding = fields.get("encoding", "raw").lower()
    lines, skip = (int(fields.get(key, "0")) for key in ("lineskip", "byteskip"))
    packed, text = encoding in PACKED, encoding in TEXT
    if not (packed or text or encoding == "raw"):
        raise DataError(f"{path} is encoded as {encoding}", fix="save it as raw or gzip")
    if lines < 0 or skip < (-1 if encoding == "raw" else 0) or (named is None and position is None):
        raise broken(path)
    files = (path,) if named is None else named_files(path, named, listed)
    start = position or 0 if named is None else 0
    if lines:
        with files[0].open("rb") as file:
            file.seek(start)
            for _ in range(min(lines, HEADER_BYTES)):
                file.readline(HEADER_BYTES)
            start = file.tell()
    return Place(files, -1 if skip < 0 else start + (0 if packed else skip), packed, skip if packed else 0, text)
