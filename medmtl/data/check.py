"""The checks before training: images can be read, label and image share one grid, label values are declared."""

import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np

from medmtl.data.case import Case, LabelFile, named
from medmtl.data.reading import read_channels
from medmtl.data.task_cases import TaskCases
from medmtl.errors import ConfigError, DataError
from medmtl.io.reader import Stack, check_same_grid
from medmtl.io.volume import opened

logger = logging.getLogger(__name__)


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
    empty = [case.name for case in cases if not _check_case(name, case, organ, declared)]
    for case in empty:
        logger.warning("task %s, case %s: no foreground; its Dice is NaN and counted as undefined", name, case)
    return empty


def check_contradictions(found: Mapping[str, TaskCases]) -> None:
    """Check that no image belongs to two tasks of different organs, of which one output cannot show both.

    Raises:
        ConfigError: one does.
    """
    images = {name: {path.resolve() for case in own.cases for path in case.images} for name, own in found.items()}
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


def _check_case(task: str, case: Case, organ: Collection[int], declared: Collection[int] | None) -> bool:
    """Check one case; whether it has foreground."""
    owner = f"task {task}"
    image = check_image(owner, case)
    if not case.labels:
        raise DataError(f"{owner}, case {case.name} has no label", fix="take the case out of the dataset")
    with named(owner, case.name):
        return any([_check_label(label, image, organ, declared) for label in case.labels])


def _check_label(label: LabelFile, image: Stack, organ: Collection[int], declared: Collection[int] | None) -> bool:
    """Check one file of the labels; whether it has foreground."""
    with opened(label.path) as stored:
        if stored.volumes > 1:
            raise DataError(f"label {label.path} has {stored.volumes} volumes", fix="use labels of three dimensions")
        check_same_grid(stored, image, "image")
        voxels = stored.as_stored()
    if label.value is not None:  # the mask of one organ
        return label.value in organ and bool((voxels > 0).any())
    values = np.unique(voxels)
    unknown = [value.item() for value in values if declared is not None and value not in declared]
    if unknown:
        raise DataError(
            f"label {label.path} holds the values {unknown[:5]}, which are not declared (these are: "
            f"{sorted(declared or ())})",
            fix="declare or correct them",
        )
    return bool(np.isin(values, list(organ)).any())
