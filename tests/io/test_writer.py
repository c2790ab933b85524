"""Writer: masks and maps lie on the input's own grid, bit by bit, in every orientation."""

import itertools
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_sample import write_series
from nibabel.orientations import io_orientation, ornt_transform
from numpy.typing import NDArray

from medmtl.io.inputs import find_inputs
from medmtl.io.reader import Scan, read, scan_of
from medmtl.io.writer import write_map, write_mask

Save = Callable[..., Path]
SHAPE = (7, 6, 5)
VOXELS = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ np.diag([0.7, 1.3, 2.5])
OBLIQUE[:3, 3] = (-11.5, 20.25, 3.0)
GRID = ("sform_code", "srow_x", "srow_y", "srow_z", "qform_code", "quatern_b", "quatern_c", "quatern_d")
ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(axes, sides, strict=True))
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for sides in itertools.product((0, 1), repeat=3)
]


def read_one(path: Path) -> Scan:
    (source,) = find_inputs(path)
    return read(source)


def bright(scan: Scan) -> NDArray:
    values = scan.image[0].numpy()
    return (values > np.median(values)).astype(np.uint8)


def reoriented(image: nib.Nifti1Image, orientation: str) -> nib.Nifti1Image:
    wanted = nib.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), wanted))


def check_all_orientations(image: nib.Nifti1Image, folder: Path) -> None:
    upright = nib.as_closest_canonical(image)
    values = upright.get_fdata(dtype=np.float32)
    expected = values > np.median(values)
    assert len(set(ORIENTATIONS)) == 48
    for orientation in ORIENTATIONS:
        path = folder / f"{orientation}.nii"
        nib.save(reoriented(image, orientation), path)
        scan, stored = read_one(path), nib.load(path)
        assert nib.aff2axcodes(scan.image.affine.numpy()) == tuple(orientation)
        (written,) = write_mask(folder / "out", scan, bright(scan))
        mask = nib.load(written)
        assert mask.shape == stored.shape
        assert np.array_equal(mask.affine, stored.affine)
        world = nib.as_closest_canonical(mask)
        assert np.array_equal(np.asarray(world.dataobj) == 1, expected)
        assert np.allclose(world.affine, upright.affine, atol=1e-4)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 5), (3.1, 0.9, 1.7)])
