"""The checks before training: each bad input is one line that names task, case and file."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_image, check_task
from medmtl.data.task import Task
from medmtl.data.task_cases import task_cases
from medmtl.errors import DataError

Save = Callable[..., Path]
SHAPE = (6, 5, 4)
IMAGE = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
LABEL = (IMAGE > 90).astype(np.uint8)


@pytest.fixture
def cases(save_volume: Save) -> list[Case]:
    """Three good cases, one of a patient who has two."""
    found = []
    for name in ("one", "two", "three"):
        image, label = save_volume(f"images/{name}.nii.gz", IMAGE), save_volume(f"labels/{name}.nii.gz", LABEL)
        found.append(Case(name, name, (image,), (LabelFile(label),)))
    return found


def check(cases: list[Case]) -> None:
    check_task("Liver", cases, organ=[1], declared={0, 1})


def complaint(cases: list[Case]) -> str:
    with pytest.raises(DataError) as error:
        check(cases)
    message = str(error.value)
    assert "\n" not in message
    assert "task Liver" in message
    return message


def test_good_cases_pass_without_a_word(cases: list[Case], caplog: pytest.LogCaptureFixture) -> None:
    check(cases)
    assert not caplog.records


@pytest.mark.parametrize("part", ["image", "label"])
@pytest.mark.parametrize("damage", ["removed", "truncated", "text", "empty"])
def test_a_file_that_is_missing_or_broken_is_named(cases: list[Case], part: str, damage: str) -> None:
    path = cases[1].images[0] if part == "image" else cases[1].labels[0].path
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no image", "empty": b""}[damage])
    message = complaint(cases)
    assert f"case two: {path}" in message
    assert ("is missing" if damage == "removed" else "cannot be read") in message


def test_an_uncompressed_file_that_was_cut_short_is_named(cases: list[Case], save_volume: Save) -> None:
    path = save_volume("images/cut.nii", IMAGE)
    path.write_bytes(path.read_bytes()[:-8])
    message = complaint([cases[0], Case("two", "two", (path,), cases[1].labels)])
    assert f"task Liver, case two: {path} cannot be read" in message


@pytest.mark.parametrize(
    ("voxels", "word"),
    [
        (np.full(SHAPE, -1024, np.int16), "is -1024 in all voxels"),
        (IMAGE[:-1], "6 x 5 x 4 voxels, its image 5 x 5 x 4"),
        (IMAGE.transpose(1, 0, 2), "6 x 5 x 4 voxels, its image 5 x 6 x 4"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(
    cases: list[Case], save_volume: Save, voxels: np.ndarray, word: str
) -> None:
    path = save_volume("images/two.nii.gz", voxels)
    message = complaint(cases)
    assert "case two" in message
    assert word in message
    # Where image and label disagree, the line names the label.
    assert str(cases[1].labels[0].path if "its image" in word else path) in message


@pytest.mark.parametrize("change", ["spacing", "origin", "flip", "axes"])
def test_a_label_on_another_grid_is_named(cases: list[Case], save_volume: Save, change: str) -> None:
    affine = np.eye(4)
    if change == "spacing":
        affine[1, 1] = 1.01
    elif change == "origin":
        affine[2, 3] = 0.5
    elif change == "flip":
        affine[0, 0] = -1
    else:
        affine[:2, :2] = [[0, 1], [1, 0]]
    path = save_volume("labels/two.nii.gz", LABEL, affine)
    assert f"case two: {path} has another affine than its image" in complaint(cases)


def test_affines_that_differ_by_rounding_are_the_same_grid(cases: list[Case], save_volume: Save) -> None:
    affine = np.eye(4)
    affine[:3, 3] = 1e-5
    save_volume("labels/two.nii.gz", LABEL, affine)
    check(cases)


def test_an_affine_that_cannot_be_inverted_is_named(cases: list[Case], save_volume: Save) -> None:
    flat = np.eye(4)
    flat[:3, 1] = flat[:3, 0]
    path = save_volume("images/two.nii.gz", IMAGE, flat)
    message = complaint(cases)
    assert f"case two: {path}" in message
    assert "affine" in message


@pytest.mark.parametrize("voxels", [LABEL * 3, LABEL * 0.5, LABEL - 1.0, np.where(LABEL, np.nan, 0.0)])
def test_a_label_value_that_is_not_declared_is_named(cases: list[Case], save_volume: Save, voxels: np.ndarray) -> None:
    path = save_volume("labels/two.nii.gz", voxels.astype(np.float32))
    message = complaint(cases)
    assert f"case two: label {path}" in message
    assert str(float(np.setdiff1d(voxels, [0, 1])[0])) in message


def test_a_label_stored_as_floating_point_is_fine(cases: list[Case], save_volume: Save) -> None:
    save_volume("labels/two.nii.gz", LABEL.astype(np.float64))
    check(cases)


def test_one_case_without_foreground_is_only_warned_of(
    cases: list[Case], save_volume: Save, caplog: pytest.LogCaptureFixture
) -> None:
    save_volume("labels/two.nii.gz", LABEL * 0)
    with caplog.at_level(logging.WARNING):
        check(cases)
    (warning,) = caplog.messages
    assert "task Liver, case two" in warning
    assert "no foreground" in warning


def test_a_task_without_any_foreground_is_refused(cases: list[Case], save_volume: Save) -> None:
    for name in ("one", "two", "three"):
        save_volume(f"labels/{name}.nii.gz", LABEL * 2)
    with pytest.raises(DataError, match=r"task Liver: no case has foreground .*\[1\]"):
        check_task("Liver", cases, organ=[1], declared={0, 1, 2})
    check_task("Liver", cases, organ=[1, 2], declared={0, 1, 2})


def test_a_channel_that_the_image_lacks_is_named(cases: list[Case], save_volume: Save) -> None:
    path = save_volume("images/two.nii.gz", np.stack([IMAGE, IMAGE + 1], axis=-1))
    for channel in (0, 1):
        check([Case("two", "two", (path,), cases[1].labels, (channel,))])
    message = complaint([Case("two", "two", (path,), cases[1].labels, (2,))])
    assert f"case two: {path} has no volume 2: it has 2, counted from 0" in message
    assert "no volume 1: it has 1, counted" in complaint([replace(cases[0], channels=(1,))])


def test_a_constant_channel_matters_where_it_is_used(cases: list[Case], save_volume: Save) -> None:
    path = save_volume("images/two.nii.gz", np.stack([IMAGE, IMAGE * 0 + 3], axis=-1))
    check([Case("two", "two", (path,), cases[1].labels, (0,))])
    assert f"{path} is 3 in all voxels" in complaint([Case("two", "two", (path,), cases[1].labels, (0, 1))])


def test_every_channel_that_is_used_is_checked_where_each_is_a_file(cases: list[Case], save_volume: Save) -> None:
    paths = [save_volume(f"images/two_{channel}.nii.gz", IMAGE + channel) for channel in range(3)]
    case = replace(cases[1], images=tuple(paths), channels=(2, 0))
    check([case])
    assert "one of 3 channels, counted from 0, and channel 3 is wanted" in complaint([replace(case, channels=(0, 3))])
    save_volume("images/two_2.nii.gz", np.stack([IMAGE, IMAGE], axis=-1))
    assert f"{paths[2]} holds 2 volumes, where each channel is a file" in complaint([case])
    save_volume("images/two_2.nii.gz", IMAGE)
    save_volume("images/two_1.nii.gz", IMAGE * np.nan)
    check([case])
    assert f"{paths[1]} holds 120 voxels of 120 that are not finite" in complaint([replace(case, channels=(0, 1))])
    save_volume("images/two_0.nii.gz", IMAGE, np.diag([1, 1, 2, 1]))
    message = complaint([case])
    assert f"{paths[0]} has another affine than its channel {paths[2].name}" in message
    save_volume("images/two_0.nii.gz", IMAGE[1:])
    assert f"{paths[0]} has 5 x 5 x 4 voxels, its channel {paths[2].name} 6 x 5 x 4" in complaint([case])


def test_every_mask_is_checked_where_each_organ_has_one(
    cases: list[Case], save_volume: Save, caplog: pytest.LogCaptureFixture
) -> None:
    mask, other = save_volume("one/liver.nii.gz", LABEL * 255), save_volume("one/spleen.nii.gz", LABEL * 0)
    case = replace(cases[0], labels=(LabelFile(mask, 1), LabelFile(other, 2)))
    check([case])
    assert not caplog.records
    with pytest.raises(DataError, match="no case has foreground"):
        check_task("Spleen", [case], organ=[2], declared={0, 1, 2})
    save_volume("one/spleen.nii.gz", LABEL[:, 1:])
    assert f"{other} has 6 x 4 x 4 voxels, its image 6 x 5 x 4" in complaint([case])


def test_a_case_without_a_label_is_named(cases: list[Case]) -> None:
    assert "case one has no label" in complaint([replace(cases[0], labels=())])


def test_an_image_without_a_label_is_checked_by_itself(cases: list[Case], save_volume: Save) -> None:
    assert check_image("Other", replace(cases[0], labels=())).voxels.shape == (1, *SHAPE)
    constant = save_volume("images/three.nii.gz", IMAGE * 0)
    assert check_image("Other", Case("three", "three", (constant,))).voxels.shape == (1, *SHAPE)
    path = save_volume("images/two.nii.gz", IMAGE * np.nan)
    with pytest.raises(DataError) as error:
        check_image("Other", Case("two", "two", (path,)))
    assert f"Other, case two: {path}" in str(error.value)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "options"),
    [("HippocampusMR", {"organ": [1, 2]}), ("FetalBrainMR", {"organ": [1, 5, 6]}), ("SarcomaPET", {"organ": [1]})],
)
def test_real_cases_pass(real_data: Path, name: str, options: dict[str, Any]) -> None:
    task = Task(str(real_data / name), "MR", spacing=(1, 1, 1), **options)
    found = task_cases(name, task)
    check_task(name, found.cases[:5], found.classes.foreground, found.declared)
