"""Input: one image that is to be read, and the kinds of files that can be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medmtl.errors import DataError

MODALITIES = ("CT", "MR", "PET", "other")
Kind = Literal["nifti", "nrrd", "meta", "dicom", "array"]
SUFFIXES: dict[str, Kind] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "meta",
    ".mhd": "meta",
    ".dcm": "dicom",
    ".ima": "dicom",
}
NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, ".nrrd", ".mha")  # of files that a dataset may hold, each a whole image
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
