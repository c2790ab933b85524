"""Reader: voxels and grid are what nibabel and SimpleITK say, whatever the file's kind, type and storage order."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from dicom_sample import as_localizer, write_series
from monai.data import MetaTensor
from numpy.typing import NDArray
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import Scan, read, scan_of

Save = Callable[..., Path]
SHAPE = (7, 6, 5)
VOXELS = np.random.default_rng(0).integers(0, 200, SHAPE)
TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURN @ np.diag([0.7, 1.3, 2.5])
OBLIQUE[:3, 3] = (-11.5, 20.25, 3.0)


def read_one(path: Path, volume: int = 0) -> Scan:
    (source,) = find_inputs(path, volume)
    return read(source)


def voxels_of(scan: Scan) -> NDArray:
    assert scan.image.dtype == torch.float32
    return scan.image[0].numpy()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
def test_every_real_type_is_read(tmp_path: Path, kind: str, order: str) -> None:
    stored = (VOXELS - (0 if kind[0] == "u" else 100)).astype(kind)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(kind).newbyteorder(order))
    nib.save(nib.Nifti1Image(stored, OBLIQUE, header), tmp_path / "scan.nii")
    assert np.array_equal(voxels_of(read_one(tmp_path / "scan.nii")), stored.astype(np.float32))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_slope_and_intercept_are_applied(tmp_path: Path, kind: type) -> None:
    image = kind(VOXELS.astype(np.int16), OBLIQUE)
    image.header.set_slope_inter(0.25, -1024)
    nib.save(image, tmp_path / "scan.nii.gz")
    stored = np.asanyarray(nib.load(tmp_path / "scan.nii.gz").dataobj.get_unscaled())
    scan = read_one(tmp_path / "scan.nii.gz")
    assert np.array_equal(voxels_of(scan), (stored * 0.25 - 1024).astype(np.float32))
    assert np.allclose(scan.image.affine.numpy(), OBLIQUE, atol=1e-6)


def test_one_volume_of_several_is_read(save_volume: Save) -> None:
    path = save_volume("four.nii.gz", np.stack([VOXELS, VOXELS + 1, VOXELS * 2], axis=-1).astype(np.int16))
    assert [read(one).image.sum().item() for one in find_inputs(path, "all")] == [
        VOXELS.sum(),
        (VOXELS + 1).sum(),
        (VOXELS * 2).sum(),
    ]
    assert np.array_equal(voxels_of(read_one(path, 2)), VOXELS * 2)
    with pytest.raises(DataError, match="has no volume 3: it has 3, counted from 0"):
        read_one(path, 3)


def test_empty_axes_at_the_end_are_dropped(save_volume: Save) -> None:
    path = save_volume("scan.nii.gz", VOXELS[..., None, None].astype(np.int16))
    assert np.array_equal(voxels_of(read_one(path)), VOXELS)


def test_a_large_volume_is_gathered_from_slabs(save_volume: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmtl.io.stored.SLAB_VOXELS", 2 * SHAPE[0] * SHAPE[1])
    path = save_volume("scan.nii.gz", VOXELS.astype(np.int16))
    assert np.array_equal(voxels_of(read_one(path)), VOXELS)


@pytest.mark.parametrize(("unit", "millimetres"), [("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_the_affine_is_in_millimetres(tmp_path: Path, unit: str, millimetres: float) -> None:
    affine = np.diag([*(OBLIQUE[:3, :3].diagonal() / millimetres), 1])
    image = nib.Nifti1Image(VOXELS.astype(np.int16), affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "scan.nii.gz")
    grid = read_one(tmp_path / "scan.nii.gz").image.affine.numpy()
    assert np.allclose(grid.diagonal()[:3], OBLIQUE[:3, :3].diagonal(), rtol=1e-6)


def test_headers_that_leave_doubts_are_warned_of(tmp_path: Path, save_volume: Save) -> None:
    assert read_one(save_volume("good.nii.gz", VOXELS.astype(np.int16))).warnings == ()
    image = nib.Nifti1Image(VOXELS.astype(np.int16), OBLIQUE)
    image.header.set_qform(np.eye(4), code=1)
    nib.save(image, tmp_path / "two.nii.gz")
    (warning,) = read_one(tmp_path / "two.nii.gz").warnings
    corners = [np.array([i, j, k, 1]) for i in (0, 6) for j in (0, 5) for k in (0, 4)]
    apart = max(np.linalg.norm((OBLIQUE - np.eye(4)) @ corner) for corner in corners)
    assert f"up to {apart:.1f} mm apart" in warning
    image.header.set_qform(None, code=0)
    image.header.set_sform(None, code=0)
    nib.save(nib.Nifti1Image(VOXELS.astype(np.int16), None, image.header), tmp_path / "none.nii.gz")
    (warning,) = read_one(tmp_path / "none.nii.gz").warnings
    assert "left and right may be swapped" in warning


def test_a_qform_that_is_no_rotation_spoils_no_sform(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS.astype(np.int16), OBLIQUE)
    image.header["qform_code"], image.header["quatern_b"] = 1, 7
    nib.save(image, tmp_path / "scan.nii")
    scan = read_one(tmp_path / "scan.nii")
    assert np.allclose(scan.image.affine.numpy(), OBLIQUE, atol=1e-6)
    assert scan.warnings == ()


@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_nrrd_and_meta_files_are_the_nifti_file(tmp_path: Path, save_volume: Save, suffix: str, kind: type) -> None:
    nifti = save_volume("scan.nii.gz", VOXELS.astype(kind), OBLIQUE)
    path = tmp_path / f"other.{suffix}"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(path))
    scan, same = read_one(path), read_one(nifti)
    assert np.array_equal(voxels_of(scan), voxels_of(same))
    assert np.allclose(scan.image.affine.numpy(), same.image.affine.numpy(), atol=1e-5)
    assert scan.modality is None


def test_a_meta_file_of_four_dimensions_has_a_chosen_volume(tmp_path: Path) -> None:
    volumes = [VOXELS.astype(np.int16), (VOXELS * 3).astype(np.int16)]
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(one.transpose(2, 1, 0)) for one in volumes])
    image.SetSpacing((1, 2, 3, 1))
    SimpleITK.WriteImage(image, str(tmp_path / "four.mha"))
    found = [read(one) for one in find_inputs(tmp_path / "four.mha", "all")]
    assert [np.array_equal(voxels_of(scan), volume) for scan, volume in zip(found, volumes, strict=True)] == [
        True,
        True,
    ]
    assert np.allclose(found[1].image.affine.numpy(), np.diag([-1, -2, 3, 1]))


@pytest.mark.parametrize(("modality", "expected"), [("CT", "CT"), ("MR", "MR"), ("PT", "PET")])
def test_a_dicom_series_is_sorted_and_rescaled_slice_by_slice(tmp_path: Path, modality: str, expected: str) -> None:
    slope, intercept = lambda index: 1.0 + index, lambda index: 10.0 * index
    write_series(tmp_path / "in/p1", VOXELS, OBLIQUE, modality, slope=slope, intercept=intercept)
    (source,) = find_inputs(tmp_path / "in")
    scan = read(source)
    assert (source.name, scan.modality) == ("p1", expected)
    numbers = np.arange(SHAPE[2])
    # Slices are sorted along the normal of rows and columns; this affine's third axis is that normal.
    assert np.array_equal(voxels_of(scan), VOXELS * (1 + numbers) + 10 * numbers)
    assert np.allclose(scan.image.affine.numpy(), OBLIQUE, atol=1e-6)
    assert any("SUV" in warning for warning in scan.warnings) == (modality == "PT")


def test_a_dicom_series_reads_as_simpleitk_reads_it(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", VOXELS, OBLIQUE @ np.diag([1, -1, 1, 1]), intercept=lambda _: -1024)
    scan = read_one(tmp_path / "in")
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "in"))
    image = SimpleITK.ReadImage(names)
    assert len(names) == len(files)
    assert np.array_equal(voxels_of(scan), SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))
    for index in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4)]:
        place = image.TransformIndexToPhysicalPoint(index) * np.array([-1, -1, 1])
        assert np.allclose(scan.image.affine.numpy() @ (*index, 1), (*place, 1), atol=1e-5)


def test_a_lists_modality_is_used_and_another_of_the_file_is_warned_of(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", VOXELS, OBLIQUE, "CT")
    (tmp_path / "list.csv").write_text("image,modality\np1,MR\n")
    scan = read_one(tmp_path / "list.csv")
    assert (scan.name, scan.modality) == ("p1", "MR")
    assert scan.warnings == ("the list gives the modality MR, the file CT: that of the list is used",)


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_no_second_copy_of_a_volume_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("medmtl.io.stored.SLAB_VOXELS", 256 * 256)
    voxels = np.random.default_rng(0).integers(0, 200, (256, 256, 16)).astype(np.int16)
    if kind == "dicom":
        write_series(tmp_path, voxels, OBLIQUE)
    else:
        nib.save(nib.Nifti1Image(voxels, OBLIQUE), tmp_path / "scan.nii.gz")
    read_one(tmp_path)  # imports on first use
    tracemalloc.start()
    scan = read_one(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 < peak / (4 * scan.image.numel()) < 1.5


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_a_compressed_series_is_the_same_where_a_decoder_is_there(tmp_path: Path, syntax: UID) -> None:
    write_series(tmp_path / "plain", VOXELS, OBLIQUE)
    write_series(tmp_path / "small", VOXELS, OBLIQUE, change=lambda _, image: image.compress(syntax))
    assert torch.equal(read_one(tmp_path / "small").image, read_one(tmp_path / "plain").image)


def test_reports_and_tables_of_contents_are_no_images(tmp_path: Path) -> None:
    def report(index: int, image: pydicom.Dataset) -> None:
        del image.Rows, image.Columns, image.PixelData
        image.Modality = "SR"

    write_series(tmp_path / "study/images", VOXELS, OBLIQUE)
    write_series(tmp_path / "study/reports", VOXELS, OBLIQUE, series="report", change=report)
    assert [one.name for one in find_inputs(tmp_path / "study")] == ["images"]
    with pytest.raises(DataError, match="holds no images"):
        find_inputs(tmp_path / "study/reports")


def test_a_folder_of_several_series_is_several_inputs(tmp_path: Path) -> None:
    write_series(tmp_path / "study", VOXELS, OBLIQUE, "CT", series="one", number=2)
    write_series(tmp_path / "study", VOXELS + 1, OBLIQUE, "MR", series="two", number=11)
    found = find_inputs(tmp_path / "study")
    assert [one.name for one in found] == ["study_2", "study_11"]
    assert [read(one).modality for one in found] == ["CT", "MR"]


@pytest.mark.parametrize("places", [("study", "study"), ("study/scout", "study/ct")])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_a_localizer_is_left_out_beside_other_series_of_its_study(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, places: tuple[str, str], slices: int
) -> None:
    caplog.set_level("INFO", "medmtl")
    scout, volume = (tmp_path / place for place in places)
    write_series(scout, VOXELS[..., :slices], OBLIQUE, series="scout", number=1, change=as_localizer)
    write_series(volume, VOXELS, OBLIQUE, series="volume", number=2)
    (source,) = find_inputs(tmp_path / "study")
    assert np.array_equal(voxels_of(read(source)), VOXELS)
    assert caplog.messages == [f"left out, for it is a localizer: series 1 of {scout}"]


def test_what_is_no_localizer_or_all_there_is_is_not_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "medmtl")

    def of_another_study(index: int, image: pydicom.Dataset) -> None:
        as_localizer(index, image)
        image.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["another"])

    def at_first(index: int, image: pydicom.Dataset) -> None:
        if index == 0:
            as_localizer(index, image)

    write_series(tmp_path / "alone", VOXELS[..., :1], OBLIQUE, series="alone", change=of_another_study)
    write_series(tmp_path / "mixed", VOXELS, OBLIQUE, series="mixed", number=3, change=at_first)
    write_series(tmp_path / "short", VOXELS[..., :1], OBLIQUE, series="short", number=4)
    assert [one.name for one in find_inputs(tmp_path)] == ["alone", "mixed", "short"]
    assert caplog.messages == []
    for name in ("alone", "short"):
        with pytest.raises(DataError, match="is a single slice of a series"):
            read_one(tmp_path / name)


def test_an_enhanced_file_is_the_series_that_it_was_made_of(tmp_path: Path) -> None:
    slices = write_series(tmp_path / "in", VOXELS, OBLIQUE, intercept=lambda _: -1024)
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(path) for path in slices], highdicom.UID(), 1, highdicom.UID(), 1
    )
    made.save_as(tmp_path / "enhanced.dcm")
    one, all_in_one = read_one(tmp_path / "in"), read_one(tmp_path / "enhanced.dcm")
    back = nib.as_closest_canonical(nib.Nifti1Image(voxels_of(all_in_one), all_in_one.image.affine.numpy()))
    same = nib.as_closest_canonical(nib.Nifti1Image(voxels_of(one), one.image.affine.numpy()))
    assert np.array_equal(back.get_fdata(), same.get_fdata())
    assert np.allclose(back.affine, same.affine, atol=1e-5)
    assert all_in_one.modality == "CT"


@pytest.mark.real_data
def test_a_dicom_series_made_of_a_real_volume_is_its_nifti(real_data: Path, tmp_path: Path) -> None:
    nifti = real_data / "OtherAnatomy/imagesTs/abdomen_ct.nii.gz"
    image = nib.load(nifti)
    write_series(tmp_path / "in", np.asarray(image.dataobj), image.affine)
    scan, same = read_one(tmp_path / "in"), read_one(nifti)
    assert torch.equal(scan.image.as_tensor(), same.image.as_tensor())
    assert np.allclose(scan.image.affine.numpy(), same.image.affine.numpy(), atol=1e-6)


def test_arrays_become_scans_after_the_same_checks() -> None:
    for image in (VOXELS, VOXELS[None].astype(np.float64), torch.from_numpy(VOXELS)):
        scan = scan_of(image, OBLIQUE)
        assert np.array_equal(voxels_of(scan), VOXELS)
        assert np.array_equal(scan.image.affine.numpy(), OBLIQUE)
        assert (scan.name, scan.input.kind, scan.modality) == ("image", "array", None)
    meta = MetaTensor(torch.from_numpy(VOXELS)[None], affine=torch.from_numpy(OBLIQUE))
    assert np.array_equal(scan_of(meta).image.affine.numpy(), OBLIQUE)
    mine = VOXELS.astype(np.float32)
    scan_of(mine, OBLIQUE).image.zero_()
    assert np.array_equal(mine, VOXELS)


@pytest.mark.parametrize(
    ("image", "affine", "reason"),
    [
        (VOXELS, None, "has no affine"),
        (VOXELS, np.eye(3), r"an affine of shape \(3, 3\)"),
        (VOXELS[0], np.eye(4), "has 2 dimensions"),
        (np.stack([VOXELS, VOXELS]), np.eye(4), "has 4 dimensions"),
        (VOXELS * 1j, np.eye(4), "holds complex128"),
        (np.ones(SHAPE), np.eye(4), "is 1 in all voxels"),
        (np.where(VOXELS > 100, np.nan, VOXELS), np.eye(4), f"holds {(VOXELS > 100).sum()} voxels of 210"),
        (VOXELS, np.diag([1, 0, 1, 1]), "0 mm along axis 1"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(image: NDArray, affine: NDArray | None, reason: str) -> None:
    with pytest.raises(DataError, match=f"^the image .*{reason}"):
        scan_of(image, affine)
