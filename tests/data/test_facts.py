"""What is known of the data of a task, for the model card and the report."""

import json
from pathlib import Path

from medmtl.data.facts import UNKNOWN, data_facts
from medmtl.data.task import Task

SPLITS = {"Liver": {"train": ["a1", "a2", "b"], "test": ["c"]}}
PATIENTS = {"Liver": {"a1": "anna", "a2": "anna", "b": "ben", "c": "carl"}}


def liver(root: Path) -> dict[str, Task]:
    return {"Liver": Task(root=str(root), modality="CT", spacing=(2, 2, 2), organ=[1, 2])}


def test_images_and_patients_of_each_part_are_counted(tmp_path: Path) -> None:
    declared = {"licence": "CC-BY 4.0", "reference": "A. Author 2020"}
    (tmp_path / "dataset.json").write_text(json.dumps(declared))
    found = data_facts(liver(tmp_path), SPLITS, PATIENTS)["Liver"]
    assert (found.licence, found.reference) == ("CC-BY 4.0", "A. Author 2020")
    assert (found.modality, found.organ) == ("CT", "labels 1, 2 as one")
    assert (found.images, found.patients) == ({"train": 3, "test": 1}, {"train": 2, "test": 1})


def test_a_single_label_is_not_called_several(tmp_path: Path) -> None:
    one = {"Liver": Task(root=str(tmp_path), modality="CT", spacing=(2, 2, 2), organ=[3])}
    assert data_facts(one, SPLITS, None)["Liver"].organ == "label 3"


def test_what_is_not_known_is_not_stated(tmp_path: Path) -> None:
    found = data_facts(liver(tmp_path / "gone"), SPLITS, None)["Liver"]
    assert (found.licence, found.reference, found.patients) == (UNKNOWN, UNKNOWN, {})


def test_patients_are_not_counted_where_the_one_of_a_case_that_is_gone_is_not_known(tmp_path: Path) -> None:
    patients = {"Liver": {key: PATIENTS["Liver"][key] for key in ("a1", "b", "c")}}
    found = data_facts(liver(tmp_path), SPLITS, patients)["Liver"]
    assert (found.images, found.patients) == ({"train": 3, "test": 1}, {})
