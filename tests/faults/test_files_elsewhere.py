"""Headers that name their voxels in another file: read beside them and below, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read

VOXELS = np.random.default_rng(0).integers(1, 200, (7, 6, 4)).astype("<i2")
BYTES = VOXELS.tobytes(order="F")
LISTED = "LIST\npart1.raw\npart2.raw\npart3.raw\npart4.raw"  # a slice each


def nrrd(name: str) -> str:
    fields = "type: short\ndimension: 3\nsizes: 7 6 4\nendian: little\nencoding: raw\n"
    return f"NRRD0004\n{fields}data file: {name}\n"


def meta(name: str) -> str:
    return f"NDims = 3\nDimSize = 7 6 4\nElementType = MET_SHORT\nElementDataFile = {name}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of headers, within one that holds what they must not read."""
    (tmp_path / "secret.raw").write_bytes(BYTES)
    (tmp_path / "home/below").mkdir(parents=True)
    for place in ("voxels.raw", "below/voxels.raw"):
        (tmp_path / "home" / place).write_bytes(BYTES)
    for number, part in enumerate(np.split(VOXELS, 4, axis=2), 1):
        (tmp_path / f"home/part{number}.raw").write_bytes(part.tobytes(order="F"))
        (tmp_path / f"part{number}.raw").write_bytes(part.tobytes(order="F"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    "name",
    ["../secret.raw", "below/../../secret.raw", "{root}/secret.raw", f"{LISTED}\n../part1.raw", "../part%d.raw 1 4 1"],
)
@pytest.mark.parametrize("header", ["scan.nhdr", "scan.nrrd", "scan.mhd", "scan.mha"])
def test_a_file_outside_the_folder_of_its_header_is_not_read(home: Path, header: str, name: str) -> None:
    write = nrrd if header.startswith("scan.n") else meta
    (home / header).write_text(write(name.format(root=home.parent)))
    (source,) = find_inputs(home / header)
    with pytest.raises(DataError, match="which lies outside its folder: keep the voxels beside the header"):
        read(source)


@pytest.mark.parametrize("name", ["voxels.raw", "below/voxels.raw", "below/../voxels.raw", LISTED, "part%d.raw 1 4 1"])
@pytest.mark.parametrize("header", ["scan.nhdr", "scan.mhd"])
def test_files_within_it_are_read_as_simpleitk_reads_them(home: Path, header: str, name: str) -> None:
    (home / header).write_text((nrrd if header == "scan.nhdr" else meta)(name))
    (source,) = find_inputs(home / header)
    found = read(source).image[0].numpy()
    assert np.array_equal(found, VOXELS)
    assert np.array_equal(found, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(home / header))).T)


def test_a_second_name_and_a_missing_file_are_refused(home: Path) -> None:
    (home / "scan.nhdr").write_text(nrrd("voxels.raw") + "datafile: ../secret.raw\n")
    (source,) = find_inputs(home / "scan.nhdr")
    with pytest.raises(DataError, match="names two data files"):
        read(source)
    (home / "scan.nhdr").write_text(nrrd("gone.raw"))
    with pytest.raises(DataError, match=r"names gone.raw, which is not there"):
        read(source)
