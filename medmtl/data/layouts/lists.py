"""The layout of a list: a CSV or JSON file that names the files of each case."""

import os
from pathlib import Path

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts.layout import Corpus, Layout, ending_notes, inside, present, values_of
from medmtl.errors import DataError
from medmtl.io.input import stem
from medmtl.io.rows import file_text, read_rows

FILES = ("cases.csv", "cases.json")


class FileList(Layout):
    """A CSV file with a header, or a JSON list of objects with the same keys. Paths are relative to the root.

        image, or image_T1, image_T2, ...       the image, or one file a channel
        label, or label_liver, label_spleen     a file of label values, or a mask an organ; empty without
        name                                    of the case; by default that of the first image file
        patient                                 by default the name of the case

    Masks stand for 1, 2, ... in the order of the columns. Other columns are left to their owner.

    Args:
        file: name of the list within the root; by default `cases.csv` or `cases.json`.
        organs: name of an organ -> label value, or values of a region, for files of label values. Without it `organ` of
            a task must be values, and any value may occur.
        ignore: the label value of voxels without a ground truth.
    """

    sign = " or ".join(FILES)

    def __init__(
        self, file: str | None = None, organs: dict[str, int | list[int]] | None = None, ignore: int | None = None
    ) -> None:
        self.file = file
        self.organs = values_of(organs)
        self.ignore = ignore

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether there is a `cases.csv` or `cases.json`."""
        return any((root / file).is_file() for file in FILES)

    def read(self, owner: str, root: Path) -> Corpus:
        """See `Layout.read`."""
        choice = FILES if self.file is None else (self.file,)
        paths = [inside(owner, root, file, Path("layout.file")) for file in choice]
        path = next((path for path in paths if path.is_file()), paths[0])
        rows = _read_rows(owner, path)
        keys = list(dict.fromkeys(key for row in rows for key in row))
        channels, masks = (_columns(owner, path, keys, kind) for kind in ("image", "label"))
        if not channels:
            raise DataError(f"{owner}: {path} has no column `image`", fix="add it")
        values = {key: value for value, key in enumerate(masks, 1)} if masks and masks != ["label"] else {}
        cases = []
        for number, row in enumerate(rows, 1):
            missing = [key for key in channels if not row.get(key)]
            if missing:
                raise DataError(f"{owner}: entry {number} of {path} has no `{missing[0]}`", fix="name a file")
            images = tuple(_file(owner, root, row[key], path) for key in channels)
            labels = tuple(
                LabelFile(_file(owner, root, row[key], path), values.get(key)) for key in masks if row.get(key)
            )
            name = row.get("name") or stem(images[0])
            if name != Path(name).name:
                raise DataError(f"{owner}: {path} names a case {name}", fix="use a name without a folder")
            cases.append(Case(name, row.get("patient") or name, images, labels))
        organs = {_organ(key): (value,) for key, value in values.items()} if values else self.organs
        names = tuple(_organ(key) for key in channels) if channels != ["image"] else ()
        files = []
        for row, case in zip(rows, cases, strict=True):
            texts = [*(row[key] for key in channels), *(row[key] for key in masks if row.get(key))]
            paths = [*case.images, *(label.path for label in case.labels)]
            files += [(root / text, path) for text, path in zip(texts, paths, strict=True)]
        return Corpus(tuple(cases), organs, self.ignore, names, notes=ending_notes(files))


def _read_rows(owner: str, path: Path) -> list[dict[str, str]]:
    try:
        rows = read_rows(path)
    except FileNotFoundError:
        raise DataError(f"{owner}: {path} is missing", fix="point `root` to its folder, or correct `file`") from None
    except ValueError as error:
        raise DataError(f"{owner}: {path} is not readable ({error})", fix="correct the file") from None
    if rows == []:
        raise DataError(f"{owner}: {path} lists no case", fix="list one a line")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{owner}: {path} is not a list of objects", fix='write [{"image": "...", ...}, ...]')
    return [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]


def _columns(owner: str, path: Path, keys: list[str], kind: str) -> list[str]:
    """The columns of images or labels: one that is called so, or several `kind_...`."""
    found = [key for key in keys if key == kind or key.startswith(f"{kind}_")]
    if kind in found and len(found) > 1:
        raise DataError(f"{owner}: {path} has columns {', '.join(found)}", fix=f"use `{kind}` alone, or `{kind}_...`")
    return found


def _organ(key: str) -> str:
    return key.partition("_")[2]


def _file(owner: str, root: Path, text: str, source: Path) -> Path:
    path = present(inside(owner, root, file_text(root, text), source))
    if not os.path.isfile(path):  # noqa: PTH113  # False also for what cannot be the name of a file
        raise DataError(f"{owner}: {source} names {text}, which is not there", fix="correct the path")
    return path
