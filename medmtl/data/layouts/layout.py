"""Layout: how a folder on disk becomes cases, and the contract that every layout holds, a user's own too."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from medmtl.contract import requirements
from medmtl.data.case import Case
from medmtl.errors import DataError
from medmtl.files import is_there, read_json
from medmtl.io.input import ENDINGS, stem

SPELLED = (*ENDINGS, *(ending.upper() for ending in ENDINGS))  # as files are named


@dataclass(frozen=True)
class Fold:
    """One split that a dataset brings along.

    Attributes:
        train: names of the cases to learn from.
        val: names of the cases to measure on.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """What a folder holds.

    Attributes:
        cases: all images, those without labels too. Their `channels` are (0,); a task chooses its own.
        organs: declared name -> label values that together are this organ, first the one that masks would rather have;
            empty where nothing is declared.
        ignore: the label value of voxels without a ground truth; None if there is none.
        channels: names of the channels, in their order; empty if unknown.
        modality: as the dataset declares it; empty if it does not.
        folds: the splits that the dataset brings along.
        ordered: whether it declares that organs are written over each other in this order.
        notes: what was left out, or found other than the dataset says.
    """

    cases: tuple[Case, ...]
    organs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: int | None = None
    channels: tuple[str, ...] = ()
    modality: str = ""
    folds: tuple[Fold, ...] = ()
    ordered: bool = False
    notes: tuple[str, ...] = ()

    @property
    def declared(self) -> frozenset[int] | None:
        """All label values that may occur, background (0) and ignored ones included; None if any may."""
        if not self.organs:
            return None
        ignored = set() if self.ignore is None else {self.ignore}
        return frozenset({0, *ignored, *(value for values in self.organs.values() for value in values)})