def test_storage_order_changes_nothing_in_the_world(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    affine = OBLIQUE @ np.diag([*(np.array(spacing) / (0.7, 1.3, 2.5)), 1])
    check_all_orientations(nib.Nifti1Image(VOXELS, affine), tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["HippocampusMR/imagesTr/hippocampus_024", "OtherAnatomy/imagesTs/epi_phantom"])
def test_storage_order_changes_nothing_for_real_volumes(real_data: Path, tmp_path: Path, name: str) -> None:
    check_all_orientations(nib.load(real_data / f"{name}.nii.gz"), tmp_path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_codes_units_and_both_affines_are_kept(tmp_path: Path, kind: type, order: str) -> None:
    micrometres = np.diag([1000, 1000, 1000, 1]) @ OBLIQUE
    image = kind(VOXELS, micrometres, kind.header_class(endianness=order))
    image.header.set_qform(micrometres @ np.diag([1, 1, 1.001, 1]), code=1)
    image.header.set_sform(micrometres, code=4)
    image.header.set_xyzt_units("micron", "sec")
    image.header["descrip"] = b"Jane Doe"
    image.header["cal_max"] = 100
    nib.save(image, tmp_path / "scan.nii.gz")
    scan = read_one(tmp_path / "scan.nii.gz")
    (written,) = write_mask(tmp_path / "out", scan, bright(scan))
    mask, stored = nib.load(written).header, nib.load(tmp_path / "scan.nii.gz").header
    assert written == tmp_path / "out/scan_mask.nii.gz"
    assert all(np.array_equal(mask[field], stored[field]) for field in GRID)
    assert np.array_equal(mask["pixdim"][:4], stored["pixdim"][:4])
    assert mask.get_xyzt_units()[0] == "micron"
    assert mask.get_data_dtype() == np.uint8
    assert bytes(mask["descrip"]).strip(b"\0") == b""
    assert mask["cal_max"] == 0


def test_a_header_without_orientation_is_kept_as_it_is(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "scan.nii")
    scan = read_one(tmp_path / "scan.nii")
    (written,) = write_mask(tmp_path / "out", scan, bright(scan))
    assert np.array_equal(nib.load(written).affine, nib.load(tmp_path / "scan.nii").affine)
    assert (nib.load(written).header["sform_code"], nib.load(written).header["qform_code"]) == (0, 0)


@pytest.mark.parametrize(("suffix", "written_as"), [("nrrd", "nrrd"), ("nhdr", "nrrd"), ("mha", "mha"), ("mhd", "mha")])
@pytest.mark.parametrize("orientation", ["LPI", "PSR"])
def test_nrrd_and_meta_masks_have_the_grid_of_their_image(
    tmp_path: Path, save_volume: Save, suffix: str, written_as: str, orientation: str
) -> None:
    image = reoriented(nib.Nifti1Image(VOXELS, OBLIQUE), orientation)
    nifti = save_volume("scan.nii.gz", np.asarray(image.dataobj), image.affine)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(tmp_path / f"scan.{suffix}"))
    scan = read_one(tmp_path / f"scan.{suffix}")
    (written,) = write_mask(tmp_path / "out", scan, bright(scan))
    mask, stored = SimpleITK.ReadImage(str(written)), SimpleITK.ReadImage(str(tmp_path / f"scan.{suffix}"))
    assert written.name == f"scan_mask.{written_as}"
    assert mask.GetSize() == stored.GetSize()
    assert mask.GetSpacing() == stored.GetSpacing()
    assert mask.GetOrigin() == stored.GetOrigin()
    assert mask.GetDirection() == stored.GetDirection()
    assert np.array_equal(SimpleITK.GetArrayFromImage(mask).transpose(2, 1, 0), bright(scan))
    assert mask.GetPixelID() == SimpleITK.sitkUInt8


def test_maps_hold_float32(tmp_path: Path, save_volume: Save) -> None:
    scan = read_one(save_volume("scan.nii.gz", VOXELS, OBLIQUE))
    values = np.random.default_rng(1).random(SHAPE)
    written = write_map(tmp_path / "out", scan, values, "_probability")
    assert written == tmp_path / "out/scan_probability.nii.gz"
    assert nib.load(written).get_data_dtype() == np.float32
    assert np.array_equal(nib.load(written).get_fdata(dtype=np.float32), values.astype(np.float32))


def test_arrays_are_written_as_nifti(tmp_path: Path) -> None:
    scan = scan_of(VOXELS, OBLIQUE)
    (written,) = write_mask(tmp_path, scan, bright(scan))
    assert written == tmp_path / "image_mask.nii.gz"
    assert np.allclose(nib.load(written).affine, OBLIQUE, atol=1e-6)
    assert nib.load(written).header.get_xyzt_units()[0] == "mm"


def test_a_mask_of_another_shape_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the scan's"):
        write_mask(tmp_path, scan_of(VOXELS, OBLIQUE), np.zeros((7, 6, 4), np.uint8))
    assert not any(tmp_path.iterdir())


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: nib.Nifti1Image, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("the disc is full")

    monkeypatch.setattr(nib, "save", fail)
    with pytest.raises(OSError, match="disc is full"):
        write_mask(tmp_path, scan_of(VOXELS, OBLIQUE), np.zeros(SHAPE, np.uint8))
    assert not any(tmp_path.iterdir())


def dicom_scan(tmp_path: Path, affine: NDArray = OBLIQUE, **options) -> Scan:
    write_series(tmp_path / "in", VOXELS, affine, **options)
    return read_one(tmp_path / "in")


def check_segmentation(path: Path, nifti: Path) -> highdicom.seg.Segmentation:
    """Check that a segmentation is the mask of a NIfTI file, voxel by voxel in the world."""
    segmentation = highdicom.seg.segread(path)
    volume = segmentation.get_volume(segment_numbers=[1], combine_segments=True)
    affine = np.diag([-1, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]]
    world = nib.as_closest_canonical(nib.Nifti1Image(volume.array.transpose(2, 1, 0), affine))
    expected = nib.as_closest_canonical(nib.load(nifti))
    assert np.array_equal(np.asarray(world.dataobj), np.asarray(expected.dataobj))
    assert np.allclose(world.affine, expected.affine, atol=1e-4)
    return segmentation


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_a_dicom_segmentation_is_the_mask(tmp_path: Path, flips: tuple[int, int, int]) -> None:
    scan = dicom_scan(tmp_path, OBLIQUE @ np.diag([*flips, 1]))
    mask = bright(scan)
    nifti, path = write_mask(tmp_path / "out", scan, mask, {"Liver": [1]})
    assert np.array_equal(np.asarray(nib.load(nifti).dataobj), mask)
    segmentation = check_segmentation(path, nifti)
    assert segmentation.get_segment_description(1).segment_label == "Liver"
    assert (segmentation.PatientID, segmentation.Modality) == ("P1", "SEG")
    assert segmentation.StudyInstanceUID == scan.header[0][0].StudyInstanceUID


def test_an_enhanced_file_has_a_segmentation_too(tmp_path: Path) -> None:
    slices = [pydicom.dcmread(path) for path in write_series(tmp_path / "in", VOXELS, OBLIQUE)]
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(slices, highdicom.UID(), 1, highdicom.UID(), 1)
    made.save_as(tmp_path / "enhanced.dcm")
    scan = read_one(tmp_path / "enhanced.dcm")
    nifti, path = write_mask(tmp_path / "out", scan, bright(scan))
    check_segmentation(path, nifti)


def test_the_same_mask_is_the_same_object(tmp_path: Path) -> None:
    scan = dicom_scan(tmp_path)
    made = [
        pydicom.dcmread(write_mask(tmp_path / str(number), scan, mask)[1])
        for number, mask in enumerate([bright(scan), bright(scan), 1 - bright(scan)])
    ]
    assert made[0].SOPInstanceUID == made[1].SOPInstanceUID != made[2].SOPInstanceUID
    assert len({one.SeriesInstanceUID for one in made}) == 1


def test_an_empty_mask_has_a_segmentation_too(tmp_path: Path) -> None:
    _, path = write_mask(tmp_path / "out", dicom_scan(tmp_path), np.zeros(SHAPE, np.uint8))
    volume = highdicom.seg.segread(path).get_volume(segment_numbers=[1], combine_segments=True)
    assert volume.array.sum() == 0
    assert sorted(volume.array.shape) == sorted(SHAPE)


def test_a_series_that_says_too_little_has_no_segmentation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def without_frame(index: int, image) -> None:
        del image.FrameOfReferenceUID

    scan = dicom_scan(tmp_path, change=without_frame)
    (nifti,) = write_mask(tmp_path / "out", scan, bright(scan))
    assert "no DICOM SEG" in caplog.text
    assert [path.name for path in (tmp_path / "out").iterdir()] == [nifti.name]


def test_the_segmentation_of_an_earlier_run_is_no_input(tmp_path: Path) -> None:
    scan = dicom_scan(tmp_path)
    write_mask(tmp_path / "in", scan, bright(scan))
    (tmp_path / "in/in_mask.nii.gz").unlink()
    assert [one.series for one in find_inputs(tmp_path / "in")] == [scan.input.series]
    assert read_one(tmp_path / "in").image.shape == scan.image.shape


def test_a_mask_keeps_label_values_above_255(tmp_path: Path, save_volume: Save) -> None:
    scan = read_one(save_volume("scan.nii.gz", VOXELS, OBLIQUE))
    mask = np.random.default_rng(2).choice(np.array([0, 7, 300], np.uint16), SHAPE)
    (written,) = write_mask(tmp_path / "out", scan, mask, suffix="")
    assert written == tmp_path / "out/scan.nii.gz"
    assert nib.load(written).get_data_dtype() == np.uint16
    assert np.array_equal(np.asarray(nib.load(written).dataobj), mask)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_a_map_of_classes_has_a_volume_a_class_and_names_them(tmp_path: Path, save_volume: Save, suffix: str) -> None:
    path = save_volume("scan.nii.gz", VOXELS, OBLIQUE)
    if suffix != "nii.gz":
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / f"scan.{suffix}"))
    scan = read_one(tmp_path / f"scan.{suffix}")
    values = np.random.default_rng(1).random((2, *SHAPE)).astype(np.float32)
    written = write_map(tmp_path / "out", scan, values, "probability", ["anterior", "posterior"])
    assert written == tmp_path / f"out/scan_probability.{suffix}"
    read_back = SimpleITK.ReadImage(str(written))
    assert read_back.GetDimension() == 4
    assert np.array_equal(SimpleITK.GetArrayFromImage(read_back).transpose(0, 3, 2, 1), values)
    first = SimpleITK.ReadImage(str(tmp_path / f"scan.{suffix}"))
    assert np.allclose(read_back.GetSpacing()[:3], first.GetSpacing())
    assert np.allclose(read_back.GetOrigin()[:3], first.GetOrigin(), atol=1e-4)
    assert np.allclose(np.reshape(read_back.GetDirection(), (4, 4))[:3, :3].ravel(), first.GetDirection(), atol=1e-6)
    named = "description" if suffix != "nii.gz" else "descrip"
    assert read_back.GetMetaData(named) == "anterior; posterior"
    for place, channel in enumerate(values):  # as another network would read its channels
        (source,) = find_inputs(written, volume=place)
        assert np.array_equal(read(source).image[0].numpy(), channel)


