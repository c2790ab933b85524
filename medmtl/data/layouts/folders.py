"""Layouts without a list of files: paired folders by pattern, and images that lie loose."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts.layout import SPELLED, Corpus, Layout, hidden_notes, values_of
from medmtl.errors import ConfigError, DataError
from medmtl.io.input import ENDINGS, has_ending, hidden, other_kinds, stem

CASE = "{case}"


class Folders(Layout):
    """Images and labels at paths that follow from the name of the case.

    A pattern is a path within the root that holds `{case}`, which stands for the name of the case (no `/` in it).
    An ending that is left out is found: .nii.gz, .nii, .nrrd or .mha.

        images/{case} and labels/{case}                       the same name in two folders
        {case}/ct and {case}/segmentations/liver              a folder a case, a mask an organ (TotalSegmentator)
        {case}_t1, {case}_t2 and {case}_seg                   one folder for all

    Args:
        images: pattern of the images, or one a channel.
        labels: pattern of files of label values, or name of an organ -> pattern of its masks. Masks stand for 1, 2, ...
            in the order of the names.
        organs: name of an organ -> label value, or values of a region, for files of label values. Without it `organ` of
            a task must be values, and any value may occur.
        ignore: the label value of voxels without a ground truth.
    """

    sign = "folders `images` and `labels`"

    def __init__(
        self,
        images: str | list[str] = "images/{case}",
        labels: str | dict[str, str] = "labels/{case}",
        organs: dict[str, int | list[int]] | None = None,
        ignore: int | None = None,
    ) -> None:
        self.images = [images] if isinstance(images, str) else images
        self.labels = labels
        self.organs = values_of(organs)
        self.ignore = ignore
        for pattern in [*self.images, *(labels.values() if isinstance(labels, dict) else [labels])]:
            if CASE not in pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise ConfigError(f"layout: pattern {pattern!r}", fix="use a path within the root, with {case} in it")
        if isinstance(labels, dict) and (organs or ignore is not None):
            raise ConfigError("layout: organs and ignore are for files of label values", fix="leave them out")

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether there are folders `images` and `labels`."""
        return (root / "images").is_dir() and (root / "labels").is_dir()

    def read(self, owner: str, root: Path) -> Corpus:
        """See `Layout.read`."""
        masks = self.labels if isinstance(self.labels, dict) else {}
        patterns: list[tuple[str, int | None]] = [(pattern, value) for value, pattern in enumerate(masks.values(), 1)]
        if isinstance(self.labels, str):
            patterns = [(self.labels, None)]
        found: dict[str, Path] = {}
        for case, path in _matches(root, self.images[0]):
            if found.setdefault(case, path) != path:
                raise _twice(owner, case, found[case], path)
        others = {case: [_file(owner, root, pattern, case) for pattern in self.images[1:]] for case in found}
        labels = {case: [(_file(owner, root, pattern, case), value) for pattern, value in patterns] for case in found}
        # Where one folder holds all, labels and further channels look like images of other cases.
        taken = {path for paths in others.values() for path in paths}
        taken |= {path for pairs in labels.values() for path, _ in pairs}
        cases = []
        for case in [case for case, path in found.items() if path not in taken]:
            channels = [path for path in others[case] if path is not None]
            if len(channels) < len(others[case]):
                raise DataError(f"{owner}, case {case}: {root} lacks a channel of it", fix="add it, or remove the case")
            truth = tuple(LabelFile(path, value) for path, value in labels[case] if path is not None)
            cases.append(Case(case, case, (found[case], *channels), truth))
        if not cases:
            raise DataError(f"{owner}: {root} holds no image {self.images[0]}", fix="correct `images` of the layout")
        organs = {organ: (value,) for value, organ in enumerate(masks, 1)} if masks else self.organs
        dots = [path for pattern in self.images for path in root.glob(_dotted(pattern))]
        return Corpus(tuple(cases), organs, self.ignore, notes=hidden_notes(dots))


class LooseImages(Layout):
    """All images below a folder, without labels: what a folder without any order is taken for."""

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Always."""
        return True

    def read(self, owner: str, root: Path) -> Corpus:
        """See `Layout.read`."""
        files = sorted(path for path in root.rglob("*") if path.is_file() or path.is_symlink())
        dots = [path for path in files if hidden(path.relative_to(root))]
        found = [path for path in files if has_ending(path) and path not in set(dots)]
        if not found:
            raise DataError(f"{owner}: {root} holds no image", fix=f"use files that end with {', '.join(ENDINGS)}")
        others = other_kinds(path for path in files if not has_ending(path))
        left_out = (f"files that are no images of a dataset are left out: {others}",) if others else ()
        notes = (*hidden_notes([path for path in dots if has_ending(path)]), *left_out)
        return Corpus(tuple(Case(stem(path), stem(path), (path,)) for path in found), notes=notes)


def _dotted(pattern: str) -> str:
    """What finds the files of macOS beside those of a pattern."""
    folder, _, name = glob.escape(pattern).replace(CASE, "*").rpartition("/")
    return f"{folder}/._{name.strip('*')}*" if folder else f"._{name.strip('*')}*"


def _matches(root: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """The name of the case and the file, of every file that a pattern fits."""
    complete = pattern.endswith(ENDINGS)
    first, *others = map(re.escape, pattern.split(CASE))
    expression = first + "(?P<case>[^/]+)" + "(?P=case)".join(others)
    expression += "" if complete else f"({'|'.join(map(re.escape, SPELLED))})"
    for path in sorted(root.glob(glob.escape(pattern).replace(CASE, "*") + ("" if complete else ".*"))):
        fitting = re.fullmatch(expression, path.relative_to(root).as_posix())
        if fitting is not None and path.is_file() and not fitting["case"].startswith("."):
            yield fitting["case"], path


def _file(owner: str, root: Path, pattern: str, case: str) -> Path | None:
    """The file of a case by a pattern; None if there is none."""
    place = pattern.replace(CASE, case)
    if pattern.endswith(ENDINGS):
        return root / place if (root / place).is_file() else None
    found = [root / f"{place}{ending}" for ending in SPELLED if (root / f"{place}{ending}").is_file()]
    if len(found) > 1 and not found[0].samefile(found[1]):  # as where a file system knows no upper case
        raise _twice(owner, case, *found[:2])
    return found[0] if found else None


def _twice(owner: str, case: str, one: Path, other: Path) -> DataError:
    return DataError(f"{owner}, case {case}: {one} and {other.name} are one file too many", fix="remove one")
