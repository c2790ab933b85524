"""Headers that promise more than there is, or than a computer holds: refused before anything of that size is made."""

import gzip
import io
import resource
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_image
from medmtl.data_tools.facts import Request, look_at
from medmtl.errors import ConfigError, DataError
from medmtl.io.dicom.files import headers, series_of, whole
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.io.stream import GZIP

MEGABYTE = 1 << 20
SECONDS = 5

Make = Callable[[Path], Path]


def nifti(dim: list[int], kind: type = nib.Nifti1Header, code: int = 4, body: bytes = b"") -> bytes:
    """A file of a header and few bytes, whatever the header says."""
    fields = np.zeros((), kind.template_dtype)
    fields["sizeof_hdr"], fields["datatype"], fields["bitpix"] = kind.sizeof_hdr, code, 16
    fields["dim"] = [len(dim), *dim, *[1] * (7 - len(dim))]
    fields["pixdim"], fields["vox_offset"], fields["sform_code"] = 1, kind.sizeof_hdr + 4, 1
    fields["srow_x"], fields["srow_y"], fields["srow_z"] = np.eye(4)[:3]
    fields["magic"] = b"n+1" if kind is nib.Nifti1Header else b"n+2\0\r\n\x1a\n"
    return fields.tobytes() + bytes(4) + body


def nrrd(sizes: str, encoding: str = "raw", body: bytes = b"") -> bytes:
    lines = f"NRRD0004\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\nendian: little\n"
    return f"{lines}encoding: {encoding}\n\n".encode() + body


def meta(sizes: str, packed: bool = False, body: bytes = b"") -> bytes:
    lines = f"NDims = {len(sizes.split())}\nDimSize = {sizes}\nElementType = MET_SHORT\n"
    return f"{lines}CompressedData = {packed}\nElementDataFile = LOCAL\n".encode() + body


