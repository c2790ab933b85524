"""Setting: what the training runs of one seed, fold and training-set size have in common, and how arms plan theirs."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

from medmtl.errors import ConfigError
from medmtl.experiment.plan.cell import Cell
from medmtl.experiment.plan.protocol import Protocol

Layers = Literal["all", "decoder", "head"]


@dataclass(frozen=True)
class Planned:
    """A training run as it is planned, before its data are read.

    Attributes:
        name: unique in the experiment, such as `transfer-LiverCT-fold1-seed0`.
        config: complete configuration for `medmtl fit`.
        cell: what it is compared as; None for a pre-training, which is not tested.
        steps: optimizer steps.
        needs: name of the run whose best checkpoint it starts from; `layers` says what it trains of that.
        layers: all, decoder or head; None for a run that starts from random weights.
    """

    name: str
    config: dict[str, Any]
    cell: Cell | None
    steps: int
    needs: str | None = None
    layers: Layers | None = None


@dataclass(frozen=True)
class Setting:
    """What the runs of one seed, fold and training-set size have in common.

    Attributes:
        experiment: name of the experiment.
        protocol: budgets and options.
        base: the base configuration, the protocol's overrides applied.
        splits: path of the split file.
        seed: seed of the runs.
        fold: fold of the cross-validation; None without one.
        cases: training cases a task at most; None for all.
    """

    experiment: str
    protocol: Protocol
    base: Mapping[str, Any]
    splits: str
    seed: int
    fold: int | None
    cases: int | None

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.base["data"]["tasks"])

    def pretraining(self, kind: str, tasks: Sequence[str], steps: int) -> Planned:
        """A run that others start from, which is not tested.

        Args:
            kind: part of its name; arms that give the same kind, tasks and steps share the run.
            tasks: what it trains on.
            steps: optimizer steps.
        """
        return self._run(f"pretraining-{kind}", tasks, steps, None, "pretraining")

    def training(self, arm: str, task: str | None, steps: int, tasks: Sequence[str] | None = None) -> Planned:
        """A run that starts from random weights and is tested.

        Args:
            arm: key of the arm.
            task: the task that it is tested on; None for all tasks.
            steps: optimizer steps.
            tasks: what it trains on; the tested task or tasks if None.
        """
        if tasks is None:
            tasks = self.tasks if task is None else [task]
        name = arm if task is None else f"{arm}-{task}"
        return self._run(name, tasks, steps, self._cell(arm, task), arm)

    def finetuning(self, arm: str, task: str, steps: int, start: Planned, layers: Layers) -> Planned:
        """A run that starts from another and is tested on one task.

        Args:
            arm: key of the arm.
            task: the task that it trains on and is tested on.
            steps: optimizer steps.
            start: the run whose best checkpoint it starts from.
            layers: what it trains: `all`, `decoder` or `head`.
        """
        planned = self.training(arm, task, steps)
        config = with_overrides(planned.config, self.protocol.finetune_overrides)
        return replace(planned, config=config, needs=start.name, layers=layers)

    def _cell(self, arm: str, task: str | None) -> Cell:
        budget = self.protocol.budget_of(self.base["data"].get("batch_size", 4))
        return Cell(self.experiment, arm, task, self.seed, self.fold, self.cases, budget)

    def _run(self, kind: str, tasks: Sequence[str], steps: int, cell: Cell | None, job_type: str) -> Planned:
        marks = [f"{self.cases}cases"] if self.cases is not None else []
        marks += [f"fold{self.fold}"] if self.fold is not None else []
        marks += [f"seed{self.seed}"]
        config = deepcopy(dict(self.base))
        config["seed_everything"] = self.seed
        data, validations = config["data"], self.protocol.validations
        data |= {"tasks": {name: data["tasks"][name] for name in tasks}, "splits": self.splits}
        data["batches"] = steps // validations
        if self.protocol.budget == "samples" and len(tasks) > 1:
            data["balance"] = 0  # the budget `samples` counts the same patches of every task
        trainer = {key: value for key, value in (config.get("trainer") or {}).items() if key != "max_steps"}
        config["trainer"] = trainer | {"max_epochs": validations}
        tags = [*(tasks if len(tasks) == 1 else []), *marks]
        config["wandb"] = (config.get("wandb") or {}) | {"group": self.experiment, "job_type": job_type, "tags": tags}
        name = re.sub(r"[^\w.+-]+", "_", "-".join([kind, *marks]))  # a task's name may hold what a file name cannot
        return Planned(name, config, cell, steps)


def with_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with some keys set.

    Args:
        config: nested mappings.
        overrides: key with dots between the levels -> value.

    Raises:
        ConfigError: a key leads through something that is no mapping.
    """
    result = deepcopy(dict(config))
    for key, value in overrides.items():
        place: Any = result
        *levels, last = key.split(".")
        for level in levels:
            place = place.setdefault(level, {})
            if not isinstance(place, dict):
                raise ConfigError(f"overrides: {key} leads through {level}, which has no parts", fix="correct the key")
        place[last] = deepcopy(value)
    return result
