"""Inputs: what a file, a folder and a list mean, by names that no two of them share."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmtl.errors import DataError
from medmtl.io.inputs import find_inputs

Save = Callable[..., Path]
VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def names(path: Path, **options) -> list[str]:
    return [one.name for one in find_inputs(path, **options)]


def test_a_file_is_one_input(save_volume: Save) -> None:
    (found,) = find_inputs(save_volume("scan.nii.gz", VOXELS))
    assert (found.name, found.kind, found.volume, found.modality, found.task) == ("scan", "nifti", 0, None, None)


def test_a_folder_is_searched_at_any_depth(save_volume: Save, tmp_path: Path) -> None:
    for name in ("in/b.nii", "in/a.nii.gz", "in/patient 1/t1.nii.gz", "in/patient 2/t1.nii.gz"):
        save_volume(name, VOXELS)
    save_volume("in/.trash/old.nii.gz", VOXELS)
    (tmp_path / "in/._a.nii.gz").write_bytes(b"left by a file manager")
    (tmp_path / "in/notes.txt").write_text("no image")
    assert names(tmp_path / "in") == ["a", "b", "patient_1_t1", "patient_2_t1"]


def test_names_are_never_shared(save_volume: Save, tmp_path: Path) -> None:
    for name in ("in/a.nii", "in/a.nii.gz", "in/x/y.nii", "in/x_y.nii"):
        save_volume(name, VOXELS)
    assert names(tmp_path / "in") == ["a", "a-2", "x_y", "x_y-2"]


def test_names_are_short_enough_for_a_file_system(save_volume: Save, tmp_path: Path) -> None:
    for scan in ("a.nii", "b.nii"):
        save_volume("/".join(["in", *["1.3.6.1.4.1.14519.5.2.1." + 40 * "7"] * 4, scan]), VOXELS)
    first, second = names(tmp_path / "in")
    assert (first[-2:], second[-2:]) == ("_a", "_b")
    assert max(len(f"{first}_probability.nii.gz"), len(f".12345678.{second}_mask.nii.gz")) < 255


def test_a_file_of_four_dimensions_has_a_chosen_volume_or_all(save_volume: Save, tmp_path: Path) -> None:
    save_volume("in/four.nii.gz", np.stack([VOXELS, VOXELS + 1, VOXELS + 2], axis=-1))
    save_volume("in/three.nii.gz", VOXELS)
    assert [(one.name, one.volume) for one in find_inputs(tmp_path / "in", volume=2)] == [("four", 2), ("three", 2)]
    found = [(one.name, one.volume) for one in find_inputs(tmp_path / "in", volume="all")]
    assert found == [("four_000", 0), ("four_001", 1), ("four_002", 2), ("three", 0)]


def test_a_csv_list_says_modality_and_task(save_volume: Save, tmp_path: Path) -> None:
    save_volume("data/p1/ct.nii.gz", VOXELS)
    (tmp_path / "list.csv").write_text(
        "\ufeffimage,name,modality,task\ndata/p1/ct.nii.gz,,CT,\ndata/p2/mr.nii.gz,Jane's,MR,Liver\n", encoding="utf-8"
    )
    first, second = find_inputs(tmp_path / "list.csv")
    assert (first.name, first.modality, first.task) == ("p1_ct", "CT", None)
    assert (second.name, second.modality, second.task) == ("Jane_s", "MR", "Liver")
    assert first.path == tmp_path / "data/p1/ct.nii.gz"


def test_a_json_list_holds_paths_or_objects(save_volume: Save, tmp_path: Path) -> None:
    paths = [save_volume(f"{name}/scan.nii.gz", VOXELS) for name in ("one", "two")]
    (tmp_path / "list.json").write_text(json.dumps([str(paths[0]), {"image": str(paths[1]), "modality": "PET"}]))
    assert [(one.name, one.modality) for one in find_inputs(tmp_path / "list.json")] == [
        ("one_scan", None),
        ("two_scan", "PET"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("list.csv", "file\na.nii.gz\n", "entry 1 has no `image`"),
        ("list.csv", "image,modality\na.nii.gz,XR\n", "entry 1 has the modality 'XR': use one of CT, MR, PET, other"),
        ("list.csv", "image\nb.nii\na.nii\nb.nii\n", "more than one entry named b: give each"),
        ("list.csv", "image,name\nb.nii,x\na.nii,x\n", "more than one entry named x"),
        ("list.csv", "image\nlist.csv\n", "list.csv is not an image"),
        ("list.csv", "", "holds no images"),
        ("list.json", "{", "is not a readable list"),
        ("list.json", "{}", "is not a list of images"),
        ("list.json", "[1]", "entry 1 has no `image`: 1"),
        ("scan.pdf", "", "is not an image"),
    ],
)
def test_a_list_that_cannot_be_understood_is_named(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as error:
        find_inputs(tmp_path / name)
    assert str(tmp_path) in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        find_inputs(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_inputs(tmp_path / "missing")
