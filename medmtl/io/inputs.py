"""What there is to read: the volumes of a file, a folder tree or a list, found without reading a voxel."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from medmtl.errors import DataError
from medmtl.files import is_there
from medmtl.io.dicom.files import is_dicom, series_of
from medmtl.io.input import MODALITIES, SUFFIXES, Input, Kind, hidden, kind_of, other_kinds, stem
from medmtl.io.rows import file_text, read_rows, shown
from medmtl.io.stacking import numbered, stacked, volumes_in

logger = logging.getLogger(__name__)

LISTS = (".csv", ".json")
NAME_LENGTH = 150  # file systems take 255 bytes; folders named by DICOM identifiers have up to 64 characters each
USABLE = f"use {', '.join(SUFFIXES)}, a folder of these or of DICOM series, or a list of them as CSV or JSON"


def find_inputs(path: Path, volume: int | Literal["all"] = 0, stack: bool = False) -> list[Input]:
    """All images that a path means: sorted by place in a folder, or as a list gives them.

    Args:
        path: an image; a folder, in which images are found at any depth; or a list of images, as CSV with the columns
            `image[, name, modality, task]`, or as JSON with paths or objects that have these keys. Paths in a list
            start at its folder. DICOM localizers in a folder are left out beside other series of their study.
        volume: which volume of files with four dimensions, from 0, or all of them.
        stack: whether the network takes several channels. An image is then a file with all of them as volumes; or a
            file each, `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, ... as nnU-Net names them, any of which stands for all;
            or an entry of a list, with a column each in CSV (`image_T1, image_T2, ...`) and a list of paths in JSON.

    Returns:
        One input a volume, or an image with `stack`. A file that is missing from its place in a list or cannot be
        opened is among them: `read` raises an error for it alone.

    Raises:
        DataError: nothing is found, or a list cannot be understood.
    """
    if not is_there(path):
        raise DataError(f"{path} does not exist", fix=USABLE)
    if path.is_dir():
        found = stacked(_of_folder(path)) if stack else list(_of_folder(path))
    elif path.suffix.lower() in LISTS:
        found = list(_of_list(path, stack))
    else:
        one = _of_file(path, stem(path))
        found = [_with_siblings(one) if stack else one]
    if not found:
        raise DataError(f"{path} holds no images", fix=USABLE)
    return _distinct(found if stack else [each for one in found for each in _volumes(one, volume)])


def input_of(paths: Sequence[Path]) -> Input:
    """Files or DICOM series that are the channels of one image, numbered from 0.

    Raises:
        DataError: there are none, or one is not an image that can be read.
    """
    if not paths:
        raise DataError("no image is named", fix=USABLE)
    return _of_files(paths, stem(paths[0]))


def _of_file(path: Path, name: str) -> Input:
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path} is not an image that can be read", fix=USABLE)
    return Input(safe_name(name), path, kind)


def _of_files(paths: Sequence[Path], name: str) -> Input:
    """Files that are the channels of one image; a single one is all of it."""
    first, *others = [_of_file(path, name) for path in paths]
    return replace(first, channels=dict(enumerate([first, *others]))) if others else first


def _with_siblings(one: Input) -> Input:
    """The image that a file is a channel of, with the channels that lie beside it; or that it is by itself."""
    named = numbered(one)
    if named is None:
        return one
    beside = (_of_file(path, stem(path)) for path in sorted(one.path.parent.iterdir()) if _kind(path) == one.kind)
    siblings = [other for other in beside if (numbered(other) or ("",))[0] == named[0]]
    return next(image for image in stacked(siblings) if one in (image, *image.channels.values()))


def _of_folder(folder: Path) -> Iterator[Input]:
    """The images of a folder, and what is named like one and cannot be opened, such as a link to nothing or a pipe."""
    series: dict[Path, list[Path]] = {}
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if hidden(inside) or path.is_dir():
            continue
        kind = _kind(path) if path.is_file() or path.name.lower().endswith(tuple(SUFFIXES)) else None
        if kind == "dicom":
            series.setdefault(path.parent, []).append(path)
        elif kind is not None:
            yield _of_file(path, _joined(inside))
        else:
            others.append(path)
    left_out = other_kinds(others)
    if left_out:
        logger.info("left out, for they are no images that can be read: %s in %s", left_out, folder)
    found = {place: series_of(files) for place, files in series.items()}
    volumes = {each.study for several in found.values() for each in several if not each.localizer}
    for place, several in found.items():
        name = "_".join(place.relative_to(folder).parts) or place.absolute().name
        for each in several:
            if each.localizer and each.study in volumes:
                logger.info("left out, for it is a localizer: series %s of %s", each.number, place)
            else:
                yield Input(safe_name(name if len(several) == 1 else f"{name}_{each.number}"), place, "dicom", each.uid)


def _of_list(path: Path, stack: bool) -> Iterator[Input]:
    rows = [_checked(f"{path}, entry {number}", row, stack) for number, row in enumerate(_rows(path), start=1)]
    home = path.parent.absolute()
    images = [[_named_file(home, file) for file in row["image"]] for row in rows]
    common = Path(os.path.commonpath([first.parent for first, *_ in images])) if images else path.parent
    names = [
        row.get("name") or _joined(first.relative_to(common)) for row, (first, *_) in zip(rows, images, strict=True)
    ]
    repeated = [name for name, times in Counter(map(safe_name, names)).items() if times > 1]
    if repeated:
        raise DataError(f"{path} has more than one entry named {repeated[0]}", fix="give each a `name` of its own")
    for row, image, name in zip(rows, images, names, strict=True):
        yield replace(_of_files(image, name), modality=row.get("modality") or None, task=row.get("task") or None)


def _rows(path: Path) -> Sequence[Any]:
    try:
        rows = read_rows(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable list ({error})", fix="correct the file") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a list of images", fix='write ["scan.nii.gz", …] or [{"image": …}, …]')
    return rows


def _named_file(home: Path, text: str) -> Path:
    """The file that a list in the folder `home` names."""
    try:
        given = Path(file_text(home, text)).expanduser()
    except RuntimeError:  # the home of a user who does not exist
        given = Path(text)
    return Path(os.path.normpath(home / given))


def _checked(where: str, row: Any, stack: bool) -> Mapping[str, Any]:
    """An entry of a list as `{"image": [...], ...}`."""
    entry = row if isinstance(row, dict) else {"image": row}
    columns = [key for key in entry if key and key.startswith("image_")] if stack and not entry.get("image") else []
    named = {key: entry[key] for key in columns or ["image"] if key in entry} or {"image": None}
    files = [file for value in named.values() for file in (value if isinstance(value, list) else [value])]
    if not files or not all(isinstance(file, str) and file for file in files):
        empty = next((key for key, value in named.items() if not value), "image")
        fix = f"name its file in the column `{empty}` of the header"
        raise DataError(f"{where} has no `{empty}`: {shown(row)}", fix=fix)
    if len(files) > 1 and not stack:
        raise DataError(f"{where} names {len(files)} files, and the network takes one channel", fix="name one")
    for key in ("name", "task"):
        value = entry.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            entry = {**entry, key: str(value)}
        elif value is not None and not isinstance(value, str):
            raise DataError(f"{where} has the {key} {shown(value)}", fix="use a text")
    modality = entry.get("modality") or None
    if modality is not None and modality not in MODALITIES:
        raise DataError(f"{where} has the modality {modality!r}", fix=f"use one of {', '.join(MODALITIES)}")
    return {**entry, "image": files}


def _volumes(one: Input, volume: int | Literal["all"]) -> list[Input]:
    """The wanted volumes of a file."""
    if volume != "all":
        return [replace(one, volume=volume)]
    try:
        count = volumes_in(one)
    except DataError:  # reading the file raises it again
        count = 1
    if count == 1:
        return [replace(one, volume=0)]
    return [replace(one, name=f"{one.name}_{index:03d}", volume=index) for index in range(count)]


def _distinct(found: list[Input]) -> list[Input]:
    """Files of one name that differ only in their suffix, or in what is unsafe in a name, are numbered."""
    taken: set[str] = set()
    distinct = []
    for one in found:
        name, number = one.name, 1
        while name in taken:
            number += 1
            name = f"{one.name}-{number}"
        taken.add(name)
        distinct.append(replace(one, name=name))
    return distinct


def _kind(path: Path) -> Kind | None:
    """Kind of a file by its name, or else by its first bytes; a folder, or what is missing, is a DICOM series."""
    if path.name.lower().endswith(tuple(SUFFIXES)):
        return kind_of(path)
    return "dicom" if not is_there(path) or path.is_dir() or is_dicom(path) else None


def _joined(inside: Path) -> str:
    """A path as one name: `patient/scan.nii.gz` -> `patient_scan`."""
    return "_".join([*inside.parent.parts, stem(inside)])


def safe_name(name: str) -> str:
    """A name that every file system takes, and that no shell and no reader of CSV stumbles over."""
    return re.sub(r"[^\w.+-]+", "_", name)[-NAME_LENGTH:].strip("._-") or "image"
