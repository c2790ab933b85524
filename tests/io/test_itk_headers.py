"""Headers of NRRD and MetaImage as people's programs write them: grid and voxels are those that SimpleITK finds."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import Scan, read
from medmtl.io.volume import read_volume

SHAPE = (4, 5, 3)
VOXELS = np.random.default_rng(0).integers(0, 100, SHAPE)
SPACES = (
    "left-posterior-superior",
    "LPS",
    "right-anterior-superior",
    "RAS",
    "left-anterior-superior",
    "LAS",
    "scanner-xyz",
)
# How NRRD calls a type, and what it is.
NRRD_TYPES = {
    **{"signed char": "i1", "int8_t": "i1", "uchar": "u1", "unsigned char": "u1", "uint8": "u1"},
    **{"short": "i2", "short int": "i2", "signed short int": "i2", "int16": "i2", "ushort": "u2", "uint16_t": "u2"},
    **{"unsigned short int": "u2", "int": "i4", "signed int": "i4", "int32": "i4", "uint": "u4", "unsigned int": "u4"},
    **{"longlong": "i8", "long long int": "i8", "int64_t": "i8", "ulonglong": "u8", "uint64": "u8"},
    **{"float": "f4", "double": "f8"},
}


def oblique(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A rotation, voxel sizes and an origin; the first of them are plain."""
    draw = np.random.default_rng(seed)
    rotation = np.linalg.qr(draw.normal(size=(3, 3)))[0] if seed else np.eye(3)
    return rotation, draw.uniform(1, 3, 3).round(3), draw.uniform(-50, 50, 3).round(3)


def check(path: Path) -> Scan:
    """Read a file, and check that SimpleITK reads the same."""
    (source,) = find_inputs(path)
    scan, image = read(source), SimpleITK.ReadImage(str(path))
    assert np.array_equal(scan.image[0].numpy(), SimpleITK.GetArrayFromImage(image).T.astype(np.float32))
    for index in [(0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 2)]:
        place = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.allclose(scan.image.affine.numpy() @ (*index, 1), (*place, 1), atol=1e-5)
    return scan


def write(path: Path, header: str, dtype: str = "<i2") -> Path:
    path.write_bytes(header.encode() + VOXELS.astype(dtype).tobytes(order="F"))
    return path


def vectors(rows: np.ndarray) -> str:
    return " ".join(f"({','.join(map(repr, map(float, row)))})" for row in rows)


@pytest.mark.parametrize("space", SPACES)
def test_every_space_of_nrrd(tmp_path: Path, space: str) -> None:
    for seed in range(4):
        rotation, sizes, origin = oblique(seed)
        header = f"NRRD0005\n# a comment\ntype: short\ndimension: 3\nspace: {space}\nsizes: 4 5 3\n"
        header += f"space directions: {vectors((rotation * sizes).T)}\nkinds: domain domain domain\nendian: little\n"
        header += f"encoding: raw\nspace origin: {vectors([origin])}\nkey:=value: of another\n\n"
        check(write(tmp_path / "scan.nrrd", header))


@pytest.mark.parametrize("name", NRRD_TYPES)
@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_type_of_nrrd(tmp_path: Path, name: str, endian: str) -> None:
    header = (
        f"NRRD0001\ntype: {name}\ndimension: 3\nsizes: 4 5 3\nspacings: 1.5 2 2.5\nendian: {endian}\nencoding: raw\n\n"
    )
    path = write(tmp_path / "scan.nrrd", header, f"{'<' if endian == 'little' else '>'}{NRRD_TYPES[name]}")
    check(path)
    assert read_volume(path).voxels.dtype == np.dtype(NRRD_TYPES[name])


@pytest.mark.parametrize("lines", ["", "byte skip: 3\n", "line skip: 1\n", "byte skip: -1\n"])
def test_where_nrrd_voxels_begin(tmp_path: Path, lines: str) -> None:
    header = (
        f"NRRD0001\ntype: short\ndimension: 3\nsizes: 4 5 3\nspacings: nan 2 2\nendian: little\n{lines}encoding: raw\n"
    )
    before = "abc" if lines.startswith("byte") else "abc\n" if lines else ""
    check(write(tmp_path / "scan.nrrd", f"{header}\n{before}"))
    write(tmp_path / "scan.raw", before)
    (tmp_path / "scan.nhdr").write_text(f"{header}data file: scan.raw\n")
    check(tmp_path / "scan.nhdr")


