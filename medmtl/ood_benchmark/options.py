"""Options of `medmtl ood`, as a configuration file or flags give them."""

from dataclasses import dataclass, field
from typing import Final, Literal

from medmtl.data.layouts.layout import Layout
from medmtl.data.task import OODImages
from medmtl.errors import ConfigError
from medmtl.models.ensemble import Ensemble
from medmtl.ood.detectors import Detector  # imports all of them, so that a configuration can use their short names
from medmtl.ood.shifts import SHIFTS, Shift

ALL: Final = "all"


@dataclass
class OtherImages:
    """A folder of images that no task of the run was trained on.

    Args:
        root: a data folder of any layout, or any folder of images. `${NAME}` is taken from the
            environment: where it is not set the folder is left out, with a note. `phantom:NAME` is a
            digital phantom.
        channel: channel to use where the images have several, or as many as the run's tasks stack.
        patient: regular expression for the patient within a file name. Patients whom the run was trained or validated
            on are left out. Without it every image is taken.
        task: near images show the organ of this task. A run that was not trained on it counts them among the far.
        organ: label values or names of the organ of interest, for near images with labels: how well they are segmented.
        layout: how files lie in the folder; None: recognised from it.
    """

    root: str
    channel: int | list[int] = 0
    patient: str | None = None
    task: str | None = None
    organ: list[int | str] | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            ConfigError: a channel below 0 or listed twice, or an organ without a task.
        """
        OODImages(self.root, self.channel)
        if self.organ is not None and self.task is None:
            raise ConfigError(f"organ {self.organ} (root {self.root})", fix="add the `task` that segments it")


@dataclass(frozen=True)
class Options:
    """What a benchmark compares.

    Args:
        detectors: each the name of a built-in class such as `Spectral`, or a `class_path`. The verdict (accept
            or reject) is that of the first.
        shifts: `all`, or a list of names of built-in shifts and of your own, each a `class_path` to a `Shift`.
        severities: severities of the shifts that have some, 1 to 5.
        cases: test cases of a task that are shifted, at most, or `all`. All of them count as they are.
        far: name -> images of other organs or modalities, beside `data.ood` of the run and its held-out tasks.
        near: name -> images of an organ of a task from another scanner, population or pipeline.
        layers: layers of the network that detectors use; those of the run's `spectral.layers` if None.
        pooled_layers: those of them whose map of each window is kept, for `MDPool`; the coarsest if None.
        ensemble_checkpoints: other checkpoints of the same network, tasks and split; with the run's own they give the
            output scores `mutual_information` and `pairwise_dice_distance`.
        dropout_passes: passes of every network with its dropout layers at work, each of which counts as a member; 0 =
            one pass without dropout.
        leave_one_task_out: compare detectors on training and validation images alone, each task being left out once, to
            choose among them without OOD images.
        alpha: share of in-distribution images that may be rejected.
        seed: of the shifts and of the resampling.
        processes: that run in parallel, each with one thread; one a core if None, or one with a GPU.
    """

    detectors: list[Detector]
    shifts: list[str | Shift] | Literal["all"] = ALL
    severities: list[int] = field(default_factory=lambda: [1, 3, 5])
    cases: int | Literal["all"] = 3
    far: dict[str, OtherImages] = field(default_factory=dict)
    near: dict[str, OtherImages] = field(default_factory=dict)
    layers: list[str] | None = None
    pooled_layers: list[str] | None = None
    ensemble_checkpoints: list[str] = field(default_factory=list)
    dropout_passes: int = 0
    leave_one_task_out: bool = False
    alpha: float = 0.05
    seed: int = 0
    processes: int | None = None

    def __post_init__(self) -> None:
        """Check the domains.

        Raises:
            ConfigError: names the key, its value and what it may be.
        """
        names = [detector.name for detector in self.detectors]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"detectors={names}", fix="list one or more, each with a name of its own")
        unknown = [each for each in self.shifts if isinstance(each, str) and each not in SHIFTS]
        if unknown and self.shifts != ALL:
            known = ", ".join(SHIFTS)
            raise ConfigError(f"shifts names {unknown[0]}", fix=f"use some of: {known}; or class_path for your own")
        shifts = [shift.name for shift in self.shifts_used]
        if len(set(shifts)) < len(shifts):
            raise ConfigError(f"shifts={shifts}", fix="list shifts with different names")
        if not set(self.severities) <= set(range(1, 6)):
            raise ConfigError(f"severities={self.severities}", fix="use some of 1, 2, 3, 4, 5")
        if self.cases != ALL and self.cases < 0:
            raise ConfigError(f"cases={self.cases}", fix="use 0 or more, or all")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"alpha={self.alpha}", fix="use a share between 0 and 1, such as 0.05")
        if self.processes is not None and self.processes < 1:
            raise ConfigError(f"processes={self.processes}", fix="use 1 or more")
        if self.dropout_passes < 0:
            raise ConfigError(f"dropout_passes={self.dropout_passes}", fix="use 0 or more")
        both = sorted(set(self.far) & set(self.near))
        if both:
            raise ConfigError(f"far and near both name {both[0]}", fix="rename one")

    @property
    def ensemble(self) -> Ensemble | None:
        """The ensemble for the output scores of several members; None without one."""
        if not self.ensemble_checkpoints and not self.dropout_passes:
            return None
        return Ensemble(self.ensemble_checkpoints, self.dropout_passes, scale="pool")

    @property
    def shifts_used(self) -> list[Shift]:
        """The shifts, built-in ones and a user's own."""
        if self.shifts == ALL:
            return list(SHIFTS.values())
        return [SHIFTS[each] if isinstance(each, str) else each for each in self.shifts]
