"""Splits by patient: deterministic, written to the run folder and read back.

A patient who appears in several tasks (the three sarcoma tasks show the same people) falls on the same side of
the split in all of them, so that no test image has a sibling among the training images.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmtl.errors import DataError
from medmtl.files import read_json, write_text
from medmtl.typed import typed

PARTS = ("train", "val", "test")
CALIBRATION = "calibration"  # a part that a split may have besides, where it is wanted


def split_patients(
    patients: Mapping[str, Sequence[str]],
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    folds: Mapping[str, Mapping[str, str]] | None = None,
    calibration: float = 0.0,
) -> dict[str, str]:
    """Assign every patient to `train`, `val` or `test`, or to `calibration` where that has a share.

    Tasks that share patients, directly or through a third task, form a group that is split as one; within it,
    patients are taken in the order of (tasks they appear in, hash of seed and name), and every `1/fraction`-th goes
    to validation or test. So each task gets its fraction, and adding an unrelated task moves no patient. A small task
    without a patient in a part is given one of its patients of a part that keeps another.

    Args:
        patients: task name -> patient of each of its cases (repeats allowed).
        val: share of validation patients, in [0, 1).
        test: share of test patients, in [0, 1).
        seed: another seed gives another split.
        folds: task name -> patient -> `train` or `val`, of tasks that bring a split along. Whom it measures on are test
            patients; of the others a share of `val` is validated on. The patients of all other tasks are split as if
            these did not exist.
        calibration: share of patients who calibrate temperatures and threshold and have no other part, in [0, 1).

    Returns:
        Patient -> part, one of `PARTS` or `CALIBRATION`.

    Raises:
        DataError: the fractions leave nothing to train on, a task gets no patient for a part above 0, or two
            folds disagree.
    """
    if folds:
        return _split_by_folds(patients, val, test, seed, folds, calibration)
    if not (all(share >= 0 for share in (val, test, calibration)) and val + test + calibration < 1):
        asked = f"data.val={val}, data.test={test} and data.calibration={calibration}"
        raise DataError(f"{asked} leave no training cases", fix="use fractions below 1")
    parts: dict[str, str] = {}
    for ordered in _ordered_groups(patients, seed):
        parts |= dict(zip(ordered, _spread(len(ordered), val, test, calibration), strict=True))
    wanted = ["train", *(part for part, share in (("val", val), ("test", test), (CALIBRATION, calibration)) if share)]
    for task in sorted(patients, key=lambda task: len(set(patients[task]))):
        for part in wanted:
            _give(task, part, parts, patients)
    return parts


def fold_patients(
    patients: Mapping[str, Sequence[str]], folds: int, val: float = 0.2, seed: int = 0, calibration: float = 0.0
) -> list[dict[str, str]]:
    """Deal the patients to the folds of a cross-validation: each is a test patient in exactly one of them.

    Groups of tasks that share patients are dealt as one, in the order of `split_patients`.

    Args:
        patients: task name -> patient of each of its cases (repeats allowed).
        folds: how many, 2 or more.
        val: share of all patients that each fold validates on, taken from those it does not test.
        seed: another seed gives other folds.
        calibration: share of all patients that calibrate each fold's temperatures and threshold and nothing else,
            taken from those it does not test.

    Returns:
        For each fold: patient -> part, one of `PARTS` or `CALIBRATION`.

    Raises:
        DataError: a task has too few patients to train, validate, calibrate and test in every fold.
    """
    if folds < 2 or not (val > 0 and calibration >= 0 and val + calibration < 1 - 1 / folds):
        shares = f"a validation share of {val}" + (f" and a calibration share of {calibration}" if calibration else "")
        raise DataError(
            f"{folds} folds and {shares} leave no training cases",
            fix="use 2 folds or more, and a share above 0 that leaves some patients",
        )
    groups = _ordered_groups(patients, seed)
    result = []
    for fold in range(folds):
        parts: dict[str, str] = {}
        for ordered in groups:
            rest = [patient for number, patient in enumerate(ordered) if number % folds != fold]
            parts |= dict.fromkeys(ordered, "test")
            of_rest = len(ordered) / max(len(rest), 1)
            parts |= dict(zip(rest, _spread(len(rest), val * of_rest, 0, calibration * of_rest), strict=True))
        for task in sorted(patients, key=lambda task: len(set(patients[task]))):
            if not {parts[patient] for patient in patients[task]} >= {"train", "test"}:
                raise DataError(
                    f"task {task}: {len(set(patients[task]))} patients are too few for {folds} folds", fix="use fewer"
                )
            for part in ("val", *([CALIBRATION] if calibration else [])):
                _give(task, part, parts, patients, donors=("train",))
        result.append(parts)
    return result


def cases_by_part(patient_of: Mapping[str, str], part_of: Mapping[str, str]) -> dict[str, list[str]]:
    """The cases of a task in each part.

    Args:
        patient_of: case id -> patient.
        part_of: patient -> part.

    Returns:
        Part -> case ids, in the order given; with `CALIBRATION` where some patient is in it.
    """
    parts = [*PARTS, *([CALIBRATION] if CALIBRATION in part_of.values() else [])]
    return {part: [case for case, patient in patient_of.items() if part_of[patient] == part] for part in parts}


def fewer_training_cases(
    split: Mapping[str, Sequence[str]], patient_of: Mapping[str, str], cases: int, seed: int = 0
) -> dict[str, list[str]]:
    """Keep some of a task's training cases; smaller sets are contained in larger ones.

    The order is by a hash of the patient, so that tasks which share patients keep the same ones.

    Args:
        split: part -> case ids of one task.
        patient_of: case id -> patient.
        cases: training cases to keep, at most.
        seed: another seed keeps others.

    Returns:
        Part -> case ids, validation and test as they were.
    """
    chosen = set(sorted(split["train"], key=lambda case: (_hash(seed, patient_of[case]), case))[:cases])
    return {part: [case for case in names if part != "train" or case in chosen] for part, names in split.items()}


def write_splits(path: Path, splits: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Write `{task: {part: [case, ...]}}` as JSON.

    Args:
        path: the file, `splits.json` of the run folder.
        splits: task name -> part -> case ids.
    """
    write_text(path, json.dumps(splits, indent=1) + "\n")


