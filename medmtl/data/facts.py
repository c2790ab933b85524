"""What is known of the data of each task: licence, source, images and patients of each part of the split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmtl.data.task import Task, resolve_root
from medmtl.errors import DataError
from medmtl.files import TextError, read_json

UNKNOWN = "not stated by the data set"


@dataclass(frozen=True)
class DataFacts:
    """The data of a task.

    Attributes:
        modality: of its images.
        organ: what is segmented, in words.
        licence: as the data set states it.
        reference: likewise.
        images: part of the split -> images.
        patients: part of the split -> patients; empty where they are not known.
    """

    modality: str
    organ: str
    licence: str
    reference: str
    images: Mapping[str, int]
    patients: Mapping[str, int]


def data_facts(
    tasks: Mapping[str, Task],
    splits: Mapping[str, Mapping[str, list[str]]],
    patients: Mapping[str, Mapping[str, str]] | None,
) -> dict[str, DataFacts]:
    """What is known of the data of each task.

    Args:
        tasks: by name.
        splits: task -> part -> cases.
        patients: task -> case -> patient; None where the data could not be read.
    """
    return {
        name: _facts(name, task, splits[name], None if patients is None else patients[name])
        for name, task in tasks.items()
    }


def _facts(name: str, task: Task, split: Mapping[str, list[str]], patients: Mapping[str, str] | None) -> DataFacts:
    declared = _declared(name, task)
    values = ", ".join(map(str, task.organ or []))
    organ = ", ".join(task.class_names or ()) or (f"labels {values} as one" if "," in values else f"label {values}")
    people = {part: {(patients or {}).get(case) for case in own} for part, own in split.items()}
    if any(None in own for own in people.values()):
        people = {}  # a case of the training may be gone since
    return DataFacts(
        modality=task.modality,
        organ=organ,
        licence=_text(declared.get("licence", declared.get("license"))) or UNKNOWN,
        reference=_text(declared.get("reference")) or UNKNOWN,
        images={part: len(cases) for part, cases in split.items()},
        patients={part: len(own) for part, own in people.items()},
    )


def _declared(name: str, task: Task) -> dict[str, Any]:
    """What the `dataset.json` of a task says; nothing where there is none."""
    try:
        found = read_json(resolve_root(name, task.root) / "dataset.json")
    except (DataError, OSError, ValueError, TextError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
