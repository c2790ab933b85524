"""The cases of a task and of a folder of out-of-distribution images, whatever their layout."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medmtl.data.case import Case, patient_of
from medmtl.data.classes import Classes, larger_first
from medmtl.data.layouts import Corpus, read_corpus, recognise
from medmtl.data.task import OODImages, Task, resolve_root
from medmtl.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskCases:
    """What a task finds in its folder.

    Attributes:
        cases: its labelled cases, in the order of their names.
        classes: what the label values mean.
        declared: all label values that may occur, 0 (background) included; None if any may.
        ignore: the label value of voxels without a ground truth; None if there is none.
        fold: case name -> `train` or `val` in the split of the dataset that the task names; empty if it names none.
        missing: case name -> its classes that its labels do not mark; only cases with any.
    """

    cases: tuple[Case, ...]
    classes: Classes
    declared: frozenset[int] | None
    ignore: int | None
    fold: dict[str, str]
    missing: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of_one_output(self) -> "TaskCases":
        """The union of the classes, which all cases must mark: what one output for all tasks can learn."""
        complete = tuple(case for case in self.cases if case.name not in self.missing)
        if len(complete) < len(self.cases):
            left_out = len(self.cases) - len(complete)
            logger.warning("one output for all tasks: %d cases that do not mark all classes are left out", left_out)
        return replace(self, cases=complete, classes=self.classes.merge(), missing={})

    def folds(self, name: str, number: int) -> dict[str, str]:
        """Patient -> part, in the fold that the task names.

        Args:
            name: the task's name, for messages.
            number: of the fold, for messages.

        Raises:
            DataError: the fold has a patient on both sides.
        """
        part_of: dict[str, str] = {}
        for case in self.cases:
            part = self.fold[case.name]
            if part_of.setdefault(case.patient, part) != part:
                what = f"fold {number} has patient {case.patient} on both sides"
                raise DataError(f"task {name}, case {case.name}: {what}", fix="correct the splits")
        return part_of


def task_cases(name: str, task: Task) -> TaskCases:
    """Find the labelled cases of a task.

    Args:
        name: the task's name, for messages.
        task: where and what.

    Raises:
        DataError: no folder, nothing in it that is readable and labelled, a case that appears twice, an organ or a fold
            that the dataset does not declare.
    """
    root = resolve_root(name, task.root)
    corpus = read_corpus(name, root, task.layout or recognise(root))
    _log(f"task {name}", corpus)
    classes = _classes(name, root, corpus, task)
    labelled = [case for case in corpus.cases if case.labels]
    missing = {case.name: _missing(name, case, classes, task.missing or {}) for case in labelled}
    cases = [case for case in labelled if len(missing[case.name]) < len(classes.names)]
    if len(cases) < len(labelled):
        what = "the organ" if classes.merged else "any class"
        logger.warning("task %s: %d cases lack a mask of %s, and are left out", name, len(labelled) - len(cases), what)
    chosen = [
        replace(
            case,
            patient=case.patient if task.patient is None else patient_of(name, case.name, task.patient),
            channels=task.channels,
        )
        for case in _sorted_unique(name, cases, root, "labelled cases")
    ]
    return TaskCases(
        tuple(chosen),
        classes,
        corpus.declared,
        corpus.ignore,
        _fold(name, root, corpus, task.fold, chosen),
        {case.name: missing[case.name] for case in chosen if missing[case.name]},
    )


def ood_cases(name: str, folder: OODImages) -> list[Case]:
    """All images of a folder in the order of their names, as cases without labels.

    Args:
        name: the folder's name, for messages.
        folder: where they are.

    Raises:
        DataError: no folder, no image in it, or a name that appears twice.
    """
    root = resolve_root(name, folder.root)
    corpus = read_corpus(name, root, folder.layout or recognise(root))
    _log(name, corpus)
    return [
        replace(case, labels=(), channels=folder.channels)
        for case in _sorted_unique(name, corpus.cases, root, "images")
    ]


def _log(owner: str, corpus: Corpus) -> None:
    for note in corpus.notes:
        logger.warning("%s: %s", owner, note)


def _classes(name: str, root: Path, corpus: Corpus, task: Task) -> Classes:
    """What the labels of a task mean."""
    if task.organ is not None:
        return Classes.of_organ(_values(name, root, corpus, task.organ, "organ"))
    wanted = task.classes or {}
    if isinstance(wanted, str):
        if not corpus.organs:
            raise DataError(f"task {name}: {root} declares no labels, and classes are `all`", fix="list them by value")
        wanted = list(corpus.organs)
    if isinstance(wanted, list):
        wanted = {each: each for each in wanted}
    named = {
        each: _values(name, root, corpus, values if isinstance(values, list) else [values], "class")
        for each, values in wanted.items()
    }
    return Classes.of_lists(larger_first(named) if task.classes == "all" and not corpus.ordered else named)


def _values(name: str, root: Path, corpus: Corpus, given: Sequence[int | str], what: str) -> list[int]:
    """The label values of an organ or a class that is given by values and names, in their order."""
    values: list[int] = []
    for wanted in given:
        if isinstance(wanted, str) and wanted not in corpus.organs:
            known = ", ".join(corpus.organs) or "(none)"
            raise DataError(f"task {name}: {what} {wanted} is not among the labels {known} of {root}", fix="correct it")
        values += [wanted] if isinstance(wanted, int) else corpus.organs[wanted]
    key = {"organ": "organ", "class": "classes"}[what]
    declared = corpus.declared
    unknown = sorted(set(values) - declared) if declared is not None else []
    if unknown:
        raise DataError(
            f"task {name}: {what} {unknown} is not among the labels {sorted(declared or ())} of {root}",
            fix=f"correct `{key}`",
        )
    if corpus.ignore in values:
        raise DataError(f"task {name}: {root} declares label {corpus.ignore} as ignored", fix=f"take it out of `{key}`")
    return list(dict.fromkeys(values))


def _missing(name: str, case: Case, classes: Classes, declared: Mapping[str, str]) -> frozenset[str]:
    """The classes that the labels of a case do not mark."""
    masks = {label.value for label in case.labels}
    lacking = () if _multi_class(case) else (each for each, values in classes.values.items() if not values <= masks)
    try:
        return frozenset((*lacking, *(each for each, pattern in declared.items() if re.search(pattern, case.name))))
    except re.error as error:
        raise DataError(f"task {name}: `missing` is not a regular expression ({error})", fix="correct it") from None


def _multi_class(case: Case) -> bool:
    return any(label.value is None for label in case.labels)


def _fold(name: str, root: Path, corpus: Corpus, number: int | None, cases: Sequence[Case]) -> dict[str, str]:
    if number is None:
        return {}
    if number >= len(corpus.folds):
        raise DataError(f"task {name}: fold {number}, but {root} has {len(corpus.folds)} folds", fix="correct `fold`")
    fold = corpus.folds[number]
    part_of = dict.fromkeys(fold.train, "train") | dict.fromkeys(fold.val, "val")
    listed = {case.name for case in cases}
    unmatched = sorted(set(part_of) ^ listed)
    if unmatched:
        where = "the data" if unmatched[0] in part_of else f"fold {number}"
        raise DataError(f"task {name}, case {unmatched[0]} is not in {where} of {root}", fix="correct the splits")
    return part_of


def _sorted_unique(name: str, cases: Sequence[Case], root: Path, what: str) -> list[Case]:
    if not cases:
        raise DataError(f"{name}: {root} holds no {what}", fix="check `root`, and `layout` if it is not recognised")
    repeated = [case for case, times in Counter(case.name for case in cases).items() if times > 1]
    if repeated:
        raise DataError(f"{name}: case {repeated[0]} appears more than once in {root}", fix="rename or remove one")
    return sorted(cases, key=lambda case: case.name)
