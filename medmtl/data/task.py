"""Task (one organ in one modality), and a folder of out-of-distribution images."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from medmtl.data.layouts import Layout
from medmtl.data.preprocessing import Preprocessing
from medmtl.errors import ConfigError, DataError
from medmtl.io.input import MODALITIES

SOFT_TISSUE_WINDOW = (-160.0, 240.0)


@dataclass
class Task:
    """One organ of interest in one modality.

    Args:
        root: data folder; `${NAME}` is taken from the environment, `phantom:NAME` is a digital phantom.
        modality: CT, MR, PET or other. It decides the intensity preprocessing.
        organ: label values that together are the organ of interest, or names that the dataset declares for them.
        spacing: working voxel size in mm (right-left, anterior-posterior, superior-inferior).
        channel: channel to use where the images have several, or a list of those to stack: the network then takes as
            many, in all tasks.
        patient: regular expression for the patient within a case name (default: as the dataset declares, or the whole
            name).
        window: Hounsfield units that a CT is clipped to (default: soft tissue).
        layout: how files lie in the folder, see `medmtl.data.layouts`; None: recognised from the folder.
        fold: number of a split that the dataset brings along: its validation cases are the test cases, and
            `data.val` of the others are validated on. None: split by `data.val` and `data.test`.
    """

    root: str
    modality: str
    organ: list[int | str]
    spacing: tuple[float, float, float]
    channel: int | list[int] = 0
    patient: str | None = None
    window: tuple[float, float] | None = None
    layout: Layout | None = None
    fold: int | None = None

    def __post_init__(self) -> None:
        """Check the domains of the values.

        Raises:
            ConfigError: a value is outside its domain.
        """
        if self.modality not in MODALITIES:
            raise ConfigError(f"modality {self.modality!r} (root {self.root})", fix=f"use one of {MODALITIES}")
        if not self.organ or any(isinstance(value, int) and value < 1 for value in self.organ):
            raise ConfigError(f"organ {self.organ} (root {self.root})", fix="list names or label values above 0")
        _check_channels(self.channels, self.root)
        if self.fold is not None and self.fold < 0:
            raise ConfigError(f"fold {self.fold} (root {self.root})", fix="count folds from 0")
        if min(self.spacing) <= 0:
            raise ConfigError(f"spacing {self.spacing} (root {self.root})", fix="give three sizes in mm above 0")
        if self.window is not None and (self.modality != "CT" or self.window[0] >= self.window[1]):
            raise ConfigError(f"window {self.window} (root {self.root})", fix="a window is [low, high], for CT only")
        if self.window is not None:
            self.window = (self.window[0], self.window[1])
        self.organ, self.spacing = list(self.organ), (self.spacing[0], self.spacing[1], self.spacing[2])

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels to use, in their order."""
        return _several(self.channel)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images of this task are prepared."""
        window = (self.window or SOFT_TISSUE_WINDOW) if self.modality == "CT" else None
        return Preprocessing(spacing=self.spacing, window=window)


@dataclass
class OODImages:
    """Unlabelled images of no task: the out-of-distribution input of the test.

    Args:
        root: a data folder of any layout, or any folder of images; see `Task.root`.
        channel: as of a task.
        layout: as of a task.
    """

    root: str
    channel: int | list[int] = 0
    layout: Layout | None = None

    def __post_init__(self) -> None:
        """Check the channels.

        Raises:
            ConfigError: there is none, one is below 0, or listed twice.
        """
        _check_channels(self.channels, self.root)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels to use, in their order."""
        return _several(self.channel)


def resolve_root(name: str, root: str) -> Path:
    """The folder that a `root` of the configuration means.

    Args:
        name: the task or folder, for the message.
        root: a path, with `${NAME}` for environment variables, or `phantom:NAME`.

    Returns:
        An existing folder; phantoms are generated into the cache folder on first use.

    Raises:
        DataError: an environment variable is not set, or the folder does not exist.
    """
    if root.startswith("phantom:"):
        from medmtl.data.phantoms.phantoms import phantom_root

        return phantom_root(root.removeprefix("phantom:"))
    try:
        path = Path(Template(root).substitute(os.environ)).expanduser()
    except KeyError as missing:
        variable = missing.args[0]
        raise DataError(
            f"{name}: the data root {root} needs the environment variable {variable}, which is not set",
            fix=f"set {variable} to the folder that holds the corpora",
        ) from None
    except ValueError:
        raise DataError(f"{name}: the data root {root} holds a lone $", fix="write $$ for a dollar sign") from None
    if not path.is_dir():
        raise DataError(f"{name}: the data root {path} is not a folder", fix="correct `root` in the configuration")
    return path


def data_note(roots: Iterable[str]) -> str:
    """The note that every figure of data with these roots must carry; empty for patient data."""
    phantoms = any(root.startswith("phantom:") for root in roots)
    return "Digital phantoms, not patients" if phantoms else ""


def _several(channel: int | list[int]) -> tuple[int, ...]:
    return tuple(channel) if isinstance(channel, list) else (channel,)


def _check_channels(channels: tuple[int, ...], root: str) -> None:
    if not channels or min(channels) < 0 or len(set(channels)) < len(channels):
        raise ConfigError(f"channel {list(channels)} (root {root})", fix="count channels from 0, and name each once")
