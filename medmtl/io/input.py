"""Input: one image that is to be read, and the kinds of files that can be."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medmtl.errors import DataError

MODALITIES = ("CT", "MR", "PET", "other")
Kind = Literal["nifti", "nibabel", "nrrd", "meta", "dicom", "array"]
SUFFIXES: dict[str, Kind] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".hdr": "nifti",
    ".mgz": "nibabel",
    ".mgh": "nibabel",
    ".mnc": "nibabel",
    ".head": "nibabel",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "meta",
    ".mhd": "meta",
    ".dcm": "dicom",
    ".ima": "dicom",
}
NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, ".nrrd", ".mha", ".mgz")  # of files that a dataset may hold, each a whole image
COMPANIONS = (".img", ".img.gz", ".brik", ".brik.gz", ".raw", ".raw.gz", ".zraw")  # of files that hold a header alone
MASK = "_mask"  # after the name of an image, in that of its mask
MAPS = ("_probability", "_entropy")  # in those of its maps


@dataclass(frozen=True)
class Input:
    """One volume that is to be read.

    Attributes:
        name: unique among the inputs that were found together, and safe as a file name.
        path: the file, or the folder of a DICOM series; of several the first.
        kind: kind of file; `array` for a volume that was in memory already, whose path is only for messages.
        series: unique identifier of the series in a DICOM folder; None for other kinds.
        volume: which volume of the file or series, from 0; None for arrays.
        modality: CT, MR, PET or other, where a list names it.
        task: the task, where a list names it.
        channels: number -> the input that is this channel, where an image is several files; empty where `path` is all.
    """

    name: str
    path: Path
    kind: Kind
    series: str | None = None
    volume: int | None = None
    modality: str | None = None
    task: str | None = None
    channels: Mapping[int, "Input"] = field(default_factory=dict)


def kind_of(path: Path) -> Kind:
    """Kind of a file by its suffix.

    Raises:
        DataError: it has none of `SUFFIXES`.
    """
    kind = next((kind for suffix, kind in SUFFIXES.items() if path.name.lower().endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{path} is not an image that can be read", fix=f"use {', '.join(SUFFIXES)}")
    return kind


def stem(path: Path) -> str:
    """The name of a file without its suffix, which may have two parts: `a.nii.gz` -> `a`."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def has_ending(path: Path) -> bool:
    """Whether a file's name has one of `ENDINGS`, in whatever case."""
    return path.name.lower().endswith(ENDINGS)


def hidden(path: Path) -> bool:
    """Whether a path, within a folder, is one of those that file managers leave there: `._scan.nii.gz`, `.DS_Store`."""
    return any(part.startswith(".") for part in path.parts)


def other_kinds(paths: Iterable[Path]) -> str:
    """What files that are no images are, by their suffixes, for a message: `2 .zip, 1 .txt`; empty if there are none.

    Args:
        paths: files that are not read; hidden ones and the voxels that belong to a header do not count.
    """
    named = [path for path in paths if not path.name.lower().endswith(COMPANIONS) and not path.name.startswith(".")]
    kinds = Counter(path.suffix.lower() or "without a suffix" for path in named)
    return ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())


def printable(text: object) -> str:
    """A path or message that any terminal and file takes: bytes of a name that are not UTF-8 are written as codes."""
    return str(text).encode("utf-8", "backslashreplace").decode()
