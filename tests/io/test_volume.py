"""Volumes: the same voxels at the same place in the world, whatever the format and the storage order."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.transforms import LoadImage

from medmtl.io.input import ENDINGS, stem
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.io.volume import extent_mm, read_volume
from medmtl.io.writer import write_mask

AFFINE = np.array([[0, -1.5, 0, 10], [2.0, 0, 0, -20], [0, 0, 1.25, 5], [0, 0, 0, 1]])


def stored(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Save by nibabel, or through a NIfTI file by SimpleITK, which alone decides about the axes."""
    if path.suffix == ".mgz":
        nib.save(nib.MGHImage(voxels, affine), path)
        return path
    nifti = path if path.name.endswith((".nii", ".nii.gz")) else path.with_suffix(".nii")
    nib.save(nib.Nifti1Image(voxels, affine), nifti)
    if path != nifti:
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(path))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_voxels_in_storage_order_and_the_affine(ending: str, tmp_path: Path) -> None:
    types = (np.uint8, np.int16, np.float32, np.float64)
    for dtype in types[:-1] if ending == ".mgz" else types:  # which has no float64
        voxels = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
        volume = read_volume(stored(tmp_path / f"a.b{ending}", voxels))
        np.testing.assert_array_equal(volume.voxels, voxels)
        assert volume.voxels.dtype == dtype
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    np.testing.assert_allclose(extent_mm(tmp_path / f"a.b{ending}"), [8, 7.5, 7.5], rtol=1e-6)
    assert stem(tmp_path / f"a.b{ending}") == "a.b"


@pytest.mark.parametrize(("unit", "length"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1), (5, 1)])
def test_affines_are_in_millimetres_in_training_as_in_prediction(
    unit: str | int, length: float, tmp_path: Path
) -> None:
    path = tmp_path / "a.nii.gz"
    image = nib.Nifti1Image(
        np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([1 / length, 1 / length, 1 / length, 1]) @ AFFINE
    )
    image.header["xyzt_units"] = unit if isinstance(unit, int) else nib.nifti1.unit_codes[unit]  # 5: no unit of length
    nib.save(image, path)
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, rtol=1e-6)
    np.testing.assert_allclose(extent_mm(path), [8, 7.5, 7.5], rtol=1e-6)
    (source,) = find_inputs(path)
    scan = read(source)
    np.testing.assert_array_equal(scan.image.affine.numpy(), read_volume(path).affine)
    written = write_mask(tmp_path, scan, np.ones((4, 5, 6)))[0]
    assert nib.load(written).header["xyzt_units"] == image.header["xyzt_units"]
    np.testing.assert_array_equal(read_volume(written).affine, read_volume(path).affine)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_all_48_ways_to_store_the_axes_are_read_as_nibabel_reads_them(ending: str, tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32), AFFINE)
    ways = [zip(axes, flips, strict=True) for axes in itertools.permutations(range(3))
            for flips in itertools.product([1, -1], repeat=3)]  # fmt: skip
    assert len(ways) == 48
    for way in ways:
        turned = image.as_reoriented(np.array(list(way)))
        volume = read_volume(stored(tmp_path / f"a{ending}", np.asarray(turned.dataobj), turned.affine))
        np.testing.assert_array_equal(volume.voxels, np.asarray(turned.dataobj))
        np.testing.assert_allclose(volume.affine, turned.affine, atol=1e-6)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_channels_are_the_fourth_axis(ending: str, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(voxels.transpose(3, 2, 1, 0), isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / f"a{ending}"))
    volume = read_volume(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, np.diag([-1, -1, 1, 1]))


@pytest.mark.real_data
def test_real_images_are_read_as_monai_reads_them(real_data: Path) -> None:
    load = LoadImage(reader="NibabelReader", image_only=True)
    for path in sorted((real_data / "OtherAnatomy/imagesTs").glob("*"))[:3]:
        expected, volume = load(path), read_volume(path)
        np.testing.assert_array_equal(volume.voxels.astype(np.float32), expected.numpy())
        torch.testing.assert_close(torch.from_numpy(volume.affine), expected.affine)
