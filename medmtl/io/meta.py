"""The header of a MetaImage file (`.mha`), or of one whose voxels lie beside it (`.mhd`), as ITK reads it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medmtl.io.voxel_files import HEADER_BYTES, Header, Place, broken, named_files

TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
DATA = "ElementDataFile"  # the last key
MOST_AXES = 10


def read_meta(path: Path) -> Header:
    """Read a header.

    Raises:
        DataError: it cannot be followed, or names a file outside its folder.
    """
    with path.open("rb") as file:
        lines = file.read(HEADER_BYTES).split(b"\n")
    fields: dict[str, str] = {}
    position, rest = 0, []
    for number, line in enumerate(lines, 1):
        position += len(line) + 1
        key, _, value = line.decode("utf-8", "replace").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == DATA:
            rest = [each.decode("utf-8", "replace").strip() for each in lines[number:]]
            break
    try:
        return _header(path, fields, position, rest)
    except (KeyError, ValueError, IndexError, OverflowError):
        raise broken(path) from None


def _header(path: Path, fields: Mapping[str, str], position: int, rest: list[str]) -> Header:
    axes = int(fields["NDims"])
    if not 1 <= axes <= MOST_AXES:
        raise broken(path)
    size = tuple(int(word) for word in fields["DimSize"].split()[:axes])
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), [1.0] * axes)
    origin = _numbers(fields, ("Offset", "Position", "Origin"), [0.0] * axes)
    turn = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), np.eye(axes).ravel().tolist())
    directions = np.reshape(turn[: axes * axes], (axes, axes)).T  # a row an axis in the file
    three = min(axes, 3)
    grid = np.eye(3)
    grid[:three, :three] = (directions * spacing[:axes])[:three, :three]
    return Header(
        size,
        np.dtype(TYPES[fields["ElementType"].removesuffix("_ARRAY")]).newbyteorder(">" if _big(fields) else "<"),
        int(fields.get("ElementNumberOfChannels", "1")),
        grid,
        tuple(origin[:three]),
        _place(path, fields, position, rest),
    )


def _place(path: Path, fields: Mapping[str, str], position: int, rest: list[str]) -> Place:
    named = fields[DATA]
    local = named.upper() == "LOCAL"
    start = position if local else int(fields.get("HeaderSize", "0"))
    packed = _true(fields.get("CompressedData", ""))
    if packed and start < 0:
        raise broken(path)
    listed = rest if named.split()[0].upper() == "LIST" else None
    text = "BinaryData" in fields and not _true(fields["BinaryData"])
    return Place((path,) if local else named_files(path, named, listed), start, packed, 0, text)


def _numbers(fields: Mapping[str, str], keys: tuple[str, ...], default: list[float]) -> list[float]:
    """The numbers of the first key that is there."""
    text = next((fields[key] for key in keys if key in fields), None)
    return default if text is None else [float(word) for word in text.split()]


def _big(fields: Mapping[str, str]) -> bool:
    """Whether the first byte of a number is the most significant."""
    return _true(fields.get("ElementByteOrderMSB", fields.get("BinaryDataByteOrderMSB", "")))


def _true(value: str) -> bool:
    return value[:1].upper() in ("T", "1", "Y")