def read_splits(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read what `write_splits` wrote.

    Raises:
        DataError: the file does not exist, or holds something else.
    """
    try:
        splits = typed(dict[str, dict[str, list[str]]], read_json(path))
        return {task: {part: parts[part] for part in _parts_of(parts)} for task, parts in splits.items()}
    except FileNotFoundError:
        raise DataError(f"there is no split file {path}", fix="correct data.splits") from None
    except (ValueError, KeyError):
        raise DataError(
            f"{path} is not a split file", fix='write {"task": {"train": [case, ...], "val": [...], "test": [...]}}'
        ) from None


def apply_splits(
    path: Path, patients: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, dict[str, list[str]]], dict[str, str]]:
    """Read a split file and check it against the cases that there are.

    Args:
        path: the split file; it may list more tasks.
        patients: task name -> case id -> patient.

    Returns:
        Task -> part -> case ids, and patient -> part of all patients that the file uses.

    Raises:
        DataError: a task is not in the file, a case does not exist, a patient is in two parts, or there is nothing to
            train or validate on, or to calibrate on where another task has a calibration part.
    """
    listed = read_splits(path)
    apart = any(listed.get(task, {}).get(CALIBRATION) for task in patients)
    needed = ["train", "val", *([CALIBRATION] if apart else [])]
    part_of: dict[str, str] = {}
    for task, known in patients.items():
        if task not in listed:
            raise DataError(f"task {task} is not in the split file {path}", fix="add it, or leave out data.splits")
        for part, case in [(name, case) for name, cases in listed[task].items() for case in cases]:
            if case not in known:
                raise DataError(f"task {task}, case {case}: listed in {path} but not in the data", fix="correct either")
            if part_of.setdefault(known[case], part) != part:
                raise DataError(
                    f"task {task}, case {case}: {path} has patient {known[case]} in {part_of[known[case]]} and {part}",
                    fix="put all cases of a patient into one part",
                )
        empty = [part for part in needed if not listed[task].get(part)]
        if empty:
            raise DataError(f"task {task}: {path} lists no case for {empty[0]}", fix="add one")
    return {task: listed[task] for task in patients}, part_of


def _parts_of(parts: Mapping[str, Sequence[str]]) -> list[str]:
    return [*PARTS, *([CALIBRATION] if CALIBRATION in parts else [])]


def _split_by_folds(
    patients: Mapping[str, Sequence[str]],
    val: float,
    test: float,
    seed: int,
    folds: Mapping[str, Mapping[str, str]],
    calibration: float,
) -> dict[str, str]:
    given: dict[str, str] = {}
    for task, part_of in folds.items():
        for patient, part in part_of.items():
            if given.setdefault(patient, part) != part:
                raise DataError(
                    f"task {task}, patient {patient}: another task's fold has it on the other side",
                    fix="correct `fold`",
                )
    learnt = {task: [patient for patient in patients[task] if given[patient] == "train"] for task in folds}
    free = {task: [patient for patient in names if patient not in given] for task, names in patients.items()}
    parts = {patient: "test" for patient, part in given.items() if part == "val"}
    parts |= split_patients(learnt, val, 0, seed, calibration=calibration)
    rest = {task: names for task, names in free.items() if names}
    parts |= split_patients(rest, val, test, seed, calibration=calibration)
    needed = {"train", *(["val"] if val else []), *([CALIBRATION] if calibration else [])}
    for task, names in patients.items():
        lacking = needed - {parts[patient] for patient in names}
        if lacking:
            raise DataError(
                f"task {task}: the folds leave it no patient for {min(lacking)}", fix="leave `fold` out, or split again"
            )
    return parts


def _ordered_groups(patients: Mapping[str, Sequence[str]], seed: int) -> list[list[str]]:
    """The patients of each group of tasks that share some, by the tasks they appear in and then by chance."""
    members = {task: set(names) for task, names in patients.items()}
    return [
        sorted(
            {patient for task in group for patient in members[task]},
            key=lambda patient: ([task for task in group if patient in members[task]], _hash(seed, patient)),
        )
        for group in _groups_sharing_patients(patients)
    ]


def _hash(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()


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


def _give(
    task: str,
    part: str,
    parts: dict[str, str],
    patients: Mapping[str, Sequence[str]],
    donors: Sequence[str] = (*PARTS, CALIBRATION),
) -> None:
    """Move one patient of a task, of the training part if possible, to a part that it has none in."""
    present = [parts[patient] for patient in patients[task]]
    if part in present:
        return
    for patient in sorted(patients[task], key=lambda patient: (parts[patient] != "train", patient)):
        owners = [set(names) for names in patients.values() if patient in names]
        rest = [[parts[other] for other in names if other != patient] for names in owners]
        if parts[patient] in donors and all(parts[patient] in kept for kept in rest):
            parts[patient] = part
            return
    raise DataError(
        f"task {task}: its {len(set(patients[task]))} patients leave none for {part}",
        fix="add labelled cases, or change data.val, data.test or data.split_seed",
    )


def _spread(count: int, val: float, test: float, calibration: float = 0.0) -> list[str]:
    """Parts of `count` patients in order: each held-out part rounded, never empty if above 0, evenly spaced."""
    shares = {"test": test, "val": val, CALIBRATION: calibration}
    wanted = {part: max(round(count * share), share > 0) for part, share in shares.items()}
    parts = ["train"] * count
    for part, number in wanted.items():
        free = [index for index, name in enumerate(parts) if name == "train"]
        number = min(number, len(free))
        for step in range(number):
            parts[free[(2 * step + 1) * len(free) // (2 * number)]] = part
    return parts
