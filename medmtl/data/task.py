"""Task (one organ of interest or several classes in one modality), and a folder of out-of-distribution images."""

import os
import re
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Literal

from medmtl.data.classes import Classes
from medmtl.data.known_task import KnownTask
from medmtl.data.layouts import Layout
from medmtl.data.preprocessing import Preprocessing
from medmtl.errors import ConfigError, DataError
from medmtl.files import is_there
from medmtl.io.input import MODALITIES

SOFT_TISSUE_WINDOW = (-160.0, 240.0)


SIDES = re.compile(r"(?<![a-z])(left|right|l|r|lh|rh)(?![a-z])", re.IGNORECASE)  # of the body, in the name of a class
LARGEST = 65535  # label value of a mask
Values = int | str | list[int | str]


@dataclass
class Task:
    """One organ of interest, or several classes, in one modality.

    Args:
        root: data folder; `${NAME}` is taken from the environment, `phantom:NAME` is a digital phantom.
        modality: CT, MR, PET or other. It decides the intensity preprocessing.
        spacing: working voxel size in mm (right-left, anterior-posterior, superior-inferior).
        organ: label values that together are the organ of interest, or names that the dataset declares for them.
        classes: instead of `organ`, the classes to tell apart: name -> label value, a list of those, or a name that the
            dataset declares; or a list of declared names; or `all` that it declares. Classes that share label values
            (regions of nnU-Net) may overlap, and a later one is written over an earlier one; masks have the first
            value in the list of a class that no later one has. Tasks whose classes have the same name share its output.
        missing: class -> regular expression of the names of cases whose labels do not mark it, though it may be there;
            nothing is learnt of the class from them. Where each class has a mask of its own, a case without one is
            found by itself.
        mirror: whether training patches are mirrored left to right at random; None: unless the name of a class says
            left or right, which a mirror image would contradict.
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
    spacing: tuple[float, float, float]
    organ: list[int | str] | None = None
    classes: dict[str, Values] | list[str] | Literal["all"] | None = None
    missing: dict[str, str] | None = None
    mirror: bool | None = None
    channel: int | list[int] = 0
    patient: str | None = None
    window: tuple[float, float] | None = None
    layout: Layout | None = None
    fold: int | None = None
    head: str | None = field(init=False, default=None)  # its own name where the network has an output for each task

    def __post_init__(self) -> None:
        """Check the domains of the values.

        Raises:
            ConfigError: a value is outside its domain.
        """
        if self.modality not in MODALITIES:
            raise ConfigError(f"modality {self.modality!r} (root {self.root})", fix=f"use one of {MODALITIES}")
        if (self.organ is None) == (self.classes is None):
            given = "neither organ nor classes" if self.organ is None else "organ and classes"
            raise ConfigError(f"{given} (root {self.root})", fix="give a task one of the two")
        if self.organ is not None and not _above_0(self.organ):
            raise ConfigError(f"organ {self.organ} (root {self.root})", fix="list names or label values above 0")
        if self.classes is not None and not _are_classes(self.classes):
            raise ConfigError(
                f"classes {self.classes} (root {self.root})",
                fix="name them, each with label values above 0, list declared names, or write all",
            )
        unknown = sorted(set(self.missing or ()) - set(self.class_names or ()))
        if unknown and self.classes != "all":
            raise ConfigError(f"missing names {unknown[0]} (root {self.root})", fix="use names of `classes`")
        _check_channels(self.channels, self.root)
        if self.fold is not None and self.fold < 0:
            raise ConfigError(f"fold {self.fold} (root {self.root})", fix="count folds from 0")
        if min(self.spacing) <= 0:
            raise ConfigError(f"spacing {self.spacing} (root {self.root})", fix="give three sizes in mm above 0")
        if self.window is not None and (self.modality != "CT" or self.window[0] >= self.window[1]):
            raise ConfigError(f"window {self.window} (root {self.root})", fix="a window is [low, high], for CT only")
        if self.window is not None:
            self.window = (self.window[0], self.window[1])
        self.organ = None if self.organ is None else list(self.organ)
        self.spacing = (self.spacing[0], self.spacing[1], self.spacing[2])

    def with_head(self, head: str | None) -> "Task":
        """A copy whose outputs are read from a head; None: from the one output of all tasks."""
        own = copy(self)
        own.head = head
        return own

    @property
    def mirrored(self) -> bool:
        """Whether training patches are mirrored left to right."""
        if self.mirror is not None:
            return self.mirror
        return not any(SIDES.search(name) for name in self.class_names or ())

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of its classes; empty for an organ of interest, None for all of a dataset."""
        return None if self.classes == "all" else tuple(self.classes or ())

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels to use, in their order."""
        return _several(self.channel)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images of this task are prepared."""
        window = (self.window or SOFT_TISSUE_WINDOW) if self.modality == "CT" else None
        return Preprocessing(self.spacing, window, self.head)

    @property
    def known(self) -> KnownTask:
        """What segmenting an image needs to know of it.

        Raises:
            ConfigError: its classes are given by names, whose values only the data tell.
        """
        root = self.root if data_note([self.root]) else ""
        return KnownTask(self.modality, self.preprocessing, classes_of(self), self.channels, root)


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
    if not (is_there(path) and path.is_dir()):
        raise DataError(f"{name}: the data root {path} is not a folder", fix="correct `root` in the configuration")
    return path


def classes_of(task: Task) -> Classes:
    """The classes of a task by their label values, without its data; of an organ of interest, one.

    Raises:
        ConfigError: they are given by names, whose values only the data tell.
    """
    if task.classes is None:
        return Classes.of_organ({1})
    values = task.classes.values() if isinstance(task.classes, dict) else [task.classes]
    known = [each if isinstance(each, list) else [each] for each in values]
    if not isinstance(task.classes, dict) or any(isinstance(each, str) for several in known for each in several):
        raise ConfigError(f"classes {task.classes} (root {task.root}) have no label values", fix="give them")
    return Classes.of_lists(dict(zip(task.classes, known, strict=True)))  # type: ignore[arg-type]


def has_heads(outputs: str | None, classes: Iterable[object]) -> bool:
    """Whether a network has outputs for each task, see `Segmenter`.

    Args:
        outputs: as configured; None: where a task has several classes.
        classes: of each task, as configured.
    """
    several = any(each == "all" or (isinstance(each, dict | list) and len(each) > 1) for each in classes)
    return several if outputs is None else outputs == "per_task"


def data_note(roots: Iterable[str]) -> str:
    """The note that every figure of data with these roots must carry; empty for patient data."""
    phantoms = any(root.startswith("phantom:") for root in roots)
    return "Digital phantoms, not patients" if phantoms else ""


def _above_0(values: Sequence[int | str]) -> bool:
    return bool(values) and not any(isinstance(value, int) and not 1 <= value <= LARGEST for value in values)


def _are_classes(classes: dict[str, Values] | list[str] | str) -> bool:
    """Whether there are classes, and each has label values."""
    if not isinstance(classes, dict):
        return (bool(classes) and len(set(classes)) == len(classes)) or classes == "all"
    return bool(classes) and all(_above_0(value if isinstance(value, list) else [value]) for value in classes.values())


def _several(channel: int | list[int]) -> tuple[int, ...]:
    return tuple(channel) if isinstance(channel, list) else (channel,)


def _check_channels(channels: tuple[int, ...], root: str) -> None:
    if not channels or min(channels) < 0 or len(set(channels)) < len(channels):
        raise ConfigError(f"channel {list(channels)} (root {root})", fix="count channels from 0, and name each once")
