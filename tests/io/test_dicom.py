"""DICOM series of the makers of scanners: whichever way files hold slices, the volume is the one that was scanned."""

import gzip
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_sample import write_series
from numpy.typing import NDArray
from pydicom.uid import JPEGLosslessSV1

from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import Scan, read

NIBABEL = Path(nib.__file__).parent / "nicom/tests/data"  # files of scanners that come with nibabel
GRID = np.array([[-0.8, 0.0, 0.0, 40.0], [0.0, -0.9, 0.0, 50.0], [0.0, 0.0, 3.0, -20.0], [0.0, 0.0, 0.0, 1.0]])
VOXELS = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 9)).astype(np.int16)


def scans(folder: Path) -> list[Scan]:
    return [read(one) for one in find_inputs(folder, "all")]


def enhanced(path: Path, voxels: NDArray, change: Callable[[pydicom.Dataset], None] = lambda _: None) -> None:
    """One file of all slices, as enhanced CT."""
    slices = [pydicom.dcmread(each) for each in write_series(path.parent / f"of-{path.stem}", voxels, GRID)]
    for each in path.parent.glob(f"of-{path.stem}/*"):
        each.unlink()
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(slices, "1.2.3", 1, highdicom.UID(), 1)
    change(made)
    pydicom.dcmwrite(path, made)


def canonical(voxels: NDArray, affine: NDArray) -> tuple[NDArray, NDArray]:
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(voxels, np.float64), affine))
    return image.get_fdata(), image.affine


def same_volume(scan: Scan, voxels: NDArray, affine: NDArray) -> bool:
    """Whether a scan is a volume, whatever the order in which its voxels are stored."""
    ours = canonical(scan.image[0].numpy(), scan.image.affine.numpy())
    return all(np.allclose(mine, other, atol=1e-3) for mine, other in zip(ours, canonical(voxels, affine), strict=True))


def without_frame_of_reference(image: pydicom.Dataset) -> None:
    del image.FrameOfReferenceUID


def with_private_dimensions(image: pydicom.Dataset) -> None:
    dimension = pydicom.Dataset()
    dimension.DimensionIndexPointer, dimension.DimensionOrganizationUID = 0x00211101, "1.2.9"
    image.DimensionIndexSequence = [dimension]
    for groups in image.PerFrameFunctionalGroupsSequence:
        content = pydicom.Dataset()
        content.DimensionIndexValues = [1]
        groups.FrameContentSequence = [content]


@pytest.mark.parametrize("change", [without_frame_of_reference, with_private_dimensions])
def test_enhanced_files_need_no_frame_of_reference_and_no_public_dimensions(
    tmp_path: Path, change: Callable[[pydicom.Dataset], None]
) -> None:
    enhanced(tmp_path / "one.dcm", VOXELS, change)
    (scan,) = scans(tmp_path / "one.dcm")
    assert same_volume(scan, VOXELS, GRID)


def test_several_enhanced_files_of_a_series_are_its_parts_or_its_volumes(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "times").mkdir()
    shifted = GRID.copy()
    enhanced(tmp_path / "parts/a.dcm", VOXELS[..., :4])
    shifted[2, 3] += 4 * 3

    def above(image: pydicom.Dataset) -> None:
        for groups in image.PerFrameFunctionalGroupsSequence:
            groups.PlanePositionSequence[0].ImagePositionPatient[2] += 4 * 3

    enhanced(tmp_path / "parts/b.dcm", VOXELS[..., 4:], above)
    for number in range(3):
        enhanced(tmp_path / f"times/{number}.dcm", VOXELS + number)
    (scan,) = scans(tmp_path / "parts")
    assert same_volume(scan, VOXELS, GRID)
    found = scans(tmp_path / "times")
    assert len(found) == 3
    assert all(same_volume(scan, VOXELS + number, GRID) for number, scan in enumerate(found))


