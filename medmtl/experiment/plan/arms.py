"""Arms: the training runs that each arm of an experiment needs, as small overrides of the base configuration."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from medmtl.errors import ConfigError
from medmtl.experiment.plan.cell import Cell
from medmtl.experiment.plan.protocol import OTHERS, Protocol


@dataclass(frozen=True)
class Planned:
    """A training run as it is planned, before its data are looked at.

    Attributes:
        name: unique in the experiment, such as `transfer-LiverCT-fold1-seed0`.
        config: complete configuration for `medmtl fit`.
        cell: what it is compared as; None for a pre-training, which is not tested.
        steps: optimizer steps.
        needs: name of the run whose best checkpoint it starts from; `layers` says what it trains of that.
        layers: all, decoder or head; None for a run that starts from nothing.
    """

    name: str
    config: dict[str, Any]
    cell: Cell | None
    steps: int
    needs: str | None = None
    layers: str | None = None


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
        """A run that others start from."""
        return self._run(f"pretraining-{kind}", tasks, steps, None, "pretraining")

    def arm(self, arm: str, task: str | None, steps: int) -> Planned:
        """A run that starts from nothing and is tested: on one task, or on all if None."""
        tasks = self.tasks if task is None else [task]
        name = arm if task is None else f"{arm}-{task}"
        return self._run(name, tasks, steps, self._cell(arm, task), arm)

    def finetuning(self, arm: str, task: str, steps: int, source: Planned, layers: str) -> Planned:
        """A run that starts from another and is tested on one task."""
        planned = self.arm(arm, task, steps)
        config = with_overrides(planned.config, self.protocol.finetune_overrides)
        return replace(planned, config=config, needs=source.name, layers=layers)

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
            data["balance"] = 0  # the notion counts the same patches of every task
        trainer = {key: value for key, value in (config.get("trainer") or {}).items() if key != "max_steps"}
        config["trainer"] = trainer | {"max_epochs": validations}
        tags = [*(tasks if len(tasks) == 1 else []), *marks]
        config["wandb"] = (config.get("wandb") or {}) | {"group": self.experiment, "job_type": job_type, "tags": tags}
        name = re.sub(r"[^\w.+-]+", "_", "-".join([kind, *marks]))  # a task may be called what no file can
        return Planned(name, config, cell, steps)


def dedicated(setting: Setting) -> Iterator[Planned]:
    """One model a task."""
    for task in setting.tasks:
        yield setting.arm("dedicated", task, setting.protocol.steps_of(setting.protocol.steps))


def transfer(setting: Setting, arm: str, layers: str) -> Iterator[Planned]:
    """Pre-trained on the source, then trained on the task.

    Under the notion `steps` the two share the budget; under `samples` each task of either is seen in full.
    """
    protocol = setting.protocol
    shared = protocol.budget == "steps"
    before, after = (protocol.pretraining, protocol.finetuning) if shared else (protocol.steps, protocol.steps)
    for task in setting.tasks:
        sources = [name for name in setting.tasks if name != task]
        kind = f"without-{task}"
        if protocol.pretrain_on != OTHERS:
            if task == protocol.pretrain_on:
                continue
            sources, kind = [protocol.pretrain_on], f"on-{protocol.pretrain_on}"
        source = setting.pretraining(kind, sources, protocol.steps_of(before, len(sources)))
        yield source
        yield setting.finetuning(arm, task, protocol.steps_of(after), source, layers)


def multitask(setting: Setting) -> Iterator[Planned]:
    """One model on all tasks."""
    yield setting.arm("multitask", None, setting.protocol.steps_of(setting.protocol.steps, len(setting.tasks)))


def multitask_finetune(setting: Setting) -> Iterator[Planned]:
    """One model on all tasks, then trained on one of them; the two share the budget."""
    protocol, tasks = setting.protocol, setting.tasks
    union = setting.pretraining("union", tasks, protocol.steps_of(protocol.pretraining, len(tasks)))
    yield union
    for task in tasks:
        yield setting.finetuning("multitask_finetune", task, protocol.steps_of(protocol.finetuning), union, "all")


PLANS: Mapping[str, Callable[[Setting], Iterable[Planned]]] = MappingProxyType(
    {
        "dedicated": dedicated,
        "transfer": partial(transfer, arm="transfer", layers="all"),
        "transfer_decoder": partial(transfer, arm="transfer_decoder", layers="decoder"),
        "transfer_head": partial(transfer, arm="transfer_head", layers="head"),
        "multitask": multitask,
        "multitask_finetune": multitask_finetune,
    }
)


def plan(settings: Iterable[Setting]) -> list[Planned]:
    """All training runs of an experiment; a pre-training that several arms need is there once.

    Raises:
        ConfigError: the base has a single task, two whose names make the same file names, or the source of the
            transfer is none of them.
    """
    runs: dict[str, Planned] = {}
    for setting in settings:
        source, tasks = setting.protocol.pretrain_on, setting.tasks
        if len(tasks) < 2:
            raise ConfigError(f"the base has one task ({tasks[0]})", fix="compare on two or more")
        if source not in (OTHERS, *tasks):
            raise ConfigError(f"pretrain_on={source}", fix=f"use {OTHERS}, or one of the tasks: {', '.join(tasks)}")
        for arm in setting.protocol.arms:
            for planned in PLANS[arm](setting):
                if runs.setdefault(planned.name, planned).config != planned.config:
                    raise ConfigError(f"two training runs are called {planned.name}", fix="rename a task")
    return list(runs.values())


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
