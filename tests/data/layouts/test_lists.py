"""CSV and JSON lists: what becomes a case, and what is refused in a line that names it."""

import json
from pathlib import Path
from typing import Any

import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts import FileList, check_layout
from medmtl.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of files that lists may name."""
    root = tmp_path / "root"
    for name in ("a.nii.gz", "b.nrrd", "deep/c.mha", "t.nii.gz", "u.nii.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (tmp_path / "outside.nii.gz").write_text("")
    return root


def cases(root: Path, text: str | list[Any], **options: Any) -> tuple[Case, ...]:
    file = "cases.csv" if isinstance(text, str) else "cases.json"
    (root / file).write_text(text if isinstance(text, str) else json.dumps(text))
    return FileList(**options).read("T", root).cases


def complaint(root: Path, text: str | list[Any]) -> str:
    with pytest.raises(DataError) as error:
        cases(root, text)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("T: ")
    return str(error.value)


def test_a_list_of_images_is_enough(root: Path) -> None:
    expected = tuple(Case(name, name, (root / path,)) for name, path in (("a", "a.nii.gz"), ("c", "deep/c.mha")))
    assert cases(root, "image\na.nii.gz\ndeep/c.mha\n") == expected
    (root / "cases.csv").unlink()
    assert cases(root, [{"image": "a.nii.gz"}, {"image": "./deep/c.mha"}]) == expected


def test_names_patients_labels_and_channels_are_taken_from_their_columns(root: Path) -> None:
    text = "name,patient,site,image_T1,image_T2,label\none,P1,here,a.nii.gz,b.nrrd,t.nii.gz\ntwo,,,b.nrrd,a.nii.gz,\n"
    assert cases(root, text) == (
        Case("one", "P1", (root / "a.nii.gz", root / "b.nrrd"), (LabelFile(root / "t.nii.gz"),)),
        Case("two", "two", (root / "b.nrrd", root / "a.nii.gz")),
    )
    assert FileList().read("T", root).channels == ("T1", "T2")
    check_layout(FileList(organs={"liver": 1, "both": [1, 2]}, ignore=3), root)


def test_masks_stand_for_their_columns_in_order_and_may_lack(root: Path) -> None:
    (case,) = cases(root, [{"image": "a.nii.gz", "label_liver": None, "label_spleen": "u.nii.gz"}])
    assert case.labels == (LabelFile(root / "u.nii.gz", 2),)
    rows = [
        {"image": "a.nii.gz", "label_liver": "t.nii.gz", "label_spleen": "u.nii.gz"},
        {"image": "b.nrrd", "label_spleen": "t.nii.gz"},
    ]
    one, other = cases(root, rows)
    assert one.labels == (LabelFile(root / "t.nii.gz", 1), LabelFile(root / "u.nii.gz", 2))
    assert other.labels == (LabelFile(root / "t.nii.gz", 2),)
    assert FileList().read("T", root).organs == {"liver": (1,), "spleen": (2,)}
    check_layout(FileList(), root)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_dialects_of_spreadsheets_are_read(root: Path, mark: str) -> None:
    rows = [["image", "label"], ["a.nii.gz", "t.nii.gz"], ['"deep/c.mha"', "u.nii.gz"]]
    text = "\ufeff" + "\r\n".join(mark.join(row) for row in rows) + "\r\n"
    assert [case.name for case in cases(root, text)] == ["a", "c"]


def test_a_list_of_another_name_is_named_by_the_layout(root: Path) -> None:
    (root / "train.csv").write_text("image\nb.nrrd\n")
    assert [case.name for case in cases(root, "image\na.nii.gz\n", file="train.csv")] == ["b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image\n", "lists no case"),
        ("scan\na.nii.gz\n", "no column `image`"),
        ("image,label\n,t.nii.gz\n", "entry 1"),
        ("image_T1,image_T2\na.nii.gz\n", "no `image_T2`"),
        ("image,image_T2\na.nii.gz,b.nrrd\n", "`image` alone"),
        ("image\nabsent.nii.gz\n", "names absent.nii.gz, which is not there"),
        ("image,label\na.nii.gz,absent.nii.gz\n", "names absent.nii.gz, which is not there"),
        ("image\n../outside.nii.gz\n", "../outside.nii.gz"),
        ("image,label\na.nii.gz,/etc/hosts\n", "/etc/hosts"),
        ("image,name\na.nii.gz,x/../../y\n", "x/../../y"),
        ([], "lists no case"),
        ([["a.nii.gz"]], "not a list of objects"),
        ([{"image": 5}], "names 5, which is not there"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(root: Path, text: str | list[Any], words: str) -> None:
    message = complaint(root, text)
    assert words in message
    assert str(root / ("cases.csv" if isinstance(text, str) else "cases.json")) in message


def test_a_list_that_is_no_json_is_named(root: Path) -> None:
    (root / "cases.json").write_text("{")
    with pytest.raises(DataError, match=r"cases\.json is not readable"):
        FileList("cases.json").read("T", root)