def mosaic_of_siemens(name: str) -> pydicom.Dataset:
    with gzip.open(NIBABEL / f"{name}.dcm.gz") as file:
        return pydicom.dcmread(file)


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
def test_a_mosaic_of_siemens_is_the_volume_that_nibabel_finds_in_it(tmp_path: Path) -> None:
    wrappers = pytest.importorskip("nibabel.nicom.dicomwrappers")
    (tmp_path / "in").mkdir()
    for name in ("siemens_dwi_0", "siemens_dwi_1000"):
        mosaic = mosaic_of_siemens(name)
        noise = np.random.default_rng(len(name)).integers(0, 4096, (mosaic.Rows, mosaic.Columns))
        mosaic.PixelData = noise.astype("<u2").tobytes()  # theirs is empty
        mosaic.save_as(tmp_path / f"in/{name}.dcm")
    found = scans(tmp_path / "in")
    for scan, path in zip(found, sorted((tmp_path / "in").iterdir()), strict=True):
        wrapped = wrappers.MosaicWrapper(pydicom.dcmread(path))
        assert same_volume(scan, wrapped.get_data(), np.diag([-1, -1, 1, 1]) @ wrapped.affine)
    assert any("holds 2 volumes" in note for note in found[0].warnings)


def test_a_mosaic_without_its_private_header_is_refused(tmp_path: Path) -> None:
    mosaic = mosaic_of_siemens("siemens_dwi_0")
    mosaic.remove_private_tags()
    mosaic.save_as(tmp_path / "one.dcm")
    with pytest.raises(DataError, match=r"mosaic whose private header \(CSA\) is missing"):
        scans(tmp_path)


def ramp(places: NDArray) -> NDArray:
    """A quantity that is linear in mm, so that linear interpolation of it is exact."""
    return 3 * places[..., 0] - 2 * places[..., 1] + 5 * places[..., 2] + 7


def write_ramp(folder: Path, positions: NDArray, shape: tuple[int, int] = (24, 20)) -> None:
    """A series of slices at any positions (left-posterior-superior, mm) that holds `ramp` at every pixel, in 1/100."""
    pixel = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), [0.0], indexing="ij"), -1)[..., 0, :]
    values = [ramp(position + pixel * [0.8, 0.9, 0]) for position in positions]

    def place(index: int, image: pydicom.Dataset) -> None:
        image.ImagePositionPatient = [round(float(value), 6) for value in positions[index]]
        image.PixelData = np.ascontiguousarray(np.round(values[index].T * 20).astype("<i2")).tobytes()

    voxels = np.zeros((*shape, len(positions)), np.int16)
    write_series(folder, voxels, GRID, slope=lambda _: 1 / 20, change=place)


def check_ramp(scan: Scan, least: float) -> None:
    """Check that voxels hold `ramp` where they are, but for a rim that was outside of all slices."""
    image, affine = scan.image[0].numpy(), scan.image.affine.numpy()
    index = np.moveaxis(np.indices(image.shape), 0, -1)
    truth = ramp(nib.affines.apply_affine(np.diag([-1, -1, 1, 1]) @ affine, index))
    assert (np.abs(image - truth) < 0.06).mean() > least
    assert np.allclose(
        affine[:3, :3].T @ affine[:3, :3], np.diag(np.diag(affine[:3, :3].T @ affine[:3, :3])), atol=1e-6
    )


@pytest.mark.parametrize(
    "gaps", [[4] * 9 + [7] * 7, [7] * 5 + [1.1] + [4] * 9, [5] * 6 + [10] * 6, [2.0, 2.9, 3.7] * 4]
)
def test_slices_of_several_spacings_are_interpolated_at_the_finer_one(tmp_path: Path, gaps: list[float]) -> None:
    depths = np.cumsum([0, *gaps])
    write_ramp(tmp_path / "in", np.array([-10.0, 5, -30]) + depths[:, None] * [0, 0, 1])
    (scan,) = scans(tmp_path / "in")
    finest = min(gap for gap in gaps if gap > 1.5)
    assert np.linalg.norm(scan.image.affine[:3, 2].numpy()) == pytest.approx(finest)
    assert scan.image.shape[-1] == int(depths[-1] / finest + 1e-6) + 1
    assert any(f"interpolated every {finest:.2f} mm" in note for note in scan.warnings)
    check_ramp(scan, 0.999)


