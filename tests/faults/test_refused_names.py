"""Names that the system refuses to look up, from lists and configurations: one line, and the others are read."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_contradictions, check_image
from medmtl.data.classes import Classes
from medmtl.data.layouts import read_corpus, recognise
from medmtl.data.task import resolve_root
from medmtl.data.task_cases import TaskCases
from medmtl.errors import ConfigError, DataError
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.predict.command import inputs_of
from medmtl.predict.options import parse

LONG = "ü" * 200  # 400 bytes; file systems take 255
NAMES = [name + ending for name in (LONG, f"{LONG}/x", "a\0b", "\ud800") for ending in ("", ".nii.gz", ".dcm", ".mha")]
NAMES.append("/".join(["a" * 200] * 30))  # a path of 6,000 bytes


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(7, 6, 5), np.eye(4)), path)
    return path


def read_all(root: Path) -> None:
    for case in read_corpus("T", root, recognise(root)).cases:
        check_image("T", case)
        check_image("T", replace(case, images=(case.labels[0].path,)))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_such_a_name_is_one_line_and_the_others_of_its_list_are_read(tmp_path: Path, name: str) -> None:
    image(tmp_path / "good.nii.gz")
    (tmp_path / "list.json").write_text(json.dumps([name, "good.nii.gz"]))
    bad, good = find_inputs(tmp_path / "list.json")
    with pytest.raises(DataError) as error:
        read(bad)
    assert "(… )" not in str(error.value)  # it gives the reason
    assert read(good).image.shape == (1, 7, 6, 5)
    with pytest.raises(DataError, match="does not exist"):
        find_inputs(tmp_path / name)
    arguments = ["--run", "x", "--input", str(tmp_path / "list.json"), "--output", str(tmp_path / "out")]
    assert [each.path.name for each in inputs_of(parse(arguments), stack=False)][1] == "good.nii.gz"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["image", "label"])
def test_a_dataset_that_names_such_a_file_is_one_line(tmp_path: Path, name: str, place: str) -> None:
    pair = {"image": "good.nii.gz", "label": "good.nii.gz", place: name}
    contents = {
        "cases.json": [pair],
        "dataset.json": {"labels": {"0": "background", "1": "organ"}, "training": [pair], "test": []},
    }
    for file, content in contents.items():
        root = tmp_path / file.removesuffix(".json")
        image(root / "good.nii.gz")
        (root / file).write_text(json.dumps(content))
        with pytest.raises(DataError):
            read_all(root)


@pytest.mark.parametrize("name", NAMES)
def test_images_of_such_names_are_compared_among_tasks(name: str) -> None:
    cases = [Case("a", "a", (Path(each),), (LabelFile(Path("label.nii.gz")),)) for each in (name, "good.nii.gz")]
    found = TaskCases(tuple(cases), Classes.of_organ([1]), None, None, {})
    check_contradictions({"A": found, "B": found})
    with pytest.raises(ConfigError, match="mark different structures in the same image"):
        check_contradictions({"A": found, "B": replace(found, classes=Classes.of_organ([2]))})


@pytest.mark.parametrize("name", NAMES)
def test_a_root_of_such_a_name_is_one_line(name: str) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        resolve_root("T", name)
