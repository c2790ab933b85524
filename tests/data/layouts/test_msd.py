"""Medical Segmentation Decathlon folders: what becomes a case, and what is refused in a line that names it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts import MSD
from medmtl.data.task import OODImages, Task, resolve_root
from medmtl.data.task_cases import ood_cases, task_cases
from medmtl.errors import ConfigError, DataError

WriteTask = Callable[..., Path]
CUBE = np.zeros((3, 3, 3), np.int16)


def task_at(root: Path | str, **options: Any) -> Task:
    return Task(str(root), **{"modality": "MR", "organ": [1], "spacing": (1.0, 1.0, 1.0), **options})


def rewritten(root: Path, **changes: Any) -> Path:
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return root


def named_in(error: pytest.ExceptionInfo[Exception], *words: object) -> bool:
    return all(str(word) in str(error.value) for word in words) and "\n" not in str(error.value)


def test_labelled_cases_come_with_their_files_in_the_order_of_their_names(write_task: WriteTask) -> None:
    root = write_task({name: (CUBE, CUBE) for name in ("b_2", "b_10", "a_1")} | {"unlabelled": (CUBE, None)})
    cases = task_cases("T", task_at(root, channel=2)).cases
    assert list(cases) == [
        Case(name, name, (root / f"imagesTr/{name}.nii.gz",), (LabelFile(root / f"labelsTr/{name}.nii.gz"),), (2,))
        for name in ("a_1", "b_10", "b_2")
    ]
    assert all(case.images[0].is_file() and case.labels[0].path.is_file() for case in cases)


def test_the_declared_labels_hold_the_background_even_if_it_is_left_out(write_task: WriteTask) -> None:
    root = write_task({"a": (CUBE, CUBE)}, labels=("background", "left", "right"))
    assert task_cases("T", task_at(root)).declared == {0, 1, 2}
    rewritten(root, labels={"1": "left", "5": "right"})
    assert task_cases("T", task_at(root)).declared == {0, 1, 5}
    assert len(task_cases("T", task_at(root, organ=[1, 5])).cases) == 1


def test_an_organ_that_is_not_declared_is_refused(write_task: WriteTask) -> None:
    root = write_task({"a": (CUBE, CUBE)})
    with pytest.raises(DataError) as error:
        task_cases("Liver", task_at(root, organ=[1, 7]))
    assert named_in(error, "task Liver", "[7]", root)


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "is missing"), ("{not json", "not readable JSON"), ("[1]", "not a JSON object")]
)
def test_a_dataset_json_that_cannot_be_used_is_named(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "dataset.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError) as error:
        task_cases("Liver", task_at(tmp_path, layout=MSD()))
    assert named_in(error, "Liver", path, complaint)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"background": 0, "organ": 1}},
        {"labels": None},
        {"training": None},
        {"training": ["imagesTr/a.nii.gz"]},
        {"training": [{"image": "imagesTr/a.nii.gz"}]},
    ],
)
def test_a_dataset_json_of_another_structure_is_named(write_task: WriteTask, changes: dict[str, Any]) -> None:
    root = rewritten(write_task({"a": (CUBE, CUBE)}), **changes)
    with pytest.raises(DataError) as error:
        task_cases("Liver", task_at(root))
    assert named_in(error, "Liver", root / "dataset.json")


def test_an_image_that_links_to_a_store_elsewhere_lies_within_the_root(write_task: WriteTask, tmp_path: Path) -> None:
    root = write_task({"a": (CUBE, CUBE)})
    image = root / "imagesTr/a.nii.gz"
    image.rename(tmp_path / "stored.nii.gz")
    image.symlink_to(tmp_path / "stored.nii.gz")
    (case,) = task_cases("T", task_at(root)).cases
    assert (case.name, case.images) == ("a", (image,))


@pytest.mark.parametrize("place", ["../Other/imagesTr/a.nii.gz", "/etc/a.nii.gz", "imagesTr/../../a.nii.gz"])
def test_a_path_that_leaves_the_root_is_refused(write_task: WriteTask, place: str) -> None:
    root = write_task({"a": (CUBE, CUBE)})
    for part in ("image", "label"):
        pair = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
        rewritten(root, training=[pair | {part: place}])
        with pytest.raises(DataError) as error:
            task_cases("Liver", task_at(root))
        assert named_in(error, "Liver", place)
    rewritten(root, training=[], test=[place])
    with pytest.raises(DataError, match="leaves the folder"):
        ood_cases("Other", OODImages(str(root)))


def test_a_case_that_appears_twice_is_refused(write_task: WriteTask) -> None:
    root = write_task({"a": (CUBE, CUBE)})
    pair = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    rewritten(root, training=[pair, {**pair, "image": "imagesTr/a.nii"}])
    with pytest.raises(DataError) as error:
        task_cases("Liver", task_at(root))
    assert named_in(error, "Liver", "case a", "more than once")


def test_a_folder_without_cases_is_refused(write_task: WriteTask) -> None:
    root = write_task({"a": (CUBE, None)})
    with pytest.raises(DataError) as error:
        task_cases("Liver", task_at(root))
    assert named_in(error, "Liver", root, "no labelled cases")


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [
        (None, ["STS_001_CT", "STS_002_CT"]),
        (r"STS_\d+", ["STS_001", "STS_002"]),
        (r"STS_(\d+)_(CT|MR)", ["001", "002"]),
    ],
)
def test_the_patient_is_found_within_the_case_name(
    write_task: WriteTask, pattern: str | None, patients: list[str]
) -> None:
    root = write_task({name: (CUBE, CUBE) for name in ("STS_001_CT", "STS_002_CT")})
    assert [case.patient for case in task_cases("T", task_at(root, patient=pattern)).cases] == patients


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"P\d+", ("case STS_001", r"P\\d+")),
        (r"(STS", ("(STS",)),
        # Found, but the group takes no part in it.
        (r"(CT)?STS", ("case STS_001", "(CT)?STS")),
    ],
)
def test_a_pattern_that_does_not_fit_is_named(write_task: WriteTask, pattern: str, words: tuple[str, ...]) -> None:
    root = write_task({"STS_001": (CUBE, CUBE)})
    with pytest.raises(ConfigError) as error:
        task_cases("Sarcoma", task_at(root, patient=pattern))
    assert named_in(error, "task Sarcoma", *words)


def test_foreign_images_of_a_described_folder_are_those_of_training_and_test(write_task: WriteTask) -> None:
    root = write_task({"b": (CUBE, CUBE), "a": (CUBE, None), "c": (CUBE, None)})
    assert ood_cases("Other", OODImages(str(root), channel=1)) == [
        Case("a", "a", (root / "imagesTs/a.nii.gz",), (), (1,)),
        Case("b", "b", (root / "imagesTr/b.nii.gz",), (), (1,)),
        Case("c", "c", (root / "imagesTs/c.nii.gz",), (), (1,)),
    ]


def test_foreign_test_images_may_be_listed_as_objects(write_task: WriteTask) -> None:
    root = write_task({"b": (CUBE, CUBE), "a": (CUBE, None)})
    listed = ood_cases("Other", OODImages(str(root)))
    rewritten(root, test=[{"image": "./imagesTs/a.nii.gz"}])
    assert ood_cases("Other", OODImages(str(root))) == listed


def test_foreign_images_of_a_plain_folder_are_all_its_nifti_files(save_volume: Callable[..., Path]) -> None:
    files = [save_volume(f"Other/{name}", CUBE) for name in ("a.nii.gz", "deep/er/b.nii", "c.nii.gz")]
    root = files[0].parent
    (root / "notes.txt").write_text("not an image")
    cases = ood_cases("Other", OODImages(str(root)))
    assert [(case.name, case.images, case.labels) for case in cases] == [
        (name, (path,), ()) for name, path in zip("abc", files, strict=True)
    ]


def test_a_folder_without_foreign_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        ood_cases("Other", OODImages(str(tmp_path)))
    assert named_in(error, "Other", tmp_path)


def test_a_root_is_found_through_the_environment(write_task: WriteTask, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_task({"a": (CUBE, CUBE)}, name="Liver")
    monkeypatch.setenv("MY_CORPORA", str(root.parent))
    for written in ("${MY_CORPORA}/Liver", "$MY_CORPORA/Liver"):
        assert resolve_root("T", written) == root
        assert len(task_cases("T", task_at(written)).cases) == 1


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_CORPORA", raising=False)
    for read in (
        lambda: task_cases("Liver", task_at("${MY_CORPORA}/Liver")),
        lambda: ood_cases("Liver", OODImages("${MY_CORPORA}/Liver")),
    ):
        with pytest.raises(DataError) as error:
            read()
        assert named_in(error, "Liver", "environment variable MY_CORPORA", "not set")


def test_a_lone_dollar_in_a_root_is_named() -> None:
    with pytest.raises(DataError) as error:
        resolve_root("Liver", "/data/$5")
    assert named_in(error, "Liver", "/data/$5", "lone $")


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DataError) as error:
            task_cases("Liver", task_at(root))
        assert named_in(error, "Liver", root)


def test_a_phantom_root_is_the_folder_of_that_phantom(phantoms: Path) -> None:
    assert resolve_root("T", "phantom:LiverCT") == phantoms / "LiverCT"
    assert len(task_cases("T", task_at("phantom:KidneyT2", organ=[1, 2])).cases) == 3
    assert len(ood_cases("Other", OODImages("phantom:OtherPhantom"))) >= 10
    with pytest.raises(DataError, match="LiverCT"):
        resolve_root("T", "phantom:Lung")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"modality": "Xray"}, "Xray"),
        ({"organ": []}, "organ"),
        ({"organ": [0, 1]}, "organ"),
        ({"channel": -1}, "channel"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"window": (0.0, 10.0)}, "window"),
        ({"modality": "CT", "window": (10.0, 10.0)}, "window"),
    ],
)
def test_a_task_with_a_value_outside_its_domain_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(word)):
        task_at("somewhere", **options)


def test_tasks_with_the_same_spacing_and_intensity_share_a_recipe() -> None:
    assert task_at("a").preprocessing == task_at("b", modality="PET", spacing=[1, 1, 1]).preprocessing
    assert task_at("a", modality="CT").preprocessing != task_at("a").preprocessing
    assert (
        task_at("a", modality="CT").preprocessing != task_at("a", modality="CT", window=(-1000.0, 400.0)).preprocessing
    )
    assert (
        len(
            {
                task_at("a").preprocessing,
                task_at("b").preprocessing,
                task_at("c", spacing=(1.0, 1.0, 2.0)).preprocessing,
            }
        )
        == 2
    )
    # Configurations give lists.
    windows: list[Any] = [[-1000, 400], (-1000.0, 400.0)]
    assert len({task_at("a", modality="CT", window=window).preprocessing for window in windows}) == 1


@pytest.mark.real_data
def test_the_real_corpora_have_the_cases_that_their_folders_hold(real_data: Path, tmp_path: Path) -> None:
    for name in ("HippocampusMR", "FetalBrainMR", "SarcomaMR", "SarcomaCT", "SarcomaPET"):
        cases = task_cases(name, task_at(real_data / name)).cases
        stored = sorted((real_data / name / "labelsTr").glob("*.nii*"))
        assert sorted(label.path for case in cases for label in case.labels) == stored
        assert all(case.images[0].is_file() for case in cases)
    copied = tmp_path / "Copy"
    shutil.copytree(real_data / "OtherAnatomy", copied)
    described = [case.name for case in ood_cases("Other", OODImages(str(copied)))]
    (copied / "dataset.json").unlink()
    assert [case.name for case in ood_cases("Other", OODImages(str(copied)))] == described
