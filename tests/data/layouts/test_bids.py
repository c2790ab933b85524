"""BIDS folders: which label belongs to which image, and what is refused in a line that names it."""

import json
from pathlib import Path
from typing import Any

import pytest

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts import Bids, Corpus, check_layout, recognise
from medmtl.data.task import Task
from medmtl.data.task_cases import task_cases
from medmtl.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects: one with two sessions, of which one has two runs; T1w and FLAIR, segmented by two people."""
    for source in ("sub-01/ses-a/anat/sub-01_ses-a_run-1", "sub-01/ses-a/anat/sub-01_ses-a_run-2",
                   "sub-01/ses-b/anat/sub-01_ses-b", "sub-02/anat/sub-02"):  # fmt: skip
        for suffix in ("T1w", "FLAIR"):
            touch(tmp_path / f"{source}_{suffix}.nii.gz")
            touch(tmp_path / f"{source}_{suffix}.json")
        for person in ("anna", "ben"):
            touch(tmp_path / f"derivatives/{person}/{source}_space-T1w_desc-{person}_dseg.nii.gz")
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    return tmp_path


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def read(root: Path, **options: Any) -> Corpus:
    check_layout(Bids(**options), root)
    return Bids(**options).read("T", root)


def complaint(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        Bids(**options).read("T", root)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("chosen", [{"derivative": "anna"}, {"entities": {"desc": "anna"}}])
def test_a_label_belongs_to_the_image_of_its_subject_session_and_run(root: Path, chosen: dict[str, Any]) -> None:
    assert type(recognise(root)) is Bids
    corpus = read(root, image="T1w", **chosen)
    names = ["sub-01_ses-a_run-1", "sub-01_ses-a_run-2", "sub-01_ses-b", "sub-02"]
    assert [case.name for case in corpus.cases] == names
    assert [case.patient for case in corpus.cases] == ["sub-01", "sub-01", "sub-01", "sub-02"]
    assert corpus.cases[1] == Case(
        "sub-01_ses-a_run-2",
        "sub-01",
        (root / "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz",),
        (LabelFile(root / "derivatives/anna/sub-01/ses-a/anat/sub-01_ses-a_run-2_space-T1w_desc-anna_dseg.nii.gz"),),
    )


def test_a_task_keeps_the_subject_as_the_patient_unless_it_says_otherwise(root: Path) -> None:
    layout = Bids("T1w", "anna")
    for pattern, patients in ((None, {"sub-01", "sub-02"}), (r"sub-\d+(_ses-.)?", {"sub-01_ses-a", "sub-01_ses-b"})):
        task = Task(str(root), "MR", (1, 1, 1), [1], layout=layout, patient=pattern)
        if pattern is None:
            assert {case.patient for case in task_cases("T", task).cases} == patients
    named = Task(str(root), "MR", (1, 1, 1), [1], layout=layout, patient=r"sub-(\d+)")
    assert {case.patient for case in task_cases("T", named).cases} == {"01", "02"}


def test_images_of_several_suffixes_are_channels(root: Path) -> None:
    corpus = read(root, image=["FLAIR", "T1w"], derivative="ben")
    assert corpus.channels == ("FLAIR", "T1w")
    assert [path.name for path in corpus.cases[3].images] == ["sub-02_FLAIR.nii.gz", "sub-02_T1w.nii.gz"]
    (root / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
    assert "case sub-02: no _T1w" in complaint(root, image=["FLAIR", "T1w"], derivative="ben")


def test_a_choice_that_is_open_is_named(root: Path) -> None:
    assert "holds images FLAIR, T1w" in complaint(root)
    assert "one label too many" in complaint(root, image="T1w")
    touch(root / "derivatives/anna/sub-02/anat/sub-02_label-lesion_mask.nii.gz")
    assert "both _dseg and _mask" in complaint(root, image="T1w", derivative="anna")


def test_masks_stand_for_their_names_in_order(root: Path) -> None:
    touch(root / "sub-02/anat/sub-02_label-lesion_mask.nii.gz")
    touch(root / "sub-02/anat/sub-02_label-brain_mask.nii.gz")
    corpus = read(root, image="T1w", labels="mask")
    assert corpus.organs == {"brain": (1,), "lesion": (2,)}
    assert [len(case.labels) for case in corpus.cases] == [0, 0, 0, 2]
    assert {label.value: label.path.name for label in corpus.cases[3].labels} == {
        1: "sub-02_label-brain_mask.nii.gz",
        2: "sub-02_label-lesion_mask.nii.gz",
    }


def test_names_of_label_values_are_those_of_the_table_or_of_the_layout(root: Path) -> None:
    assert read(root, image="T1w", derivative="anna").declared is None
    table = root / "derivatives/anna/desc-anna_dseg.tsv"
    table.write_text("index\tname\tabbreviation\n0\tbackground\tb\n1\tgrey matter\tGM\n2\twhite matter\tWM\n")
    corpus = read(root, image="T1w", derivative="anna")
    assert corpus.organs == {"grey matter": (1,), "white matter": (2,)}
    assert read(root, image="T1w", derivative="ben").organs == {}
    assert read(root, image="T1w", derivative="anna", organs={"brain": [1, 2]}, ignore=3).declared == {0, 1, 2, 3}
    table.write_text("name\ngrey matter\n")
    assert f"{table} does not name label values" in complaint(root, image="T1w", derivative="anna")


def test_a_folder_without_subjects_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path} holds no images" in complaint(tmp_path)
