"""Folders by pattern, and images that lie loose."""

from pathlib import Path
from typing import Any

import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts import Folders, LooseImages, check_layout
from medmtl.data.task import Task
from medmtl.data.task_cases import task_cases
from medmtl.errors import ConfigError, DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def read(root: Path, *patterns: Any, **options: Any) -> list[Case]:
    check_layout(Folders(*patterns, **options), root)
    return list(Folders(*patterns, **options).read("T", root).cases)


def test_the_same_name_in_two_folders_makes_a_pair_whatever_the_endings(tmp_path: Path) -> None:
    touch(
        tmp_path, "images/b.nii.gz", "images/a.nrrd", "labels/a.nii", "labels/b.nii.gz", "images/c.mha", "images/d.txt"
    )
    assert read(tmp_path) == [
        Case("a", "a", (tmp_path / "images/a.nrrd",), (LabelFile(tmp_path / "labels/a.nii"),)),
        Case("b", "b", (tmp_path / "images/b.nii.gz",), (LabelFile(tmp_path / "labels/b.nii.gz"),)),
        Case("c", "c", (tmp_path / "images/c.mha",)),
    ]


def test_a_folder_a_case_with_a_mask_an_organ(tmp_path: Path) -> None:
    for case in ("s1", "s2"):
        touch(
            tmp_path, f"{case}/ct.nii.gz", f"{case}/seg/liver.nii.gz", f"{case}/seg/spleen.nii.gz", f"{case}/mr.nii.gz"
        )
    layout = {"liver": "{case}/seg/liver.nii.gz", "spleen": "{case}/seg/spleen.nii.gz"}
    cases = read(tmp_path, ["{case}/ct", "{case}/mr"], layout)
    assert cases[1] == Case(
        "s2",
        "s2",
        (tmp_path / "s2/ct.nii.gz", tmp_path / "s2/mr.nii.gz"),
        (LabelFile(tmp_path / "s2/seg/liver.nii.gz", 1), LabelFile(tmp_path / "s2/seg/spleen.nii.gz", 2)),
    )
    assert [case.name for case in cases] == ["s1", "s2"]


@pytest.mark.parametrize("patterns", [("{case}", "{case}_seg"), (["{case}", "{case}_t2"], "{case}_seg")])
def test_one_folder_may_hold_images_channels_and_labels(tmp_path: Path, patterns: tuple[Any, str]) -> None:
    names = ["a", "a_seg", "b", "b_seg", *(["a_t2", "b_t2"] if isinstance(patterns[0], list) else [])]
    touch(tmp_path, *(f"{name}.nii.gz" for name in names))
    cases = read(tmp_path, *patterns)
    assert [case.name for case in cases] == ["a", "b"]
    assert [case.labels for case in cases] == [(LabelFile(tmp_path / f"{name}_seg.nii.gz"),) for name in "ab"]


def test_a_case_may_occur_twice_in_a_pattern_and_brackets_mean_themselves(tmp_path: Path) -> None:
    touch(tmp_path, "set[1]/a/a_ct.nii", "set[1]/a/b_ct.nii", "set[1]/a/a_gt.nii", "set1/a/a_ct.nii")
    (case,) = read(tmp_path, "set[1]/{case}/{case}_ct", "set[1]/{case}/{case}_gt")
    assert case == Case("a", "a", (tmp_path / "set[1]/a/a_ct.nii",), (LabelFile(tmp_path / "set[1]/a/a_gt.nii"),))


def test_declared_organs_and_the_ignored_value_are_those_of_the_labels(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    layout = Folders(organs={"liver": 1, "abdomen": [1, 2]}, ignore=9)
    check_layout(layout, tmp_path)
    found = task_cases("T", Task(str(tmp_path), "CT", (1, 1, 1), ["abdomen"], layout=layout))
    assert (found.classes.foreground, found.declared, found.ignore) == ({1, 2}, {0, 1, 2, 9}, 9)
    undeclared = task_cases("T", Task(str(tmp_path), "CT", (1, 1, 1), [5]))
    assert (undeclared.classes.foreground, undeclared.declared) == ({5}, None)


def test_cases_that_lack_the_mask_of_the_organ_are_left_out_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a_ct.nii", "a_liver.nii", "a_spleen.nii", "b_ct.nii", "b_liver.nii")
    layout = Folders("{case}_ct", {"liver": "{case}_liver", "spleen": "{case}_spleen"})
    assert len(task_cases("T", Task(str(tmp_path), "CT", (1, 1, 1), ["liver"], layout=layout)).cases) == 2
    assert not caplog.records
    (case,) = task_cases("T", Task(str(tmp_path), "CT", (1, 1, 1), ["spleen"], layout=layout)).cases
    assert case.name == "a"
    assert "task T: 1 cases lack a mask of the organ" in caplog.text


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "images/a.nrrd", "labels/a.nii")
    with pytest.raises(DataError, match=r"T, case a: .*a\.nii and a\.nrrd"):
        Folders().read("T", tmp_path)
    (tmp_path / "images/a.nrrd").unlink()
    touch(tmp_path, "labels/a.mha")
    with pytest.raises(DataError, match=r"T, case a: .*a\.nii and a\.mha"):
        Folders().read("T", tmp_path)
    with pytest.raises(DataError, match=r"T, case a: .* lacks a channel"):
        Folders(["images/{case}", "more/{case}"], "none/{case}").read("T", tmp_path)
    with pytest.raises(DataError, match=r"T: .* holds no image scans/\{case}"):
        Folders("scans/{case}").read("T", tmp_path)


@pytest.mark.parametrize("pattern", ["images/a", "/data/{case}", "../{case}", "a/../../{case}"])
def test_a_pattern_that_names_no_case_or_leaves_the_root_is_refused(pattern: str) -> None:
    for patterns in ((pattern,), ("{case}", pattern), ("{case}", {"liver": pattern})):
        with pytest.raises(ConfigError) as error:
            Folders(*patterns)
        assert pattern in str(error.value)


def test_masks_leave_nothing_to_declare() -> None:
    with pytest.raises(ConfigError, match="files of label values"):
        Folders("{case}", {"liver": "{case}_l"}, organs={"liver": 1})


def test_loose_images_are_all_files_below_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "x/y/b.mha", "c.txt", "d.nrrd")
    assert [case.name for case in LooseImages().read("T", tmp_path).cases] == ["a", "d", "b"]
    with pytest.raises(DataError, match="holds no labelled cases"):
        task_cases("T", Task(str(tmp_path), "CT", (1, 1, 1), [1]))
