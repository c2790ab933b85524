"""Classes: parts, what is written, and labels in memory, against numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.classes import Classes, larger_first
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.layouts.folders import Folders
from medmtl.data.reading import load_image, load_label
from medmtl.data.task import Task, classes_of
from medmtl.data.task_cases import task_cases
from medmtl.errors import ConfigError, DataError
from medmtl.losses.masked import UNKNOWN

Save = Callable[..., Path]
WriteTask = Callable[..., Path]
EXCLUSIVE = Classes({"liver": frozenset({6}), "vessel": frozenset({2, 3})})
NESTED = Classes({"whole": frozenset({1, 2, 3}), "core": frozenset({2, 3}), "enhancing": frozenset({3})})


def test_exclusive_classes_are_a_part_each_and_are_written_with_their_least_value() -> None:
    assert not EXCLUSIVE.overlap
    assert EXCLUSIVE.parts == ({6}, {2, 3})
    assert (EXCLUSIVE.written, EXCLUSIVE.written_parts) == ((6, 2), (1, 2))


def test_regions_share_parts_and_are_written_in_their_order() -> None:
    assert NESTED.overlap
    assert [NESTED.parts_of(name) for name in NESTED.names] == [(1, 2, 3), (2, 3), (3,)]
    assert (NESTED.written, NESTED.written_parts) == ((1, 2, 3), (1, 2, 3))


def test_an_organ_of_interest_is_one_part_written_as_1() -> None:
    organ = NESTED.merge()
    assert (organ.parts, organ.written, organ.written_parts) == (({1, 2, 3},), (1,), (1,))
    assert organ.merge() is organ


@pytest.mark.parametrize("classes", [EXCLUSIVE, NESTED, NESTED.merge()])
def test_a_label_in_memory_has_the_voxels_of_each_class(classes: Classes, save_volume: Save) -> None:
    voxels = np.random.default_rng(0).integers(0, 8, (6, 7, 8)).astype(np.uint8)
    image = save_volume("i.nii.gz", voxels.astype(np.float32), np.eye(4))
    case = Case("a", "a", (image,), (LabelFile(save_volume("l.nii.gz", voxels, np.eye(4))),))
    label = load_label(case, classes, load_image(case), ignore=7)[0].numpy()
    np.testing.assert_array_equal(label == UNKNOWN, voxels == 7)
    for name, values in classes.values.items():
        np.testing.assert_array_equal(np.isin(label, classes.parts_of(name)), np.isin(voxels, list(values)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "neither organ nor classes"),
        ({"organ": [1], "classes": "all"}, "organ and classes"),
        ({"classes": {"liver": 0}}, "classes"),
        ({"classes": ["liver", "liver"]}, "classes"),
        ({"classes": {"liver": 1}, "missing": {"lung": "x"}}, "missing names lung"),
    ],
)
def test_a_task_says_once_and_rightly_what_it_segments(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Task("somewhere", "CT", (1, 1, 1), **given)


@pytest.mark.parametrize("name", ["left/lung", "foreground", "mean", " ", "a\nb", "tum[/b]", "$x", "x" * 65])
def test_a_class_has_a_name_that_can_be_part_of_that_of_a_metric(name: str) -> None:
    with pytest.raises(ConfigError, match="a class cannot be named"):
        classes_of(Task("somewhere", "CT", (1, 1, 1), classes={name: 1}))


def test_a_region_that_later_ones_would_hide_is_refused_and_all_of_a_dataset_are_ordered() -> None:
    regions = {"core": frozenset({1}), "whole": frozenset({1, 2})}
    with pytest.raises(ConfigError, match="class core would be hidden by later ones: list the larger regions first"):
        Classes(regions)
    assert list(larger_first(regions)) == ["whole", "core"]
    exclusive = {"a": frozenset({1}), "b": frozenset({2, 3})}
    assert list(larger_first(exclusive)) == ["a", "b"]


def test_more_classes_than_a_label_can_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="a task has 255 classes: use 254 at most"):
        Classes({f"c{value}": frozenset({value}) for value in range(1, 256)})


def test_one_output_leaves_out_cases_that_do_not_mark_all_classes(
    write_task: WriteTask, caplog: pytest.LogCaptureFixture
) -> None:
    task = Task(str(labelled(write_task)), "CT", (1, 1, 1), classes="all", missing={"tumour": "c[01]$"})
    data = MultiTaskData({"T": task}, (4, 4, 4), outputs="shared")
    data.setup("fit")
    assert [case.name for case in data.listed("T")] == ["c2", "c3", "c4", "c5"]
    assert "2 cases that do not mark all classes are left out" in caplog.text


def labelled(write_task: WriteTask, values: int = 3) -> Path:
    rng = np.random.default_rng(0)
    volumes = [rng.integers(0, values, (8, 8, 8)).astype(np.uint8) for _ in range(6)]
    pairs = {f"c{number}": (voxels.astype(np.float32), voxels) for number, voxels in enumerate(volumes)}
    return write_task(pairs, labels=("background", "liver", "tumour"))


@pytest.mark.parametrize("given", ["all", ["liver", "tumour"], {"liver": 1, "tumour": "tumour"}])
def test_classes_are_looked_up_among_the_declared_labels(given: object, write_task: WriteTask) -> None:
    found = task_cases("T", Task(str(labelled(write_task)), "CT", (1, 1, 1), classes=given))
    assert found.classes.values == {"liver": {1}, "tumour": {2}}


def test_a_class_that_the_dataset_does_not_declare_is_refused(write_task: WriteTask) -> None:
    root = str(labelled(write_task))
    for given in (["lung"], {"lung": 5}):
        with pytest.raises(DataError, match=r"class .* is not among the labels"):
            task_cases("T", Task(root, "CT", (1, 1, 1), classes=given))


def test_without_the_data_classes_must_be_known_by_value() -> None:
    known = classes_of(Task("nowhere", "CT", (1, 1, 1), classes={"liver": 1, "core": [2, 3]}))
    assert known.values == {"liver": {1}, "core": {2, 3}}
    with pytest.raises(ConfigError, match="have no label values"):
        classes_of(Task("nowhere", "CT", (1, 1, 1), classes="all"))


def test_cases_whose_labels_do_not_mark_a_class_are_known(write_task: WriteTask, tmp_path: Path) -> None:
    root = labelled(write_task)
    declared = task_cases("T", Task(str(root), "CT", (1, 1, 1), classes="all", missing={"tumour": "c[01]$"}))
    assert declared.missing == {"c0": {"tumour"}, "c1": {"tumour"}}


def test_a_case_without_the_mask_of_a_class_does_not_mark_it(tmp_path: Path, save_volume: Save) -> None:
    voxels = np.zeros((6, 6, 6), np.float32)
    voxels[2:4] = 1
    for name, masks in {"a": ("liver", "lung"), "b": ("liver",)}.items():
        save_volume(f"{name}_ct.nii.gz", voxels)
        for mask in masks:
            save_volume(f"{name}_{mask}.nii.gz", voxels.astype(np.uint8))
    layout = Folders("{case}_ct", {"liver": "{case}_liver", "lung": "{case}_lung"})
    found = task_cases("T", Task(str(tmp_path), "CT", (1, 1, 1), classes="all", layout=layout))
    assert len(found.cases) == 2
    assert found.missing == {"b": {"lung"}}


@pytest.mark.parametrize(
    ("names", "mirrored"),
    [
        (["left kidney", "right kidney"], False),
        (["kidney_L"], False),
        (["anterior", "posterior"], True),
        (["cleft"], True),
    ],
)
def test_classes_of_a_side_are_not_mirrored(names: list[str], mirrored: bool) -> None:
    task = Task("somewhere", "MR", (1, 1, 1), classes=dict.fromkeys(names, 1))
    assert task.mirrored == mirrored
    assert Task("somewhere", "MR", (1, 1, 1), classes=dict.fromkeys(names, 1), mirror=True).mirrored


def test_one_output_cannot_show_two_organs_of_the_same_image(write_task: WriteTask) -> None:
    root = str(labelled(write_task))
    tasks = {name: Task(root, "CT", (1, 1, 1), organ=[value]) for name, value in (("Liver", 1), ("Tumour", 2))}
    with pytest.raises(ConfigError, match="Liver and Tumour mark different structures in the same image"):
        MultiTaskData(tasks, (4, 4, 4)).setup("fit")
    MultiTaskData(tasks, (4, 4, 4), outputs="per_task").setup("fit")
