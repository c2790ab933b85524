"""Input: one image that is to be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MODALITIES = ("CT", "MR", "PET", "other")
Kind = Literal["nifti", "nrrd", "meta", "dicom", "array"]


@dataclass(frozen=True)
class Input:
    """One volume that is to be read.

    Attributes:
        name: unique among the inputs that were found together, and safe as a file name.
        path: the file, or the folder of a DICOM series; of several the first.
        kind: kind of file; `array` for a volume that was in memory already, whose path is only for messages.
        series: unique identifier of the series in a DICOM folder; None for other kinds.
        volume: which volume of the file, from 0; None for DICOM and arrays.
        modality: CT, MR, PET or other, where a list says so.
        task: the task, where a list says so.
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
