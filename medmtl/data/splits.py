"""Splits by patient: deterministic, written to the run folder and read back.

A patient who appears in several tasks (the three sarcoma tasks show the same people) falls on the same side of
the split in all of them, so that no test image has a sibling among the training images.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmtl.errors import DataError
from medmtl.files import write_text

PARTS = ("train", "val", "test")


def split_patients(
    patients: Mapping[str, Sequence[str]], val: float = 0.2, test: float = 0.2, seed: int = 0
) -> dict[str, str]:
    """Assign every patient to `train`, `val` or `test`.

    Tasks that share patients, directly or through a third task, form a group that is split as one; within it,
    patients are taken in the order of (tasks they appear in, hash of seed and name), and every `1/fraction`-th goes
    to validation or test. So each task gets its fraction, and adding an unrelated task moves nobody. A small task that
    gets nobody in a part is given one of its patients who can be spared.

    Args:
        patients: task name -> patient of each of its cases (repeats allowed).
        val: share of validation patients, in [0, 1).
        test: share of test patients, in [0, 1).
        seed: another seed gives another split.

    Returns:
        Patient -> part, one of `PARTS`.

    Raises:
        DataError: the fractions leave nothing to train on, or a task gets no patient for a part that was asked for.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise DataError(f"data.val={val} and data.test={test} leave no training cases", fix="use fractions below 1")
    parts: dict[str, str] = {}
    for group in _groups_sharing_patients(patients):
        ordered = sorted(
            {patient for task in group for patient in patients[task]},
            key=lambda patient: (
                [task for task in group if patient in patients[task]],
                hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest(),
            ),
        )
        parts |= dict(zip(ordered, _spread(len(ordered), val, test), strict=True))
    wanted = ["train", *(part for part, share in (("val", val), ("test", test)) if share)]
    for task in sorted(patients, key=lambda task: len(set(patients[task]))):
        for part in wanted:
            _give(task, part, parts, patients)
    return parts


def write_splits(path: Path, splits: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Write `{task: {part: [case, ...]}}` as JSON.

    Args:
        path: the file, `splits.json` of the run folder.
        splits: task name -> part -> case ids.
    """
    write_text(path, json.dumps(splits, indent=1) + "\n")


def read_splits(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read what `write_splits` wrote."""
    splits: dict[str, dict[str, list[str]]] = json.loads(path.read_text())
    return splits


def _groups_sharing_patients(patients: Mapping[str, Sequence[str]]) -> list[list[str]]:
    groups: list[tuple[list[str], set[str]]] = []
    for task, names in patients.items():
        tasks, union = [task], set(names)
        apart = []
        for other_tasks, other_names in groups:
            if union & other_names:
                tasks, union = other_tasks + tasks, union | other_names
            else:
                apart.append((other_tasks, other_names))
        groups = [*apart, (tasks, union)]
    return [sorted(tasks) for tasks, _ in groups]


def _give(task: str, part: str, parts: dict[str, str], patients: Mapping[str, Sequence[str]]) -> None:
    """Move one patient of a task, of the training part if possible, to a part that it has none in."""
    present = [parts[patient] for patient in patients[task]]
    if part in present:
        return
    for patient in sorted(patients[task], key=lambda patient: (parts[patient] != "train", patient)):
        owners = [set(names) for names in patients.values() if patient in names]
        rest = [[parts[other] for other in names if other != patient] for names in owners]
        if all(parts[patient] in kept for kept in rest):
            parts[patient] = part
            return
    raise DataError(
        f"task {task}: its {len(set(patients[task]))} patients leave none for {part}",
        fix="add labelled cases, or change data.val, data.test or data.split_seed",
    )


def _spread(count: int, val: float, test: float) -> list[str]:
    """Parts of `count` patients in order: each held-out part rounded, never empty if asked for, evenly spaced."""
    wanted = {"test": max(round(count * test), test > 0), "val": max(round(count * val), val > 0)}
    parts = ["train"] * count
    for part, number in wanted.items():
        free = [index for index, name in enumerate(parts) if name == "train"]
        number = min(number, len(free))
        for step in range(number):
            parts[free[(2 * step + 1) * len(free) // (2 * number)]] = part
    return parts