def test_an_axis_of_time_and_one_of_a_single_component(tmp_path: Path) -> None:
    body = "type: short\ndimension: 4\nendian: little\nencoding: raw\nspace: LPS\n"
    directions = "(2,0,0) (0,2,0) (0,0,3)"
    timed = f"NRRD0004\n{body}sizes: 4 5 3 1\nspace directions: {directions} none\nkinds: space space space time\n\n"
    path = write(tmp_path / "scan.nrrd", timed)
    assert np.array_equal(read(find_inputs(path)[0]).image[0].numpy(), VOXELS)
    single = f"NRRD0004\n{body}sizes: 1 4 5 3\nspace directions: none {directions}\nkinds: list space space space\n\n"
    check(write(path, single))
    several = single.replace("sizes: 1 4 5 3", "sizes: 2 2 5 3")
    with pytest.raises(DataError, match="holds colours, vectors or complex numbers"):
        read(find_inputs(write(path, several))[0])


@pytest.mark.parametrize("keys", [("Offset", "TransformMatrix"), ("Position", "Rotation"), ("Origin", "Orientation")])
@pytest.mark.parametrize("big", [True, False])
def test_every_name_of_a_meta_grid(tmp_path: Path, keys: tuple[str, str], big: bool) -> None:
    for seed in range(4):
        rotation, sizes, origin = oblique(seed)
        lines = {
            "ObjectType": "Image",
            "NDims": "3",
            "DimSize": "4 5 3",
            "ElementSpacing": " ".join(map(repr, map(float, sizes))),
            keys[0]: " ".join(map(repr, map(float, origin))),
            keys[1]: " ".join(map(repr, map(float, rotation.T.ravel()))),
            "ElementByteOrderMSB": str(big),
            "ElementType": "MET_SHORT",
            "ElementDataFile": "LOCAL",
        }
        header = "".join(f"{key} = {value}\n" for key, value in lines.items())
        check(write(tmp_path / "scan.mha", header, ">i2" if big else "<i2"))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("CHAR", "i1"), ("UCHAR", "u1"), ("SHORT", "i2"), ("USHORT", "u2"), ("INT", "i4"), ("UINT", "u4")),
        *(("LONG_LONG", "i8"), ("ULONG_LONG", "u8"), ("FLOAT", "f4"), ("DOUBLE", "f8")),
    ],
)
def test_every_type_of_meta(tmp_path: Path, name: str, dtype: str) -> None:
    header = f"NDims = 3\nDimSize = 4 5 3\nElementSize = 2 3 4\nElementType = MET_{name}\nElementDataFile = LOCAL\n"
    path = write(tmp_path / "scan.mha", header, f"<{dtype}")
    check(path)
    assert read_volume(path).voxels.dtype == np.dtype(dtype)


def test_voxels_as_text(tmp_path: Path) -> None:
    text = " ".join(map(str, VOXELS.ravel(order="F")))
    nrrd = "NRRD0001\ntype: short\ndimension: 3\nsizes: 4 5 3\nspacings: 1 2 3\nencoding: ascii\n\n"
    meta = "NDims = 3\nBinaryData = False\nDimSize = 4 5 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    for name, header in (("scan.nrrd", nrrd), ("scan.mha", meta)):
        (tmp_path / name).write_text(f"{header}{text}\n")
        check(tmp_path / name)
        (tmp_path / name).write_text(f"{header}{text[: len(text) // 2]}\n")
        with pytest.raises(DataError, match="ends before its last voxel"):
            read(find_inputs(tmp_path / name)[0])


@pytest.mark.parametrize("text", [b"1 2 x", b"1e400 " * 60])
def test_text_that_is_no_number_is_refused(tmp_path: Path, text: bytes) -> None:
    nrrd = b"NRRD0001\ntype: short\ndimension: 3\nsizes: 4 5 3\nspacings: 1 2 3\nencoding: ascii\n\n"
    (tmp_path / "scan.nrrd").write_bytes(nrrd + text * 30)
    with pytest.raises(DataError, match=r"scan.nrrd"):
        read(find_inputs(tmp_path / "scan.nrrd")[0])
