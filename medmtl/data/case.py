"""Case: one image of a dataset, with its labels if it has any."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medmtl.errors import ConfigError, DataError


@dataclass(frozen=True)
class LabelFile:
    """A file of the ground truth of an image.

    Attributes:
        path: the file.
        value: None where its voxels are label values; otherwise it is the mask of one organ: voxels above 0 have
            this label value.
    """

    path: Path
    value: int | None = None


@dataclass(frozen=True)
class Case:
    """One image, with its labels if it has any.

    Attributes:
        name: unique within its task or folder, for example `hippocampus_001`.
        patient: the patient; cases of one patient are never split apart.
        images: one file, with several channels along its fourth axis if any, or one file per channel.
        labels: one file of label values, or one mask per organ; empty without a ground truth.
        channels: the channels to use, in this order.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    labels: tuple[LabelFile, ...] = ()
    channels: tuple[int, ...] = (0,)

    @property
    def image_files(self) -> tuple[Path, ...]:
        """The files that hold the channels to use: the only one, or one a channel."""
        return self.images if len(self.images) == 1 else tuple(self.images[channel] for channel in self.channels)


def patient_of(task: str, case: str, pattern: str | None) -> str:
    """The patient within a case name.

    Raises:
        ConfigError: the pattern is not a regular expression, or is not found in the name.
    """
    if pattern is None:
        return case
    try:
        found = re.search(pattern, case)
    except re.error as error:
        raise ConfigError(f"task {task}: patient {pattern!r} is not a regular expression ({error})") from None
    patient = found.group(1 if found.groups() else 0) if found else None
    if patient is None:
        raise ConfigError(f"task {task}, case {case}: patient {pattern!r} is not found in the name", fix="correct it")
    return patient


@contextmanager
def named(owner: str, case: str) -> Iterator[None]:
    """Name a case in the errors of its files.

    Args:
        owner: the task or folder.
        case: name of the case.

    Raises:
        DataError: that of the block, after `OWNER, case NAME: `.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{owner}, case {case}: {error.what}", fix=error.fix) from error.__cause__
