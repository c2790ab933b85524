"""KnownTask: what segmenting an image needs to know of a task, without its data."""

from dataclasses import dataclass

from medmtl.data.classes import Classes
from medmtl.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class KnownTask:
    """A task of a trained network.

    Attributes:
        modality: CT, MR, PET or other.
        preprocessing: how its images are prepared.
        classes: what its masks show.
        channels: of an image, those that are used, in their order.
        root: `phantom:NAME` of digital phantoms; empty for patient data, whose place is no part of a network.
    """

    modality: str
    preprocessing: Preprocessing
    classes: Classes
    channels: tuple[int, ...]
    root: str = ""
