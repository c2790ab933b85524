"""Formats of neuroimaging: voxels and places are what nibabel and SimpleITK say, and no library speaks out of turn."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy.io import netcdf_file

from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.io.writer import write_mask

RNG = np.random.default_rng(0)
VOXELS = RNG.integers(0, 200, (7, 6, 5)).astype(np.int16)
TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURN @ np.diag([0.7, 1.3, 2.5])
OBLIQUE[:3, 3] = (-11.5, 20.25, 3.0)


def through(name: str, kind: type, dtype: type = np.int16) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        image = kind(VOXELS.astype(dtype), OBLIQUE if kind is not nib.AnalyzeImage else np.diag([-0.7, 1.3, 2.5, 1]))
        nib.save(image, folder / name)
        return folder / name.replace(".img", ".hdr")

    return save


def minc(folder: Path) -> Path:
    """A file of MINC 1, as `rawtominc` writes it."""
    with netcdf_file(str(folder / "scan.mnc"), "w", version=1) as file:
        for size, (axis, step) in zip(VOXELS.shape, {"zspace": 2.5, "yspace": 1.3, "xspace": 0.7}.items(), strict=True):
            file.createDimension(axis, size)
            variable = file.createVariable(axis, "i", ())
            variable.step, variable.start, variable.spacing = step, 1.0, b"regular__"
        image = file.createVariable("image", "h", ("zspace", "yspace", "xspace"))
        image[:] = VOXELS
        image.signtype, image.valid_range = b"signed__", np.array([0.0, 200.0])
        for name, value in (("image-max", 200.0), ("image-min", 0.0)):
            file.createVariable(name, "d", ()).data = np.array(value, ">f8")
    return folder / "scan.mnc"


def afni(folder: Path) -> Path:
    """A pair of AFNI, oblique as `3dcopy` writes it."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ OBLIQUE[:3]
    numbers = {
        "DATASET_RANK": ("integer", [3, 1]),
        "DATASET_DIMENSIONS": ("integer", [*VOXELS.shape, 0, 0]),
        "ORIENT_SPECIFIC": ("integer", [0, 3, 4]),
        "BRICK_TYPES": ("integer", [1]),
        "BRICK_FLOAT_FACS": ("float", [0.0]),
        "SCENE_DATA": ("integer", [0, 2, 0, *[-999] * 5]),
        "DELTA": ("float", [0.7, 1.3, 2.5]),
        "ORIGIN": ("float", [0, 0, 0]),
        "IJK_TO_DICOM_REAL": ("float", lps.ravel().tolist()),
        "IJK_TO_DICOM": ("float", lps.ravel().tolist()),
    }
    text = "".join(
        f"\ntype = {kind}-attribute\nname = {name}\ncount = {len(values)}\n {' '.join(map(str, values))}\n"
        for name, (kind, values) in numbers.items()
    )
    for name, value in (
        ("BYTEORDER_STRING", "LSB_FIRST~"),
        ("TEMPLATE_SPACE", "ORIG~"),
        ("TYPESTRING", "3DIM_HEAD_ANAT~"),
    ):
        text += f"\ntype = string-attribute\nname = {name}\ncount = {len(value)}\n'{value}\n"
    (folder / "scan+orig.HEAD").write_text(text)
    (folder / "scan+orig.BRIK").write_bytes(VOXELS.tobytes(order="F"))
    return folder / "scan+orig.HEAD"


FORMATS: dict[str, Callable[[Path], Path]] = {
    "mgz": through("scan.mgz", nib.MGHImage, np.float32),
    "mgh": through("scan.mgh", nib.MGHImage, np.int16),
    "pair of NIfTI": through("scan.img", nib.Nifti1Pair),
    "pair of NIfTI 2": through("scan.img", nib.Nifti2Pair),
    "Analyze": through("scan.img", nib.AnalyzeImage),
    "MINC 1": minc,
    "AFNI": afni,
}


@pytest.mark.parametrize("save", FORMATS.values(), ids=FORMATS)
def test_a_file_is_read_from_a_folder_as_nibabel_reads_it(
    tmp_path: Path, save: Callable[[Path], Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    path = save(tmp_path / "in")
    (source,) = find_inputs(tmp_path / "in")  # the voxels of a pair are none by themselves
    scan, image = read(source), nib.load(path)
    voxels = image.get_fdata().reshape(image.shape[:3])  # of AFNI a last axis of one, too
    assert np.array_equal(scan.image[0].numpy(), voxels.astype(np.float32))
    assert np.allclose(scan.image.affine.numpy(), image.affine, atol=1e-5)
    assert ("left and right may be swapped" in " ".join(scan.warnings)) == (image.__class__ is nib.Spm2AnalyzeImage)
    (written,) = write_mask(tmp_path / "out", scan, (scan.image[0] > 100).numpy())
    assert written.name.endswith("_mask.nii.gz")
    assert np.allclose(nib.load(written).affine, image.affine, atol=1e-5)
    assert np.array_equal(nib.load(written).get_fdata(), voxels > 100)
    assert not caplog.records
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["pair of NIfTI", "mgz"])
def test_simpleitk_reads_the_same_where_it_reads_it(tmp_path: Path, kind: str) -> None:
    path = FORMATS[kind](tmp_path)
    (source,) = find_inputs(path)
    found = read(source).image[0].numpy()
    nib.save(nib.Nifti1Image(nib.load(path).get_fdata(), nib.load(path).affine), tmp_path / "same.nii")
    image = SimpleITK.ReadImage(str(tmp_path / "same.nii" if kind == "mgz" else path))
    assert np.array_equal(found, SimpleITK.GetArrayFromImage(image).T)


def test_a_pair_without_its_voxels_is_refused(tmp_path: Path) -> None:
    path = FORMATS["pair of NIfTI"](tmp_path)
    path.with_suffix(".img").unlink()
    (source,) = find_inputs(path)
    with pytest.raises(DataError, match=r"scan.hdr has no scan.img beside it: restore it"):
        read(source)


@pytest.mark.parametrize("zero", [0.0, -1.0])
def test_what_nibabel_repairs_in_a_header_is_said_by_the_scan_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], zero: float
) -> None:
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(VOXELS, OBLIQUE), path)
    content = bytearray(path.read_bytes())
    content[80:92] = np.full(3, zero, "<f4").tobytes()
    path.write_bytes(content)
    (source,) = find_inputs(path)
    scan = read(source)
    assert scan.warnings == ("the voxel sizes of the header are not all above 0; those of the sform are used",)
    assert np.allclose(scan.image.affine.numpy(), OBLIQUE, atol=1e-5)
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_voxels_are_never_read_from_within_the_header(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(VOXELS, OBLIQUE), path)
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(0).tobytes()
    path.write_bytes(content)
    scan = read(find_inputs(path)[0])
    assert np.array_equal(scan.image[0].numpy(), VOXELS)
    assert "let" in scan.warnings[0]


@pytest.mark.parametrize(("volumes", "chosen"), [(1, 0), (3, 0), (3, 2)])
def test_which_of_several_volumes_was_used_is_said(tmp_path: Path, volumes: int, chosen: int) -> None:
    voxels: NDArray = np.stack([VOXELS + number for number in range(volumes)], -1)
    nib.save(nib.Nifti1Image(voxels, OBLIQUE), tmp_path / "scan.nii.gz")
    (source,) = find_inputs(tmp_path / "scan.nii.gz", chosen)
    expected = (f"volume {chosen} of 3 in the file, counted from 0, was used",) if volumes > 1 else ()
    assert read(source).warnings == expected
