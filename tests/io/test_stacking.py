"""Stacking: the channels of an image are the same whether they are files, volumes of one file, or an array."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from dicom_sample import write_series
from monai.data import MetaTensor
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs, input_of
from medmtl.io.reader import Scan, read, scan_of

Save = Callable[..., Path]
SHAPE = (7, 6, 5)
VOXELS = np.random.default_rng(0).integers(0, 200, (3, *SHAPE)).astype(np.int16)
AFFINE = np.array([[0, -1.5, 0, 20], [2, 0, 0, -7], [0, 0, 3, 5], [0, 0, 0, 1.0]])


@pytest.fixture
def case(save_volume: Save) -> Path:
    """A folder with the channels of one image as nnU-Net names them."""
    for number, voxels in enumerate(VOXELS):
        save_volume(f"in/case_{number:04d}.nii.gz", voxels, AFFINE)
    return save_volume("in/case_0000.nii.gz", VOXELS[0], AFFINE).parent


def read_one(path: Path, channels: tuple[int, ...]) -> Scan:
    (source,) = find_inputs(path, stack=True)
    return read(source, channels)


def is_stack(scan: Scan, expected: NDArray) -> bool:
    image = scan.image
    return image.dtype == torch.float32 and np.array_equal(image.numpy(), expected)


@pytest.mark.parametrize("channels", [(0, 1), (1, 0), (0, 2), (2, 0, 1)])
def test_files_volumes_and_arrays_are_stacked_alike(case: Path, save_volume: Save, channels: tuple[int, ...]) -> None:
    expected = VOXELS[list(channels)]
    four = save_volume("four.nii.gz", VOXELS.transpose(1, 2, 3, 0), AFFINE)
    series = SimpleITK.JoinSeries([SimpleITK.ReadImage(str(path)) for path in sorted(case.iterdir())])
    SimpleITK.WriteImage(series, str(four.with_name("four.mha")))
    scans = [read_one(path, channels) for path in (case, case / "case_0001.nii.gz", four, four.with_name("four.mha"))]
    scans.append(read(input_of(sorted(case.iterdir())), channels))
    scans.append(scan_of(VOXELS, AFFINE, channels))
    scans.append(scan_of(MetaTensor(torch.from_numpy(VOXELS), affine=torch.from_numpy(AFFINE)), None, channels))
    for scan in scans:
        assert is_stack(scan, expected)
        np.testing.assert_allclose(scan.image.affine.numpy(), AFFINE, atol=1e-6)
    assert [scan.name for scan in scans[:4]] == ["case", "case", "four", "four"]


def test_a_network_of_one_channel_sees_what_it_saw(case: Path, save_volume: Save) -> None:
    four = save_volume("in/four.nii.gz", VOXELS.transpose(1, 2, 3, 0), AFFINE)
    assert [one.name for one in find_inputs(case)] == ["case_0000", "case_0001", "case_0002", "four"]
    (source,) = find_inputs(four, 2)
    assert is_stack(read(source), VOXELS[2:])


def test_files_are_joined_within_their_folder_and_by_their_ending(save_volume: Save, tmp_path: Path) -> None:
    for name in ("a/x_0000.nii.gz", "a/x_0001.nii.gz", "b/x_0000.nii", "b/x_0001.nii", "b/x_0000.nii.gz", "b/y.nii"):
        save_volume(f"in/{name}", VOXELS[0], AFFINE)
    save_volume("in/c/scan_0001.nii.gz", VOXELS.transpose(1, 2, 3, 0), AFFINE)  # by itself: it has four dimensions
    save_volume("in/c/scan_0002.nii.gz", VOXELS.transpose(1, 2, 3, 0), AFFINE)
    found = {one.name: sorted(one.channels) for one in find_inputs(tmp_path / "in", stack=True)}
    assert found == {
        "a_x": [0, 1],
        "b_x": [0, 1],
        "b_x-2": [0],
        "b_y": [],
        "c_scan_0001": [],
        "c_scan_0002": [],
    }


def test_lists_name_the_channels_of_an_image(case: Path, tmp_path: Path) -> None:
    files = ["in/case_0002.nii.gz", "in/case_0000.nii.gz"]
    (tmp_path / "list.json").write_text(json.dumps([{"image": files, "name": "mine", "task": "Liver"}, files]))
    first, second = find_inputs(tmp_path / "list.json", stack=True)
    assert (first.name, first.task, second.name) == ("mine", "Liver", "case_0002")
    (tmp_path / "list.csv").write_text(f"image_T1,name,image_FLAIR,modality\n{files[0]},mine,{files[1]},MR\n")
    (row,) = find_inputs(tmp_path / "list.csv", stack=True)
    assert (row.name, row.modality) == ("mine", "MR")
    for source in (first, second, row):
        assert is_stack(read(source, (0, 1)), VOXELS[[2, 0]])
        assert is_stack(read(source, (1, 0)), VOXELS[[0, 2]])
    with pytest.raises(DataError, match="entry 1 names 2 files, and the network takes one channel: name one"):
        find_inputs(tmp_path / "list.json")
    (tmp_path / "list.csv").write_text(f"image_T1,image_FLAIR\n{files[0]},\n")
    with pytest.raises(DataError, match="entry 1 has no `image_FLAIR`"):
        find_inputs(tmp_path / "list.csv", stack=True)


def test_series_are_stacked_where_a_list_names_them(tmp_path: Path) -> None:
    for number, modality in enumerate(("CT", "PT")):
        write_series(tmp_path / modality, VOXELS[number], np.diag([-1, -1, 2, 1]), modality, series=modality)
    scan = read(input_of([tmp_path / "PT", tmp_path / "CT"]), (1, 0))
    assert is_stack(scan, VOXELS[:2])
    assert (scan.input.kind, scan.input.path, scan.modality) == ("dicom", tmp_path / "CT", None)
    assert any("SUV" in warning for warning in scan.warnings)
    assert {str(one.Modality) for one in scan.header[0]} == {"CT"}  # type: ignore[index]


def test_what_lacks_a_channel_is_one_line(case: Path, save_volume: Save, tmp_path: Path) -> None:
    lone = save_volume("lone/scan.nii.gz", VOXELS[0], AFFINE)
    write_series(tmp_path / "series", VOXELS[0], np.eye(4))
    (case / "case_0001.nii.gz").unlink()
    for path, held in (
        (case, "channels 0, 2"),
        (case / "case_0002.nii.gz", "channels 0, 2"),
        (lone, "channel 0"),
        (tmp_path / "series", "channel 0"),
        (save_volume("four/two.nii.gz", VOXELS[:2].transpose(1, 2, 3, 0)), "channels 0, 1"),
    ):
        with pytest.raises(DataError) as error:
            read_one(path, (0, 1, 3))
        assert f"comes with {held}, where the network stacks channels 0, 1, 3: name its files" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"has the shape \(3, 7, 6, 5\), and the network stacks channels 0, 3"):
        scan_of(VOXELS, AFFINE, (0, 3))
    with pytest.raises(DataError, match=r"has the shape \(7, 6, 5\), and the network stacks channels 0, 1"):
        scan_of(VOXELS[0], AFFINE, (0, 1))
    with pytest.raises(DataError, match="no image is named"):
        input_of([])


def test_a_channel_that_cannot_be_used_is_named(case: Path, save_volume: Save, tmp_path: Path) -> None:
    two = save_volume("two.nii.gz", VOXELS[:2].transpose(1, 2, 3, 0), AFFINE)
    with pytest.raises(DataError, match=r"two.nii.gz holds 2 volumes, where each channel is a file: split it"):
        read(input_of([case / "case_0000.nii.gz", two]), (0, 1))
    with pytest.raises(DataError, match=r"gone.nii.gz is missing"):
        read(input_of([case / "case_0000.nii.gz", tmp_path / "gone.nii.gz"]), (0, 1))
    (case / "case_0001.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"case_0001.nii.gz cannot be read"):
        read_one(case, (0, 1))
    save_volume("in/case_0001.nii.gz", np.zeros(SHAPE), AFFINE)
    with pytest.raises(DataError, match=r"case_0001.nii.gz is 0 in all voxels"):
        read_one(case, (0, 1))


@pytest.mark.parametrize(
    ("voxels", "shift", "words"),
    [
        (VOXELS[1][:-1], 0.0, "has 6 x 6 x 5 voxels, its channel case_0000.nii.gz 7 x 6 x 5: resample"),
        (VOXELS[1], 0.01, "has another affine than its channel case_0000.nii.gz: correct"),
        (VOXELS[1], 0.0005, None),  # rounding in a header
    ],
)
def test_channels_lie_on_one_grid(case: Path, save_volume: Save, voxels: NDArray, shift: float, words: str) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += shift
    save_volume("in/case_0001.nii.gz", voxels, affine)
    if words is None:
        np.testing.assert_allclose(read_one(case, (0, 1)).image.affine.numpy(), AFFINE, atol=1e-6)
        return
    with pytest.raises(DataError, match=f"case_0001.nii.gz {words}"):
        read_one(case, (0, 1))


def test_one_channel_at_most_is_held_beside_the_stack(save_volume: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmtl.io.stored.SLAB_VOXELS", 128 * 128)
    volumes = np.random.default_rng(0).integers(0, 200, (128, 128, 16, 4)).astype(np.int16)
    path = save_volume("four.nii.gz", volumes)
    read_one(path, (0, 1, 2, 3))
    tracemalloc.start()
    scan = read_one(path, (0, 1, 2, 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 < peak / (4 * scan.image.numel()) < 1.25 + 0.125