class Layout(ABC):
    """How a folder on disk becomes cases.

    One of your own needs `read` alone, and `class_path` in a task's `layout`. `check_layout` checks what the rest of
    medmtl relies on.

    Attributes:
        sign: what `fits` looks for in a folder, for messages; empty for a layout that is not recognised by itself.
    """

    sign: ClassVar[str] = ""

    @abstractmethod
    def read(self, owner: str, root: Path) -> Corpus:
        """List what a folder holds, without reading voxels.

        Args:
            owner: the task or OOD folder, for messages.
            root: an existing folder.

        Raises:
            DataError: the folder is not of this layout, or inconsistent; names the folder or file, and the fix.
        """

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder looks like this layout, where a task names none."""
        return False


def check_layout(layout: Layout, root: Path) -> None:
    """Check that a layout reads a folder as the rest of medmtl relies on; for tests.

    Args:
        layout: the layout.
        root: a folder of this layout, with a labelled case at least.

    Raises:
        AssertionError: names the requirement that is not met.
        DataError: of the layout, where it cannot read the folder.
    """
    corpus = layout.read("contract", root)
    names = [case.name for case in corpus.cases]
    _require(layout, layout.read("contract", root) == corpus, "reads the same twice")
    _require(layout, any(case.labels for case in corpus.cases), "finds a labelled case")
    _require(layout, len(set(names)) == len(names), "gives every case a name of its own")
    _require(layout, all(name and name == Path(name).name for name in names), "gives names that can be file names")
    _require(layout, all(case.patient for case in corpus.cases), "gives every case a patient")
    _require(layout, all(case.images for case in corpus.cases), "gives every case an image")
    _require(layout, {case.channels for case in corpus.cases} == {(0,)}, "leaves the choice of channels to the task")
    files = [path for case in corpus.cases for path in (*case.images, *(label.path for label in case.labels))]
    _require(layout, all(path.is_file() for path in files), "names files that exist")
    _require(layout, all(_lies_in(root, path) for path in files), "names files within the folder")
    declared = corpus.declared
    masks = {label.value for case in corpus.cases for label in case.labels} - {None}
    _require(layout, declared is None or masks <= declared, "declares the values that masks stand for")
    organ = {value for values in corpus.organs.values() for value in values}
    _require(layout, all(value > 0 for value in organ), "declares organs above 0, the background")
    _require(layout, corpus.ignore not in {0, *organ}, "ignores neither background nor an organ")
    labelled = {case.name for case in corpus.cases if case.labels}
    for fold in corpus.folds:
        _require(layout, {*fold.train, *fold.val} <= labelled, "splits labelled cases")
        _require(layout, not set(fold.train) & set(fold.val), "splits without overlap")
    with TemporaryDirectory() as empty:
        try:
            layout.read("contract", Path(empty))
        except DataError as error:
            _require(layout, "\n" not in str(error) and empty in str(error), "names a wrong folder in one line")
        else:
            _require(layout, False, "refuses an empty folder with a DataError")


def read_corpus(owner: str, root: Path, layout: Layout) -> Corpus:
    """What a folder holds, after a check that no name in it leads elsewhere.

    Args:
        owner: the task or OOD folder, for messages.
        root: an existing folder.
        layout: how files lie in it.

    Raises:
        DataError: see `Layout.read`; or a file lies outside of the folder, or a case has a name that is none of a file.
    """
    corpus = layout.read(owner, root)
    for case in corpus.cases:
        if case.name in ("", ".", "..") or case.name != Path(case.name).name:
            raise DataError(f"{owner}: {root} names a case {case.name!r}", fix="use a name without a folder")
        for path in (*case.images, *(label.path for label in case.labels)):
            if not _lies_in(root, path):
                raise DataError(f"{owner}: {path}, of {root}, leaves the folder", fix="keep files inside it")
    return corpus


def inside(owner: str, root: Path, text: str, source: Path) -> Path:
    """The file that a text within a dataset means, relative to its root.

    Links are not followed: data managers keep the files elsewhere and link to them.

    Args:
        owner: the task or OOD folder, for the message.
        root: the folder of the dataset.
        text: the path as it is written.
        source: the file that it is written in.

    Raises:
        DataError: it leaves the folder.
    """
    path = Path(os.path.normpath(root / text))
    if not _lies_in(root, path):
        raise DataError(f"{owner}: {text} in {source} leaves the folder", fix="keep files inside it")
    return path


def present(path: Path) -> Path:
    """A file, or the one that is there with another ending: `.nii` where a list says `.nii.gz`."""
    if os.path.lexists(path):
        return path
    others = [path.with_name(f"{stem(path)}{ending}") for ending in SPELLED]
    others = [other for other in others if is_there(other) and other.is_file()]
    return others[0] if len(others) == 1 else path


def ending_notes(files: Iterable[tuple[Path, Path]]) -> tuple[str, ...]:
    """A note of the files that `present` found with another ending, if there are any.

    Args:
        files: each as it is named, and as it was found.
    """
    other = [(named, found) for named, found in files if named != found]
    if not other:
        return ()
    named, found = other[0]
    return (f"{len(other)} files are there with another ending than named, such as {found.name} for {named.name}",)


def hidden_notes(hidden_files: Sized) -> tuple[str, ...]:
    """A note of files that are left out because their names begin with a dot, if there are any."""
    number = len(hidden_files)
    return (f"{number} files whose names begin with a dot, as macOS leaves them, are left out",) if number else ()


def read_object(owner: str, path: Path, fix: str) -> dict[str, Any]:
    """Read a JSON file that holds one object, such as a `dataset.json`.

    Args:
        owner: the task or OOD folder, for messages.
        path: the file.
        fix: what to do where it is missing.

    Raises:
        DataError: it is missing, or something else.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise DataError(f"{owner}: {path} is missing", fix=fix) from None
    except ValueError as error:
        raise DataError(f"{owner}: {path} is not readable JSON ({error})", fix="correct the file") from None
    if not isinstance(content, dict):
        raise DataError(f"{owner}: {path} is not a JSON object", fix="correct the file")
    return content


def values_of(organs: Mapping[str, int | list[int]] | None) -> dict[str, tuple[int, ...]]:
    """The label values of organs as a user declares them: one, or a list for a region."""
    return {organ: tuple(values) if isinstance(values, list) else (values,) for organ, values in (organs or {}).items()}


def named(values: Iterable[tuple[str, int]]) -> dict[str, tuple[int, ...]]:
    """Organ -> label values, of (organ, value) pairs; the background is no organ."""
    organs: dict[str, tuple[int, ...]] = {}
    for organ, value in values:
        if value != 0:
            organs[organ] = (*organs.get(organ, ()), value)
    return organs


def _lies_in(root: Path, path: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root))


def _require(layout: Layout, met: object, words: str) -> None:
    requirements(layout, "a layout")(met, words)