def sizes(seed: int, product: int) -> list[int]:
    """Three sizes whose product is about one that is wanted."""
    one, other = np.random.default_rng(seed).integers(100, 2000, 2).tolist()
    return [one, other, max(product // (one * other), 2)]


def text(seed: int, product: int) -> str:
    return " ".join(map(str, sizes(seed, product)))


ZEROS = gzip.compress(bytes(8 * MEGABYTE))  # 8 kB
HELD = 2**29  # voxels, fewer than the limit
# The header promises what the file cannot hold; where it is compressed, at the highest rate there is.
PROMISES: dict[str, bytes] = {
    **{f"nii {seed}": nifti(sizes(seed, HELD)) for seed in range(3)},
    **{f"nii.gz {seed}": gzip.compress(nifti(sizes(seed, HELD))) for seed in range(3)},
    **{f"nrrd {seed}": nrrd(text(seed, HELD)) for seed in range(3)},
    **{f"mha {seed}": meta(text(seed, HELD)) for seed in range(3)},
    "nii of 155 TB": nifti([30000, 30000, 30000], code=64),
    "nii.gz of 155 TB": gzip.compress(nifti([30000, 30000, 30000], code=64)),
    "nrrd of 155 TB": nrrd("30000 30000 30000"),
    "packed nrrd": nrrd(text(0, HELD), "gzip", ZEROS),
    "nrrd of text": nrrd(text(0, HELD), "ascii", b"1 2 3"),
    "packed mha": meta(text(0, HELD), True, zlib.compress(bytes(MEGABYTE))),
    "nii of 2^40 volumes": nifti([6, 5, 4, 2**40], nib.Nifti2Header),
    "nii.gz of 2^40 volumes": gzip.compress(nifti([6, 5, 4, 2**40], nib.Nifti2Header)),
    "nii.gz of 2^20 volumes": gzip.compress(nifti([2, 2, 2, 2**20], nib.Nifti2Header, body=bytes(8 * MEGABYTE))),
    "nrrd of 2^40 volumes": nrrd(f"6 5 4 {2**40}"),
    "more than there is in the stream": gzip.compress(nifti([200, 200, 100], body=bytes(MEGABYTE))),
    "a volume of zeros": gzip.compress(nifti([200, 200, 100], body=bytes(8 * 10**6))),
    "one side below 0": nifti([20, -18, 16]),
}


def saved(folder: Path, name: str, content: bytes) -> Path:
    kind = next(ending for ending in ("nrrd", "mha", "nii") if ending in name or ending == "nii")
    path = folder / f"scan.{kind}{'.gz' if content.startswith(GZIP) else ''}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", PROMISES)
def test_what_a_header_promises_in_vain_is_refused_at_once(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name, PROMISES[name])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = find_inputs(path, "all")
    assert len(found) == 1
    for refuse in (
        lambda: read(found[0]),
        lambda: check_image("Liver", Case("one", "one", (path,), (LabelFile(path),))),
    ):
        with pytest.raises(DataError, match="scan") as error:
            refuse()
        assert "\n" not in str(error.value)
    _, findings = look_at(Request("Liver", tmp_path, Case("one", "one", (path,)), None))
    assert "error" in {finding.severity for finding in findings}
    assert time.perf_counter() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_an_extension_of_a_header_is_not_followed(tmp_path: Path) -> None:
    content = bytearray(nifti([6, 5, 4], body=np.arange(120, dtype="<i2").tobytes()))
    content[348] = 1  # extensions follow
    content[352:360] = struct.pack("<ii", 2**31 - 16, 6)
    path = saved(tmp_path, "nii", gzip.compress(bytes(content)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(find_inputs(path)[0]).image.shape == (1, 6, 5, 4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000


def test_a_valid_volume_beyond_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = nifti([30, 20, 10], body=np.arange(6000, dtype="<i2").tobytes())
    path = saved(tmp_path, "nii", content)
    (source,) = find_inputs(path)
    monkeypatch.setenv("MEDMTL_MAX_VOXELS", "6000")
    assert read(source).image.shape == (1, 30, 20, 10)
    monkeypatch.setenv("MEDMTL_MAX_VOXELS", "5999")
    with pytest.raises(DataError, match=r"30 x 20 x 10 voxels, too many to hold: .* MEDMTL_MAX_VOXELS above 5999"):
        read(source)
    monkeypatch.setenv("MEDMTL_MAX_VOXELS", "many")
    with pytest.raises(ConfigError, match="MEDMTL_MAX_VOXELS=many: use a number of voxels"):
        read(source)


def test_volumes_that_are_too_many_together_are_refused_where_all_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, "nii", nifti([6, 5, 4, 50], body=np.arange(6000, dtype="<i2").tobytes()))
    monkeypatch.setenv("MEDMTL_MAX_VOXELS", "5000")
    assert len(find_inputs(path, "all")) == 50
    assert read(find_inputs(path)[0]).image.shape == (1, 6, 5, 4)
    _, (finding,) = look_at(Request("Liver", tmp_path, Case("one", "one", (path,)), None))
    assert "holds 50 volumes of 6 x 5 x 4 voxels, too many to hold" in finding.message


def deflated(pixels: bytes) -> bytes:
    """A DICOM file of that transfer syntax which deflates it as a whole."""
    image, stream = Dataset(), io.BytesIO()
    image.SOPClassUID, image.SOPInstanceUID, image.SeriesInstanceUID = CTImageStorage, "1.2", "1.3"
    image.Rows, image.Columns, image.BitsAllocated, image.PixelData = 2, 2, 16, pixels
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_a_deflated_dicom_file_is_not_unpacked_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(deflated(bytes(3 * MEGABYTE)))
    monkeypatch.setattr("zlib.decompress", lambda *_: pytest.fail("unpacked at once"))
    monkeypatch.setattr("medmtl.io.dicom.files.MOST_DEFLATED", 2 * MEGABYTE)
    for refuse in (lambda: headers(path, None), lambda: whole(path)):
        with pytest.raises(DataError, match=r"scan.dcm cannot be read \(it unpacks to more than 2 MB\)"):
            refuse()
    assert [series.uid for series in series_of([path])] == [None]
    monkeypatch.undo()
    assert len(whole(path).PixelData) == 3 * MEGABYTE
    assert [series.uid for series in series_of([path])] == ["1.3"]


@pytest.mark.parametrize("form", ["s%09999999d.raw", "s%0999d.raw", "s%s.raw", "s%d%d.raw", "s%*d.raw", "s%x.raw", "%"])
def test_a_pattern_of_names_makes_no_long_ones(tmp_path: Path, form: str) -> None:
    path = tmp_path / "scan.mhd"
    path.write_text(f"NDims = 3\nDimSize = 4 5 40\nElementType = MET_SHORT\nElementDataFile = {form} 1 40 1\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"scan.mhd names its voxels ") as error:
        read(find_inputs(path)[0])
    assert len(str(error.value)) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000


@pytest.mark.parametrize("numbers", ["1 999999999 1", f"1 {'9' * 5000} 1", "1 \u00b2 1"])
def test_numbers_of_files_that_cannot_be_are_refused(tmp_path: Path, numbers: str) -> None:
    path = tmp_path / "scan.mhd"
    path.write_text(f"NDims = 3\nDimSize = 4 5 40\nElementType = MET_SHORT\nElementDataFile = s%d.raw {numbers}\n")
    with pytest.raises(DataError, match=r"scan.mhd (names|cannot be read)") as error:
        read(find_inputs(path)[0])
    assert len(str(error.value)) < 400
