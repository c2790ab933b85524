"""The checks before training: images can be read, label and image share one grid, label values are declared."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from medmtl.data.case import Case, LabelFile, named
from medmtl.data.label import check_declared, check_one_volume, label_of
from medmtl.data.reading import read_channels
from medmtl.data.task import OODImages, Task
from medmtl.data.task_cases import TaskCases
from medmtl.errors import ConfigError, DataError
from medmtl.files import resolved
from medmtl.io.reader import Stack, check_same_grid
from medmtl.io.volume import opened

logger = logging.getLogger(__name__)

LOGGED = 5  # notes of a task


def check_task(name: str, cases: Sequence[Case], organ: Collection[int], declared: Collection[int] | None) -> None:
    """Read all cases of a task and stop at the first that cannot be used.

    Args:
        name: the task.
        cases: its labelled cases.
        organ: label values of the organ of interest.
        declared: all label values that may occur; None if any may.

    Raises:
        DataError: names the task, the case, the file, and the fix. A single case without foreground is
            legitimate and only warned of; a task without any is not.
    """
    if len(check_cases(name, cases, organ, declared)) == len(cases):
        raise DataError(
            f"task {name}: no case has foreground (label values {sorted(organ)})",
            fix="correct `organ` or the labels",
        )


def check_cases(
    name: str, cases: Sequence[Case], organ: Collection[int], declared: Collection[int] | None
) -> list[str]:
    """Read some cases of a task, as `check_task` does with all.

    Returns:
        The cases without foreground, which are warned of.

    Raises:
        DataError: a case cannot be used.
    """
    empty, notes = [], Notes(f"task {name}")
    for case in cases:
        if not _check_case(name, case, organ, declared, notes):
            empty.append(case.name)
    notes.log()
    for each in empty:
        logger.warning("task %s, case %s: no foreground; its Dice is NaN and counted as undefined", name, each)
    return empty


class Notes:
    """What was found of the files of some cases and is no error: each kind of note is logged once.

    Args:
        owner: the task or folder.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._cases: dict[str, list[str]] = {}

    def add(self, case: str, notes: Iterable[str]) -> None:
        """Keep notes of a case."""
        for note in dict.fromkeys(notes):
            self._cases.setdefault(note, []).append(case)

    def log(self) -> None:
        """Log each note with its first case, `LOGGED` of them at most."""
        for note, (first, *others) in list(self._cases.items())[:LOGGED]:
            more = f" and {len(others)} more" if others else ""
            logger.warning("%s, case %s%s: %s", self._owner, first, more, note)
        if len(self._cases) > LOGGED:
            left = len(self._cases) - LOGGED
            logger.warning("%s: %d more notes; `medmtl data check` lists them", self._owner, left)


def check_names(tasks: Mapping[str, Task], ood: Mapping[str, OODImages], held_out: Collection[str]) -> None:
    """Check that tasks and OOD folders can be used together.

    Args:
        tasks: by name.
        ood: by name.
        held_out: names of tasks that are not trained on.

    Raises:
        ConfigError: a name is unknown or that of two, no task is left to train, or they use different numbers of
            channels.
    """
    unknown = sorted(set(held_out) - set(tasks))
    if unknown:
        raise ConfigError(f"data.held_out names {unknown[0]}", fix=f"use names of data.tasks: {', '.join(tasks)}")
    both = sorted(set(ood) & set(tasks))
    if both:
        raise ConfigError(f"data.ood and data.tasks both name {both[0]}", fix="rename one")
    first = next((name for name in tasks if name not in held_out), None)
    if first is None:
        raise ConfigError("data.tasks leaves no task to train", fix="add one, or take one out of data.held_out")
    channels = {name: len(task.channels) for name, task in tasks.items()}
    channels |= {name: len(folder.channels) for name, folder in ood.items()}
    for name, number in channels.items():
        if number != channels[first]:
            raise ConfigError(
                f"data: {name} uses {number} channels and {first} {channels[first]}",
                fix="give `channel` the same number of channels in all tasks and OOD folders",
            )


def check_contradictions(found: Mapping[str, TaskCases]) -> None:
    """Check that no image belongs to two tasks of different organs, of which one output cannot show both.

    Raises:
        ConfigError: one does.
    """
    images = {name: {resolved(path) for case in own.cases for path in case.images} for name, own in found.items()}
    for one, other in combinations(found, 2):
        values = [found[name].classes.foreground for name in (one, other)]
        if values[0] != values[1] and images[one] & images[other]:
            both = min(images[one] & images[other])
            raise ConfigError(
                f"tasks {one} and {other} mark different structures in the same image {both.name}",
                fix="set model.outputs to per_task, since a shared output cannot tell them apart",
            )


def check_image(owner: str, case: Case) -> Stack:
    """Read the channels of an image that are used, and check them as `medmtl predict` does.

    An image without labels may hold one value in all voxels, of which z-scoring makes 0; with labels that is an error,
    since it shows nothing of what they mark.

    Returns:
        The channels that are used.

    Raises:
        DataError: names the owner, the case and the file; see `read_channels`.
    """
    with named(owner, case.name):
        return read_channels(case, constant=not case.labels)


def _check_case(task: str, case: Case, organ: Collection[int], declared: Collection[int] | None, notes: Notes) -> bool:
    """Check one case, and add to the notes; whether it has foreground."""
    owner = f"task {task}"
    image = check_image(owner, case)
    notes.add(case.name, image.warnings)
    if not case.labels:
        raise DataError(f"{owner}, case {case.name} has no label", fix="take the case out of the dataset")
    with named(owner, case.name):
        return any([_check_label(case.name, label, image, organ, declared, notes) for label in case.labels])


def _check_label(
    case: str,
    file: LabelFile,
    image: Stack,
    organ: Collection[int],
    declared: Collection[int] | None,
    notes: Notes,
) -> bool:
    """Check one file of the labels; whether it has foreground."""
    with opened(file.path) as stored:
        check_one_volume(stored)
        check_same_grid(stored, image, "image")
        label = label_of(file, stored.as_stored())
    check_declared(file, label, declared)
    notes.add(case, label.notes)
    return bool(np.isin(label.values, list(organ)).any())
