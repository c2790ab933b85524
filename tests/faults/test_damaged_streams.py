"""Damage of compressed files: a single flipped bit is refused, or changes no voxel, wherever it is."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_task
from medmtl.data_tools.facts import Request, look_at
from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.io.volume import opened, read_volume

RNG = np.random.default_rng(0)
VOXELS = (RNG.normal(size=(12, 11, 10)) * 50).astype(np.int16)
AFFINE = np.diag([1.0, 1.5, 2.5, 1.0])
FLIPS = 60

Save = Callable[[Path], Path]


def through_nibabel(name: str, kind: type = nib.Nifti1Image, voxels: NDArray = VOXELS) -> Save:
    def save(folder: Path) -> Path:
        nib.save(kind(voxels, AFFINE), folder / name)
        return folder / name

    return save


def through_itk(name: str, header: str = "", voxels: NDArray = VOXELS) -> Save:
    def save(folder: Path) -> Path:
        image = SimpleITK.GetImageFromArray(voxels.T, isVector=False)
        SimpleITK.WriteImage(image, str(folder / (header or name)), useCompression=True)
        return folder / name

    return save


# The file that is damaged; where it is a file of voxels, its header lies beside it.
PACKED: dict[str, Save] = {
    "nii.gz": through_nibabel("scan.nii.gz"),
    "nii.gz of four dimensions": through_nibabel("scan.nii.gz", voxels=np.stack([VOXELS, VOXELS + 1], -1)),
    "NIfTI 2": through_nibabel("scan.nii.gz", nib.Nifti2Image),
    "mgz": through_nibabel("scan.mgz", nib.MGHImage),
    "nrrd": through_itk("scan.nrrd"),
    "mha": through_itk("scan.mha"),
    "mha of four dimensions": through_itk("scan.mha", voxels=np.stack([VOXELS, VOXELS + 1], -1)),
    "raw.gz of nhdr": through_itk("scan.raw.gz", "scan.nhdr"),
    "zraw of mhd": through_itk("scan.zraw", "scan.mhd"),
}


def image_of(path: Path) -> Path:
    """The file that is read: the header, where voxels lie in a file of their own."""
    headers = [path.parent / "scan.nhdr", path.parent / "scan.mhd"]
    return next((header for header in headers if header.is_file()), path)


@pytest.mark.parametrize("save", PACKED.values(), ids=PACKED)
def test_a_flipped_bit_is_refused_or_changes_no_voxel(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path)
    content, image = path.read_bytes(), image_of(path)
    (source,) = find_inputs(image)
    truth, grid = read(source).image.numpy(), read_volume(image).affine
    # The header of a NRRD or MetaImage file is text without a checksum: a digit of its size or origin may change.
    first = (
        0
        if path != image or path.suffix in (".gz", ".mgz")
        else content.index(b"\n\n" if b"NRRD" in content else b"LOCAL") + 6
    )
    altered = refused = 0
    for bit in np.random.default_rng(1).choice(np.arange(8 * first, 8 * len(content)), FLIPS, replace=False):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            scan = read(source)
        except DataError:
            refused += 1
        else:
            altered += not (np.array_equal(scan.image.numpy(), truth) and np.array_equal(scan.image.affine, grid))
    assert altered == 0
    assert refused > FLIPS * 0.8


@pytest.mark.parametrize("at", [-8, -5, -4, -1])  # of the sum, and of the length
def test_the_sum_counts_in_prediction_training_and_data_check(tmp_path: Path, at: int) -> None:
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), image)
    nib.save(nib.Nifti1Image((VOXELS > 50).astype(np.uint8), AFFINE), label)
    case = Case("one", "one", (image,), (LabelFile(label),))
    request = Request("Liver", tmp_path, case, None)
    check_task("Liver", [case], [1], {0, 1})
    for path in (image, label):
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[at] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{path.name} cannot be read .*damaged: incorrect (data|length) check"):
            check_task("Liver", [case], [1], {0, 1})
        assert [finding.rule for finding in look_at(request)[1] if finding.severity == "error"] == ["unreadable"]
        with pytest.raises(DataError, match="damaged"):
            [read(source) for source in find_inputs(path)]
        path.write_bytes(content)


def test_what_follows_the_last_voxel_is_unpacked_too_as_far_as_it_is_padding(tmp_path: Path) -> None:
    path = through_nibabel("scan.nii.gz")(tmp_path)
    content = gzip.decompress(path.read_bytes())
    (source,) = find_inputs(path)
    accepted = {
        "padding": gzip.compress(content + bytes(1000)),
        "two members": gzip.compress(content[:2000]) + gzip.compress(content[2000:]),
        "garbage after the last member": gzip.compress(content) + b"garbage",
    }
    for packed in accepted.values():
        path.write_bytes(packed)
        assert np.array_equal(read(source).image[0].numpy(), VOXELS)
    path.write_bytes(gzip.compress(content + bytes(1 << 22)))
    with pytest.raises(DataError, match="its data go on for long after its last voxel"):
        read(source)
    path.write_bytes(gzip.compress(content[:2000]) + gzip.compress(content[2000:])[:-9])
    with pytest.raises(DataError, match="ended before the end-of-stream marker"):
        read(source)


def test_a_header_alone_is_read_without_unpacking_the_voxels(tmp_path: Path) -> None:
    path = through_nibabel("scan.nii.gz")(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1
    path.write_bytes(damaged)
    with opened(path) as stored:
        assert stored.shape == VOXELS.shape