def segments_of(path: Path, nifti: Path) -> dict[str, NDArray]:
    """Segment label -> its voxels, on the grid and in the voxel order of a NIfTI file."""
    segmentation, grid = highdicom.seg.segread(path), nib.load(nifti)
    found = {}
    for number in segmentation.segment_numbers:
        volume = segmentation.get_volume(segment_numbers=[number], combine_segments=False)
        affine = np.diag([-1, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]]
        stored = nib.Nifti1Image(volume.array[..., 0].transpose(2, 1, 0), affine)
        turned = stored.as_reoriented(ornt_transform(io_orientation(affine), io_orientation(grid.affine)))
        assert np.allclose(turned.affine, grid.affine, atol=1e-4)
        found[segmentation.get_segment_description(number).segment_label] = np.asarray(turned.dataobj) > 0
    return found


@pytest.mark.parametrize(
    "segments",
    [
        {"anterior": {1}, "posterior": {300}, "absent": {9}},
        {"whole": {1, 2, 300}, "core": {2, 300}, "enhancing": {300}},
        {"Grau_ä": {1, 2}},
    ],
    ids=["exclusive", "overlapping", "one"],
)
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_a_dicom_segmentation_has_a_segment_a_class(
    tmp_path: Path, segments: dict[str, set[int]], flips: tuple[int, int, int]
) -> None:
    scan = dicom_scan(tmp_path, OBLIQUE @ np.diag([*flips, 1]))
    mask = np.random.default_rng(3).choice(np.array([0, 1, 2, 300], np.uint16), SHAPE)
    nifti, path = write_mask(tmp_path / "out", scan, mask, segments)
    found = segments_of(path, nifti)
    assert list(found) == list(segments)
    for name, values in segments.items():
        expected = np.zeros(SHAPE, bool)
        for value in values:
            expected |= np.asarray(nib.load(nifti).dataobj) == value
        assert np.array_equal(found[name], expected)
        assert expected.any() == (name != "absent")
