"""Bad scans: whatever is wrong with one, a single line names the file and the reason, and nothing else fails."""

import gzip
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from dicom_sample import write_series
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_image
from medmtl.data_tools.facts import Request, look_at
from medmtl.errors import DataError
from medmtl.extras import how_to_install
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read

SHAPE = (7, 6, 5)
VOXELS = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
AFFINE = np.diag([1.0, 1.5, 2.5, 1.0])

Make = Callable[[Path], Path]


def refusal(path: Path) -> str:
    """The one line that refuses the only input of a path."""
    with pytest.raises(DataError) as error:
        [read(source) for source in find_inputs(path)]
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500, message
    return message


def nifti(
    name: str = "scan.nii.gz",
    voxels: NDArray = VOXELS,
    affine: NDArray | None = AFFINE,
    edit: Callable[[nib.Nifti1Image], None] = lambda _: None,
) -> Make:
    def make(folder: Path) -> Path:
        image = nib.Nifti1Image(voxels, affine)
        edit(image)
        nib.save(image, folder / name)
        return folder / name

    return make


def damaged(make: Make, change: Callable[[bytes], bytes]) -> Make:
    def make_damaged(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make_damaged


def itk(name: str, voxels: NDArray = VOXELS, vector: bool = False) -> Make:
    def make(folder: Path) -> Path:
        image = SimpleITK.GetImageFromArray(voxels.transpose(range(voxels.ndim)[::-1]), isVector=vector)
        SimpleITK.WriteImage(image, str(folder / name))
        return folder / name

    return make


def written(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def in_header(**values: float | list[float]) -> Callable[[bytes], bytes]:
    """Change fields of an uncompressed NIfTI file in place, past everything that nibabel would not write."""

    def change(content: bytes) -> bytes:
        fields = np.frombuffer(content[:348], nib.Nifti1Header.template_dtype).copy()
        for field, value in values.items():
            fields[field] = value
        return fields.tobytes() + content[348:]

    return change


def no_sform(image: nib.Nifti1Image) -> None:
    image.header.set_sform(None, code=0)
    image.header.set_qform(AFFINE, code=1)


def sheared(degrees: float) -> NDArray:
    affine = AFFINE.copy()
    affine[0, 1] = affine[1, 1] * np.tan(np.radians(degrees))
    return affine


def with_values(value: float, count: int) -> NDArray:
    voxels = VOXELS.astype(np.float32)
    voxels.ravel()[:count] = value
    return voxels


LARGER = nifti(voxels=np.tile(VOXELS, (3, 3, 3)))
RAW = nifti("scan.nii")
CODED = nifti("scan.nii", edit=no_sform)
COLOURS = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
HUGE_MHA = b"NDims = 3\nDimSize = 30000 30000 30000\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
HUGE_NRRD = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 30000\nendian: little\nencoding: raw\n\n"
BAD: dict[str, tuple[Make, str]] = {
    "truncated gz": (
        damaged(LARGER, lambda content: content[: len(content) // 2]),
        "ended before the end-of-stream marker",
    ),
    "truncated raw": (damaged(RAW, lambda content: content[:-100]), "cannot be read"),
    "damaged gz": (damaged(nifti(), lambda content: content[:60] + bytes(20) + content[80:]), "cannot be read"),
    "header alone": (damaged(RAW, lambda content: content[:352]), "cannot be read"),
    "text": (written("scan.nii.gz", b"no image"), "cannot be read"),
    "gz of text": (written("scan.nii.gz", gzip.compress(b"no image")), "cannot be read"),
    "empty file": (written("scan.nii.gz", b""), "cannot be read"),
    "two dimensions": (nifti(voxels=VOXELS[..., 0]), "has 2 dimensions (7 x 6)"),
    "one slice": (nifti(voxels=VOXELS[..., :1]), "is a single slice (7 x 6 x 1 voxels)"),
    "five dimensions": (nifti(voxels=np.zeros((3, 4, 5, 2, 3), np.int16)), "has 5 dimensions"),
    "colours": (nifti(voxels=COLOURS), "holds colours or complex numbers"),
    "complex": (nifti(voxels=VOXELS.astype(np.complex64)), "holds colours or complex numbers"),
    "zero spacing": (damaged(CODED, in_header(pixdim=[1, 1, 0, 2.5, 0, 0, 0, 0])), "a voxel size of 0 mm along axis 1"),
    "zero column": (damaged(RAW, in_header(srow_z=[0, 0, 0, 0])), "a voxel size of 0 mm along axis 2"),
    "spacing that is not finite": (
        damaged(CODED, in_header(pixdim=[1, 1, np.nan, 2.5, 0, 0, 0, 0])),
        "an affine or spacing that is not finite",
    ),
    "affine that is not finite": (damaged(RAW, in_header(srow_x=[1, 0, 0, np.inf])), "that is not finite"),
    "micrometres as millimetres": (nifti(affine=AFFINE * 1000), "is 12500 mm long"),
    "millimetres as micrometres": (nifti(affine=AFFINE / 1000), "is 0.0125 mm long"),
    "beyond what float32 can square": (nifti(voxels=with_values(3e38, 1)), "values up to 3e+38, which are no"),
    "negative side": (damaged(RAW, in_header(dim=[3, 7, -6, 5, 1, 1, 1, 1])), "has 7 x -6 x 5 voxels in its header"),
    "pointer of Git LFS": (
        written("scan.nii.gz", b"version https://git-lfs.github.com/spec/v1\n"),
        "run `git lfs pull`",
    ),
    "wrong sum": (damaged(nifti(), lambda content: content[:-6] + bytes(2) + content[-4:]), "incorrect data check"),
    "sheared": (nifti(affine=sheared(5)), "has a sheared affine (axes up to 5.0 degrees off a right angle)"),
    "flat": (
        nifti(affine=np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]])),
        "axes up to 90.0 degrees",
    ),
    "constant": (nifti(voxels=np.full(SHAPE, -1024, np.int16)), "is -1024 in all voxels"),
    "not finite": (nifti(voxels=with_values(np.nan, 3)), "holds 3 voxels of 210 that are not finite"),
    "infinite": (nifti(voxels=with_values(np.inf, 7)), "holds 7 voxels of 210 that are not finite"),
    "all not finite": (nifti(voxels=with_values(np.nan, 210)), "holds 210 voxels of 210 that are not finite"),
    "beyond float32": (nifti(voxels=np.where(VOXELS > 150, 1e200, VOXELS)), "that are not finite"),
    "huge": (damaged(RAW, in_header(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])), "claims 30000 x 30000 x 30000 voxels"),
    "huge mha": (written("scan.mha", HUGE_MHA), "claims 30000 x 30000 x 30000 voxels"),
    "huge nrrd": (written("scan.nrrd", HUGE_NRRD), "claims 30000 x 30000 x 30000 voxels"),
    "truncated nrrd": (damaged(itk("scan.nrrd"), lambda content: content[:-50]), "ends before its last voxel"),
    "truncated mha": (damaged(itk("scan.mha"), lambda content: content[:-50]), "ends before its last voxel"),
    "nrrd of text": (written("scan.nrrd", b"no image"), "has a header that cannot be read"),
    "mha of text": (written("scan.mha", b"no image"), "has a header that cannot be read"),
    "empty mha": (written("scan.mha", b""), "has a header that cannot be read"),
    "colours in mha": (itk("scan.mha", np.zeros((3, *SHAPE), np.uint8), vector=True), "holds colours, vectors"),
    "mha of two dimensions": (itk("scan.mha", VOXELS[..., 0]), "has 2 dimensions"),
    "constant nrrd": (itk("scan.nrrd", np.zeros(SHAPE, np.int16)), "is 0 in all voxels"),
    "dcm of text": (written("scan.dcm", b"no image"), "cannot be read"),
    "unknown": (written("scan.pdf", b"%PDF"), "is not an image that can be read"),
}