@pytest.mark.parametrize("aside", [(0, 0.35), (0, -0.35), (0.2, 0), (-0.25, 0.3)])
@pytest.mark.parametrize("gaps", [[3] * 8, [4] * 5 + [6] * 4])
def test_slices_of_a_tilted_gantry_are_moved_to_where_they_were_taken(
    tmp_path: Path, aside: tuple[float, float], gaps: list[float]
) -> None:
    depths = np.cumsum([0, *gaps])
    write_ramp(tmp_path / "in", np.array([-10.0, 5, -30]) + depths[:, None] * [*aside, 1])
    (scan,) = scans(tmp_path / "in")
    assert any("the gantry was tilted by" in note for note in scan.warnings)
    columns, rows, _ = scan.image.shape[1:]
    check_ramp(scan, 0.88 * 24 * 20 / (columns * rows))


@pytest.mark.parametrize("lost", [[4], [4, 5], [2, 6], [1]])
def test_slices_that_are_missing_are_counted(tmp_path: Path, lost: list[int]) -> None:
    files = write_series(tmp_path, np.repeat(VOXELS, 2, axis=2), GRID)
    for index in lost:
        files[index].unlink()
    with pytest.raises(DataError, match=f"lacks {len(lost)} slice"):
        scans(tmp_path)


def test_time_points_are_volumes_to_choose_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def at(number: int) -> Callable[[int, pydicom.Dataset], None]:
        def change(index: int, image: pydicom.Dataset) -> None:
            image.SeriesInstanceUID, image.InstanceNumber = "1.2.5", index * 3 + number

        return change

    for number in range(3):
        write_series(tmp_path / "in", VOXELS + number, GRID, series=str(number), change=at(number))
    found = scans(tmp_path / "in")
    assert [scan.name for scan in found] == ["in_000", "in_001", "in_002"]
    assert all(same_volume(scan, VOXELS + number, GRID) for number, scan in enumerate(found))
    (source,) = find_inputs(tmp_path / "in", 2)
    assert same_volume(read(source), VOXELS + 2, GRID)
    (source,) = find_inputs(tmp_path / "in", stack=True)
    assert read(source, (2, 0)).image.shape == (2, *VOXELS.shape)
    with pytest.raises(DataError, match="has no volume 3: it has 3"):
        read(*find_inputs(tmp_path / "in", 3))
    next((tmp_path / "in").glob("2-*")).unlink()
    with pytest.raises(DataError, match="2 to 3 at a place"):
        scans(tmp_path / "in")


def test_a_file_that_lies_there_twice_counts_once(tmp_path: Path) -> None:
    first, *_ = write_series(tmp_path, VOXELS, GRID)
    (tmp_path / "copy.dcm").write_bytes(first.read_bytes())
    (scan,) = scans(tmp_path)
    assert same_volume(scan, VOXELS, GRID)


def test_colours_are_refused_as_such(tmp_path: Path) -> None:
    def rgb(_: int, image: pydicom.Dataset) -> None:
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
        image.PixelData = image.PixelData * 3
        del image.ImagePositionPatient

    def palette(_: int, image: pydicom.Dataset) -> None:
        image.PhotometricInterpretation = "PALETTE COLOR"

    for number, change in enumerate((rgb, palette)):
        write_series(tmp_path / str(number), VOXELS[..., : number + 1], GRID, change=change)
        with pytest.raises(DataError, match="holds colours"):
            scans(tmp_path / str(number))


def test_lossless_jpeg_is_read(tmp_path: Path) -> None:
    pytest.importorskip("gdcm", reason="needs python-gdcm, of the extra `dicom`")

    def compress(index: int, image: pydicom.Dataset) -> None:
        writer = SimpleITK.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "one.dcm"))
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        writer.Execute(SimpleITK.GetImageFromArray(np.ascontiguousarray(VOXELS[..., index].T)))
        image.PixelData = pydicom.dcmread(tmp_path / "one.dcm").PixelData
        image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        image["PixelData"].is_undefined_length = True

    write_series(tmp_path / "in", VOXELS, GRID, change=compress)
    (scan,) = scans(tmp_path / "in")
    assert same_volume(scan, VOXELS, GRID)


@pytest.mark.filterwarnings("error")
def test_what_pydicom_remarks_on_odd_headers_stays_off_the_screen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    files = write_series(tmp_path, VOXELS, GRID)
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"20200101", b"2020-1-1").replace(b"120000", b"12:0:0"))
    assert len(scans(tmp_path)) == 1
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
