"""nnU-Net v2 folders: channels, regions, the ignore label, splits, and what is refused in a line that names it."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from medmtl.data.case import LabelFile
from medmtl.data.classes import Classes
from medmtl.data.layouts import Fold, NNUNet, check_layout
from medmtl.data.reading import load_image, load_label
from medmtl.data.task import OODImages, Task, classes_of
from medmtl.data.task_cases import ood_cases, task_cases
from medmtl.errors import DataError
from medmtl.losses.masked import UNKNOWN

DESCRIBED = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
CUBE = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
LABEL = (np.arange(60) % 4).reshape(3, 4, 5).astype(np.uint8)


def save(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])), path)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0)), str(path))


def describe(root: Path, **changes: Any) -> None:
    (root / "dataset.json").write_text(json.dumps(DESCRIBED | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`Dataset001_Tumour` with three cases of two channels, and one of test images."""
    root = tmp_path / "nnUNet_raw" / "Dataset001_Tumour"
    write(root, ".nii.gz")
    describe(root)
    return root


def write(root: Path, ending: str) -> None:
    for number, case in enumerate(("a", "b_1", "c")):
        for channel in range(2):
            save(root / f"imagesTr/{case}_000{channel}{ending}", CUBE + 100 * number + 1000 * channel)
        save(root / f"labelsTr/{case}{ending}", LABEL)
    for channel in range(2):
        save(root / f"imagesTs/d_000{channel}{ending}", CUBE)


def task_at(root: Path, **options: Any) -> Task:
    return Task(str(root), **{"modality": "MR", "organ": ["whole"], "spacing": (1.0, 1.0, 1.0), **options})


