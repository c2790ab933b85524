"""The layout of the Medical Segmentation Decathlon: `dataset.json`, `imagesTr`, `labelsTr`, `imagesTs`."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from medmtl.data.task import Case, ForeignImages, LabelFile, Task, patient_of, resolve_root
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
    declared = _declared(name, root, dataset)
    unknown = sorted(set(task.organ) - declared)
    if unknown:
        raise DataError(
            f"task {name}: organ {unknown} is not among the labels {sorted(declared)} of {root / 'dataset.json'}",
            fix="correct `organ`",
        )
    cases = []
    for pair in _entries(name, root, dataset, "training"):
        image, label = (_inside(name, root, pair, key) for key in ("image", "label"))
        case = _stem(image)
        patient = patient_of(name, case, task.patient)
        cases.append(Case(case, patient, (image,), (LabelFile(label),), (task.channel,)))
    return _sorted_unique(name, cases, root)


def declared_labels(name: str, task: Task) -> set[int]:
    """The label values that the task's `dataset.json` declares, 0 (background) included."""
    root = resolve_root(name, task.root)
    return {0} | _declared(name, root, _read_dataset(name, root))


def foreign_cases(name: str, folder: ForeignImages) -> list[Case]:
    """All images of a folder, as cases without labels.

    With a `dataset.json` these are its training and test images, without one all NIfTI files below the folder.

    Raises:
        DataError: no folder, or no image in it.
    """
    root = resolve_root(name, folder.root)
    if (root / "dataset.json").is_file():
        dataset = _read_dataset(name, root)
        entries = [entry for key in ("training", "test") for entry in _entries(name, root, dataset, key)]
        images = [_inside(name, root, entry, "image") for entry in entries]
    else:
        images = [path for path in root.rglob("*") if path.name.endswith(SUFFIXES)]
    return _sorted_unique(name, [Case(_stem(p), _stem(p), (p,), channels=(folder.channel,)) for p in images], root)


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


def _declared(name: str, root: Path, dataset: dict[str, Any]) -> set[int]:
    try:
        return {int(value) for value in dataset["labels"]}
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{name}: `labels` of {root / 'dataset.json'} does not name label values",
            fix='write {"0": "background", "1": "organ"}',
        ) from None


def _entries(name: str, root: Path, dataset: dict[str, Any], key: str) -> list[Any]:
    entries = dataset.get(key, [])
    if not isinstance(entries, list):
        raise DataError(f"{name}: `{key}` of {root / 'dataset.json'} is not a list", fix="correct the file")
    return entries


def _inside(name: str, root: Path, entry: Any, key: str) -> Path:
    """The file that an entry (`{"image": ..., "label": ...}`, or the path of an image) means, within the root."""
    text = entry.get(key) if isinstance(entry, dict) else entry if key == "image" else None
    if not isinstance(text, str):
        raise DataError(f"{name}: {entry!r} in {root / 'dataset.json'} has no `{key}`", fix="correct the file")
    # Links are not followed: data managers keep the files elsewhere and link to them.
    path = Path(os.path.normpath(root / text))
    if not path.is_relative_to(os.path.normpath(root)):
        raise DataError(f"{name}: {text} in {root / 'dataset.json'} leaves the folder", fix="keep files inside it")
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
