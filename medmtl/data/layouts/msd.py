"""The layout of the Medical Segmentation Decathlon: `dataset.json`, `imagesTr`, `labelsTr`, `imagesTs`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from medmtl.data.task import Case, ForeignImages, Task, patient_of, resolve_root
from medmtl.errors import DataError

SUFFIXES = (".nii.gz", ".nii")


def labelled_cases(name: str, task: Task) -> list[Case]:
    """The labelled cases of a task, in the order of their names.

    Args:
        name: the task's name, for messages.
        task: where and what.

    Raises:
        DataError: no folder, no readable `dataset.json`, no or repeated cases, a label value that is not declared.
    """
    root = resolve_root(name, task.root)
    dataset = _read_dataset(name, root)
    declared = {int(value) for value in dataset.get("labels", {})}
    unknown = sorted(set(task.organ) - declared)
    if unknown:
        raise DataError(
            f"task {name}: organ {unknown} is not among the labels {sorted(declared)} of {root / 'dataset.json'}",
            fix="correct `organ`",
        )
    cases = []
    for pair in dataset.get("training", []):
        image, label = _inside(name, root, pair["image"]), _inside(name, root, pair["label"])
        case = _stem(image)
        cases.append(Case(case, patient_of(name, case, task.patient), image, label, task.channel))
    return _sorted_unique(name, cases, root)


def declared_labels(name: str, task: Task) -> set[int]:
    """The label values that the task's `dataset.json` declares, 0 (background) included."""
    labels = _read_dataset(name, resolve_root(name, task.root)).get("labels", {})
    return {0} | {int(value) for value in labels}


def foreign_cases(name: str, folder: ForeignImages) -> list[Case]:
    """All images of a folder, as cases without labels.

    With a `dataset.json` these are its training and test images, without one all NIfTI files below the folder.

    Raises:
        DataError: no folder, or no image in it.
    """
    root = resolve_root(name, folder.root)
    if (root / "dataset.json").is_file():
        dataset = _read_dataset(name, root)
        entries = [pair["image"] for pair in dataset.get("training", [])] + dataset.get("test", [])
        images = [_inside(name, root, entry) for entry in entries]
    else:
        images = [path for path in root.rglob("*") if path.name.endswith(SUFFIXES)]
    return _sorted_unique(name, [Case(_stem(p), _stem(p), p, None, folder.channel) for p in images], root)


def _read_dataset(name: str, root: Path) -> dict[str, Any]:
    path = root / "dataset.json"
    try:
        dataset = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(
            f"{name}: {path} is missing", fix="point `root` to a Medical Segmentation Decathlon folder"
        ) from None
    except ValueError as error:
        raise DataError(f"{name}: {path} is not readable JSON ({error})", fix="correct the file") from None
    if not isinstance(dataset, dict):
        raise DataError(f"{name}: {path} is not a JSON object", fix="correct the file")
    return dataset


def _inside(name: str, root: Path, entry: str) -> Path:
    path = root / entry
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{name}: {entry} in {root / 'dataset.json'} leaves the folder", fix="keep files inside it")
    return path


def _stem(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def _sorted_unique(name: str, cases: list[Case], root: Path) -> list[Case]:
    if not cases:
        raise DataError(f"{name}: {root} holds no cases", fix="check `root` and its dataset.json")
    repeated = [case for case, times in Counter(case.name for case in cases).items() if times > 1]
    if repeated:
        raise DataError(f"{name}: case {repeated[0]} appears more than once in {root}", fix="rename or remove one")
    return sorted(cases, key=lambda case: case.name)