def complaint(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        task_cases("Tumour", task_at(root, layout=NNUNet(), **options))
    assert "\n" not in str(error.value)
    assert "Tumour" in str(error.value)
    return str(error.value)


def test_the_folder_keeps_the_contract_and_its_test_images_have_no_labels(root: Path) -> None:
    check_layout(NNUNet(), root)
    corpus = NNUNet().read("T", root)
    assert corpus.channels == ("T1", "FLAIR")
    assert corpus.organs == {"whole": (1, 2), "core": (2,)}
    assert (corpus.ignore, corpus.declared) == (3, {0, 1, 2, 3})
    assert [case.name for case in task_cases("T", task_at(root)).cases] == ["a", "b_1", "c"]
    assert [case.name for case in ood_cases("T", OODImages(str(root)))] == ["a", "b_1", "c", "d"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_every_file_ending_gives_the_same_voxels_and_affine(root: Path, tmp_path: Path, ending: str) -> None:
    other = tmp_path / "Other"
    write(other, ending)
    describe(other, file_ending=ending)
    for one, same in zip(
        *(task_cases("T", task_at(path, channel=[1, 0])).cases for path in (root, other)), strict=True
    ):
        assert same.images[0].name == f"{same.name}_0000{ending}"
        images = [load_image(case) for case in (one, same)]
        np.testing.assert_array_equal(*(image.numpy() for image in images))
        np.testing.assert_array_equal(*(image.affine.numpy() for image in images))
        np.testing.assert_array_equal(
            *(load_label(case, Classes.of_organ({1}), images[0]).numpy() for case in (one, same))
        )


def test_one_channel_is_chosen_and_several_are_stacked_in_their_order(root: Path) -> None:
    for channel, expected in ((0, [0]), (1, [1]), ([1, 0], [1, 0])):
        case = task_cases("T", task_at(root, channel=channel)).cases[1]
        np.testing.assert_array_equal(load_image(case).numpy(), np.stack([CUBE + 100 + 1000 * c for c in expected]))


def test_voxels_with_the_ignore_label_are_unknown_and_no_organ(root: Path) -> None:
    found = task_cases("T", task_at(root, organ=["core"]))
    assert (found.classes.foreground, found.ignore) == ({2}, 3)
    label = load_label(found.cases[0], found.classes, load_image(found.cases[0]), found.ignore)[0].numpy()
    np.testing.assert_array_equal(label, np.select([LABEL == 2, LABEL == 3], [1, UNKNOWN], 0))
    assert "label 3 as ignored" in complaint(root, organ=[3])
    assert "organ ignore is not among" in complaint(root, organ=["ignore"])


@pytest.mark.parametrize(
    ("labels", "order", "names", "written"),
    [
        ({"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [1, 2, 3], ["whole", "core", "enhancing"], (1, 2, 3)),
        ({"whole": [1, 2, 3], "core": [3]}, [2, 3], ["whole", "core"], (2, 3)),
        ({"left": [1, 2], "right": [2, 3, 4]}, [1, 4], ["left", "right"], (1, 4)),
        ({"left": [1, 2], "right": [2, 3, 4]}, None, ["right", "left"], (3, 1)),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_masks_are_written_as_regions_class_order_says(
    root: Path,
    labels: dict[str, Any],
    order: list[int] | None,
    names: list[str],
    written: tuple[int, ...],
    listed: bool,
) -> None:
    declared = {"background": 0, **labels, "ignore": 9}
    describe(root, labels=declared, **({} if order is None else {"regions_class_order": order}))
    classes = task_cases("T", task_at(root, organ=None, classes=names if listed else "all")).classes
    assert list(classes.names) == names
    assert classes.written == written
    # A checkpoint keeps label values alone, without the dataset.
    assert classes_of(task_at(root, organ=None, classes=classes.lists)).written == written
    check_layout(NNUNet(), root)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([1], "regions_class_order` of .*does not give its 2 labels a value each"),
        ("1, 2", "does not give its 2 labels a value each"),
        ([1, 7], r"gives core the value 7.*use one of \[2\]"),
    ],
)
def test_an_order_of_regions_that_does_not_fit_is_named(root: Path, order: Any, words: str) -> None:
    describe(root, regions_class_order=order)
    assert re.search(words, complaint(root))


def test_an_entry_dataset_lists_the_files_instead(root: Path) -> None:
    listed = {"x": {"images": [f"imagesTr/c_000{channel}.nii.gz" for channel in (1, 0)], "label": "labelsTr/a.nii.gz"}}
    describe(root, dataset=listed, numTraining=1)
    check_layout(NNUNet(), root)
    (case,) = task_cases("T", task_at(root)).cases
    assert case.name == "x"
    assert [path.name for path in case.images] == ["c_0001.nii.gz", "c_0000.nii.gz"]
    assert case.labels == (LabelFile(root / "labelsTr/a.nii.gz"),)
    for place in ("../Other/a.nii.gz", "/etc/passwd"):
        describe(root, dataset={"x": listed["x"] | {"label": place}}, numTraining=1)
        assert f"{place} in {root / 'dataset.json'} leaves the folder" in complaint(root)
        describe(root, dataset={"x": listed["x"] | {"images": [place, place]}}, numTraining=1)
        assert f"{place} in {root / 'dataset.json'} leaves the folder" in complaint(root)
    describe(root, dataset={"x": {"images": ["a"]}}, numTraining=1)
    assert "`dataset` of" in complaint(root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_names": None}, "`channel_names`"),
        ({"channel_names": {"1": "T1", "2": "FLAIR"}}, "`channel_names`"),
        ({"channel_names": {"0": "T1"}}, "case a: 2 image files"),
        ({"labels": {"0": "background"}}, "`labels`"),
        ({"labels": ["organ"]}, "`labels`"),
        ({"labels": {"background": 0, "organ": float("inf")}}, "`labels`"),
        ({"labels": {"background": 0, "whole": 1, "ignore": [2, 3]}}, "`ignore`"),
        ({"file_ending": ".png"}, "`file_ending`"),
        ({"numTraining": 4}, "announces 4 training cases, 3 are there"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(root: Path, changes: dict[str, Any], words: str) -> None:
    describe(root, **changes)
    message = complaint(root)
    assert words in message
    assert str(root / "dataset.json") in message


def test_files_that_do_not_fit_are_named(root: Path) -> None:
    (root / "labelsTr/b_1.nii.gz").rename(root / "kept")
    assert f"{root / 'labelsTr/b_1.nii.gz'} is missing" in complaint(root)
    (root / "kept").rename(root / "labelsTr/b_1.nii.gz")
    (root / "imagesTr/c_0000.nii.gz").rename(root / "kept")
    assert "case c" in complaint(root)
    (root / "kept").rename(root / "imagesTr/c.nii.gz")
    assert f"{root / 'imagesTr/c.nii.gz'} does not end with a channel" in complaint(root)


FOLDS = [{"train": ["a", "b_1"], "val": ["c"]}, {"train": ["c", "a"], "val": ["b_1"]}]


def test_folds_are_found_beside_the_description_and_where_nnunet_preprocesses(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert NNUNet().read("T", root).folds == ()
    places = [
        tmp_path / "nnUNet_preprocessed" / root.name / "splits_final.json",
        tmp_path / "elsewhere" / root.name / "splits_final.json",
        root / "splits_final.json",
    ]
    for path, folds in zip(places, (FOLDS[:1], FOLDS[1:], FOLDS), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(folds))
        if path == places[1]:
            monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "elsewhere"))
        expected = tuple(Fold(tuple(fold["train"]), tuple(fold["val"])) for fold in folds)
        assert NNUNet().read("T", root).folds == expected
    check_layout(NNUNet(), root)


def test_a_fold_says_which_cases_are_learnt_from(root: Path) -> None:
    (root / "splits_final.json").write_text(json.dumps(FOLDS))
    assert task_cases("T", task_at(root)).fold == {}
    assert task_cases("T", task_at(root, fold=1)).fold == {"c": "train", "a": "train", "b_1": "val"}
    assert f"fold 2, but {root} has 2 folds" in complaint(root, fold=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "does not list folds"),
        ([{"train": ["a"]}], "does not list folds"),
        ([{"train": ["a", "b_1"], "val": ["z"]}], "case c is not in fold 0"),
        ([{"train": ["a", "b_1", "c"], "val": ["z"]}], "case z is not in the data"),
    ],
)
def test_folds_that_do_not_fit_are_named(root: Path, content: Any, words: str) -> None:
    (root / "splits_final.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert words in complaint(root, fold=0)
