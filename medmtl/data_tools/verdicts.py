"""Whether the patients of a data check are enough for verdicts on new images."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from medmtl.building import building
from medmtl.commands.keys import default_of
from medmtl.data.splits import CALIBRATION, split_patients
from medmtl.data_tools.listing import Dataset
from medmtl.errors import ConfigError, DataError
from medmtl.ood.conformal import can_decide
from medmtl.renamed import rename
from medmtl.results.dataset import CaseFacts
from medmtl.training.config_files import read_yaml

MOST = 10_000  # patients; where more are needed, how many more is not counted
KEYS: Mapping[str, Any] = {
    "data.val": float,
    "data.test": float,
    "data.calibration": float,
    "data.held_out": list[str] | None,
    "data.splits": str | None,
    "spectral.layers": list[str],
    "spectral.alpha": float,
}


@dataclass(frozen=True)
class Plan:
    """What a training would do with the patients.

    Attributes:
        val: share for validation.
        test: share for the test.
        calibration: share that sets the threshold; 0: the validation patients do.
        alpha: share of in-distribution images that may be rejected.
        held_out: tasks that are not trained on.

    Raises:
        ConfigError: the shares leave nobody to train on, or alpha is none.
    """

    val: float
    test: float
    calibration: float
    alpha: float
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shares = {"val": self.val, "test": self.test, "calibration": self.calibration}
        if not (min(shares.values()) >= 0 and sum(shares.values()) < 1):
            asked = ", ".join(f"data.{name}={share:g}" for name, share in shares.items())
            raise ConfigError(f"{asked} leave no training cases", fix="use fractions from 0 whose sum is below 1")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"spectral.alpha={self.alpha:g}", fix="use a share between 0 and 1, such as 0.05")

    @classmethod
    def of(cls, config: Path | None = None) -> "Plan | None":
        """The plan of a configuration, or of the defaults; None where no verdict is asked for, or a split is given.

        Raises:
            ConfigError: the configuration has no such shares.
        """
        found = _read(config)
        data, spectral = found.data, found.spectral
        if data.splits or (config is not None and not spectral.layers):
            return None
        return cls(data.val, data.test, data.calibration, spectral.alpha, tuple(data.held_out or ()))

    @property
    def part(self) -> str:
        """The part of the split that sets the threshold."""
        return CALIBRATION if self.calibration else "val"

    @property
    def share(self) -> float:
        """The share of that part."""
        return self.calibration or self.val

    def decides(self, patients: Mapping[str, Sequence[str]]) -> bool:
        """Whether verdicts are possible with so many patients, task -> patient of each of its cases."""
        try:
            part_of = split_patients(patients, self.val, self.test, calibration=self.calibration)
        except DataError:
            return False
        trained = [patient for name, own in patients.items() if name not in self.held_out for patient in own]
        held_out, train = ([each for each in trained if part_of[each] == part] for part in (self.part, "train"))
        return can_decide(self.alpha, len(set(held_out)), len(held_out), len(set(train)))

    def needed(self) -> int | None:
        """The fewest patients of a single task with whom verdicts are possible; None where `MOST` are too few."""
        counts = range(2, MOST + 1)
        place = bisect_left(counts, True, key=lambda count: self.decides({"": [str(each) for each in range(count)]}))
        return counts[place] if place < len(counts) else None


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
    if not plan.share:
        return f"no patient is held out for verdicts on new images, which will be undecided: data.{plan.part} is 0"
    trained = {name: own for name, own in patients.items() if name not in plan.held_out}
    several = " in all trained tasks together" if len(trained) > 1 else ""
    people = len({patient for own in trained.values() for patient in own})
    needed = plan.needed()
    return (
        f"{people} labelled patients{several} are too few for verdicts on new images, which will be undecided: "
        f"{f'more than {MOST:,}' if needed is None else f'about {needed}'} are needed at spectral.alpha = "
        f"{plan.alpha:g}, with data.val = {plan.val:g} and data.test = {plan.test:g}"
    )


def _read(config: Path | None) -> Any:
    """What a configuration, read as `medmtl fit` reads it, has for `KEYS`."""
    content: Mapping[str, Any] = {} if config is None else rename(read_yaml(config))[0]
    parser = ArgumentParser(exit_on_error=False)
    given: dict[str, Any] = {}
    for key, kind in KEYS.items():
        parser.add_argument(f"--{key}", type=kind, default=default_of("fit", key))
        section, _, name = key.partition(".")
        own = content.get(section) or {}
        if not isinstance(own, Mapping):
            raise ConfigError(f"{config}: {section} is no section with keys", fix="correct it")
        if name in own:
            if own[name] is None and kind is float:  # which the parser would take
                raise ConfigError(f"{config}: {key} is null", fix="give a number, or leave it out")
            given.setdefault(section, {})[name] = own[name]
    with building(lambda reason: ConfigError(f"{config}: {reason}")):
        return parser.parse_object(given)
