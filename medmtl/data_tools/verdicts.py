"""Whether the patients of a data check are enough for verdicts on new images."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from medmtl.callbacks.spectral import SpectralCallback
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.splits import CALIBRATION, split_patients
from medmtl.data_tools.listing import Dataset
from medmtl.errors import DataError
from medmtl.files import parse_yaml, read_text
from medmtl.ood.conformal import can_decide
from medmtl.results.dataset import CaseFacts


@dataclass(frozen=True)
class Plan:
    """What a training would do with the patients.

    Attributes:
        val: share for validation.
        test: share for the test.
        calibration: share that sets the threshold; 0: the validation patients do.
        alpha: share of in-distribution images that may be rejected.
    """

    val: float
    test: float
    calibration: float
    alpha: float

    @classmethod
    def of(cls, config: Path | None = None) -> "Plan | None":
        """The plan of a configuration, or of the defaults; None where no verdict is asked for, or a split is given."""
        content: Mapping[str, Any] = {} if config is None else parse_yaml(read_text(config))
        data, spectral = content.get("data") or {}, content.get("spectral") or {}
        if data.get("splits") or (config is not None and not spectral.get("layers")):
            return None
        known = inspect.signature(MultiTaskData).parameters
        shares = {name: data.get(name, known[name].default) for name in ("val", "test", "calibration")}
        alpha = spectral.get("alpha", inspect.signature(SpectralCallback).parameters["alpha"].default)
        return cls(**shares, alpha=alpha)

    def decides(self, patients: Mapping[str, Sequence[str]]) -> bool:
        """Whether verdicts are possible with so many patients, task -> patient of each of its cases."""
        try:
            part_of = split_patients(patients, self.val, self.test, calibration=self.calibration)
        except DataError:
            return False
        part = CALIBRATION if self.calibration else "val"
        held_out = [part_of[patient] == part for own in patients.values() for patient in own]
        groups = {name: [each for each in part_of if part_of[each] == name] for name in (part, "train")}
        return can_decide(self.alpha, len(groups[part]), sum(held_out), len(groups["train"]))

    def needed(self) -> int:
        """The fewest patients of a single task with whom verdicts are possible."""
        return next(n for n in count(2) if self.decides({"": [str(number) for number in range(n)]}))


def too_few(datasets: Sequence[Dataset], cases: Sequence[CaseFacts], plan: Plan | None) -> str | None:
    """A sentence where the patients are too few for verdicts; None where they are enough, or none are asked for.

    Args:
        datasets: what was checked.
        cases: of all of them.
        plan: what a training would do with them.
    """
    tasks = [dataset.name for dataset in datasets if dataset.use != "ood"]
    patients = {name: [case.patient for case in cases if case.dataset == name and case.labels] for name in tasks}
    patients = {name: own for name, own in patients.items() if own}
    if plan is None or not patients or plan.decides(patients):
        return None
    several = " in all tasks together" if len(patients) > 1 else ""
    people = len({patient for own in patients.values() for patient in own})
    return (
        f"{people} labelled patients{several} are too few for verdicts on new images, which will be undecided: about "
        f"{plan.needed()} are needed at spectral.alpha = {plan.alpha:g}, with data.val = {plan.val:g} and data.test = "
        f"{plan.test:g}"
    )