@pytest.mark.parametrize(("make", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_in_one_line_by_prediction_training_and_data_check(
    tmp_path: Path, make: Make, reason: str
) -> None:
    path = make(tmp_path)
    message = refusal(path)
    assert str(path) in message
    assert reason in message
    case = Case("one", "one", (path,), (LabelFile(path),))
    with pytest.raises(DataError) as trained:
        check_image("task Liver", case)
    if path.suffix in (".dcm", ".pdf"):  # no layout of a dataset lists these
        return
    assert str(trained.value) == f"task Liver, case one: {message}"
    _, findings = look_at(Request("Liver", tmp_path, replace(case, labels=()), None))
    assert "error" in {finding.severity for finding in findings}
    if findings[0].rule == "unreadable":
        assert f"{findings[0].message}: {findings[0].fix}" == message.replace(f"{tmp_path}/", "")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.nrrd", "scan.mha", "slice.dcm"])
def test_any_damage_is_read_or_refused(tmp_path: Path, name: str) -> None:
    if name == "slice.dcm":
        path = write_series(tmp_path, VOXELS, AFFINE)[2]
    else:
        path = (nifti if ".nii" in name else itk)(name)(tmp_path)
    content, draw = path.read_bytes(), np.random.default_rng(0)
    for _ in range(25):
        damage = bytearray(content)
        for place in draw.integers(0, min(len(content), 1500), draw.integers(1, 6)):
            damage[place] = draw.integers(256)
        path.write_bytes(damage)
        for source in find_inputs(path.parent):
            try:
                assert read(source).image.isfinite().all()
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017
                assert str(path.parent) in str(error)  # noqa: PT017


def test_a_grid_that_resampling_left_a_trace_in_is_fine(tmp_path: Path) -> None:
    (source,) = find_inputs(nifti(affine=sheared(0.5))(tmp_path))
    assert np.allclose(read(source).image.affine.numpy(), sheared(0.5))


def series(**options) -> Make:
    def make(folder: Path) -> Path:
        write_series(folder / "in", VOXELS, AFFINE, **options)
        return folder / "in"

    return make


def without(*indices: int) -> Make:
    def make(folder: Path) -> Path:
        files = write_series(folder / "in", np.tile(VOXELS, (1, 1, 2)), AFFINE)
        for index in indices:
            files[index].unlink()
        return folder / "in"

    return make


def changed(index: int, change: Callable[[Dataset], None]) -> Make:
    return series(change=lambda number, image: change(image) if number == index else None)


def moved(by: tuple[float, float, float]) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        image.ImagePositionPatient = [float(a) + b for a, b in zip(image.ImagePositionPatient, by, strict=True)]

    return change


def nearly_doubled(index: int, image: Dataset) -> None:
    moved((0, 0, -2.2 * (index > 2)))(image)


def smaller(image: Dataset) -> None:
    image.Rows, image.PixelData = 5, image.PixelData[: 5 * 7 * 2]


def setting(**values: object) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        for name, value in values.items():
            setattr(image, name, value)

    return change


def one_slice_doubled(folder: Path) -> Path:
    files = write_series(folder / "in", VOXELS, AFFINE)
    image = dcmread(files[2])
    image.SOPInstanceUID = "1.2.3"  # the same file twice is no fault
    image.save_as(folder / "in/another.dcm")
    return folder / "in"


def compressed(folder: Path) -> Path:
    for path in write_series(folder / "in", VOXELS, AFFINE):
        image = dcmread(path)
        image.file_meta.TransferSyntaxUID = HTJ2KLossless
        image.PixelData = encapsulate([bytes(image.PixelData)])
        image.save_as(path)
    return folder / "in"


def broken_slice(keep: Callable[[bytes], bytes]) -> Make:
    def make(folder: Path) -> Path:
        path = write_series(folder / "in", VOXELS, AFFINE)[2]
        path.write_bytes(keep(path.read_bytes()))
        return folder / "in"

    return make


TURNED = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
BAD_SERIES: dict[str, tuple[Make, str]] = {
    "missing slice": (without(4), "lacks 1 slice: there are 5.00 mm between two (usually 2.50 mm), after "),
    "missing slices": (without(2, 6, 7), "lacks 3 slices: there are 7.50 mm between two"),
    "single slice": (without(*range(1, 10)), "is a single slice of a series"),
    "doubled slice": (
        one_slice_doubled,
        "has slices at the place of another (1 of 6), 1 to 2 at a place (several echoes or time points, one of them",
    ),
    "one place": (
        series(change=lambda _, image: setting(ImagePositionPatient=[0, 0, 0])(image)),
        "5 slices at one place",
    ),
    "uneven": (series(change=nearly_doubled), "has slices 0.30 to 2.50 mm apart: resample it"),
    "out of line": (changed(2, moved((0, 3, 0))), "has slices that are not stacked along a line"),
    "mixed sizes": (changed(3, smaller), "mixes slices of several sizes (7 x 5, 7 x 6)"),
    "mixed orientations": (changed(0, setting(ImageOrientationPatient=TURNED)), "mixes slices of several orientations"),
    "mixed pixel spacings": (changed(1, setting(PixelSpacing=[1, 1])), "mixes slices of several pixel spacings"),
    "no position": (changed(1, setting(ImagePositionPatient=None)), "has slices without ImagePositionPatient (1 of 5)"),
    "zero pixel spacing": (
        series(change=lambda _, image: setting(PixelSpacing=[0, 1])(image)),
        "has a voxel size of 0 mm along axis 1",
    ),
    "colours": (
        series(change=lambda _, image: setting(SamplesPerPixel=3, PhotometricInterpretation="RGB")(image)),
        "holds colours",
    ),
    "compressed": (compressed, "is compressed (High-Throughput JPEG 2000 Image Compression (Lossless Only)"),
    "truncated pixels": (broken_slice(lambda content: content[:-20]), "cannot be read"),
    "truncated header": (broken_slice(lambda content: content[:300]), "does not name its series (is it truncated?)"),
    "empty slice": (broken_slice(lambda content: b""), "cannot be read"),
    "constant": (series(slope=lambda _: 0.0, intercept=lambda _: 3.0), "is 3 in all voxels"),
}


@pytest.mark.parametrize(("make", "reason"), BAD_SERIES.values(), ids=BAD_SERIES)
def test_a_bad_series_is_refused_in_one_line(tmp_path: Path, make: Make, reason: str) -> None:
    folder = make(tmp_path)
    message = refusal(folder)
    assert str(folder) in message
    assert reason in message


def test_what_would_read_a_compressed_series_is_said(tmp_path: Path) -> None:
    assert f"{how_to_install('dicom')}, or export it without compression" in refusal(compressed(tmp_path))


def test_dicom_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = series()(tmp_path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert how_to_install("dicom") in refusal(folder)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (nifti()(tmp_path), itk("scan.mha")(tmp_path)):
        if os.geteuid() == 0:  # to whom nothing is forbidden
            denied = lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))  # noqa: E731
            monkeypatch.setattr(
                "medmtl.io.nifti.open_stream" if path.suffix == ".gz" else "medmtl.io.itk.Path.open", denied
            )
        path.chmod(0)
        assert f"{path} may not be read" in refusal(path)


def test_a_file_that_is_missing_from_its_place_in_a_list_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    nifti()(tmp_path)
    (tmp_path / "list.json").write_text(json.dumps(["scan.nii.gz", "gone.nii.gz", "lost.mha", "gone_series"]))
    here, *gone = find_inputs(tmp_path / "list.json", "all")
    assert read(here).image.shape == (1, *SHAPE)
    for source in gone:
        with pytest.raises(DataError, match=f"{source.path} is missing"):
            read(source)


def test_a_folder_goes_on_past_its_bad_files(tmp_path: Path) -> None:
    nifti("in-good.nii.gz")(tmp_path)
    damaged(nifti("in-broken.nii.gz"), lambda content: content[:200])(tmp_path)
    without(3)(tmp_path)
    outcome = {}
    for source in find_inputs(tmp_path, "all"):
        try:
            outcome[source.name] = read(source).name
        except DataError as error:
            outcome[source.name] = str(error).split(":")[0].removeprefix(str(tmp_path))
    assert outcome["in-good"] == "in-good"
    assert outcome["in-broken"].startswith("/in-broken.nii.gz cannot be read")
    assert outcome["in"] == "/in (series 1) lacks 1 slice"
