"""Arms: what an experiment compares. Each carries its key, label and look, and plans its training runs.

An arm of one's own is a subclass of `Arm` that the protocol names by `class_path`. Its description is written into the
experiment's folder before any run starts, so that comparing the runs afterwards does not need the class.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from medmtl.errors import ConfigError
from medmtl.experiment.plan.protocol import OTHERS
from medmtl.experiment.plan.setting import Layers, Planned, Setting, with_overrides
from medmtl.look import Look

INK = "#1F2430"
DECODER_LOOK = Look("v", (0, (4, 1.5, 1, 1.5)), "#7A8290")


class Arm(ABC):
    """One way of training that an experiment compares with others.

    Attributes:
        key: its name in configurations, file names and tables as CSV: lower-case letters, digits and underscores.
        label: how pages and figures call it.
        look: how figures draw it; None takes one that no other arm has.
    """

    key: str
    label: str
    look: Look | None = None

    @abstractmethod
    def plan(self, setting: Setting) -> Iterable[Planned]:
        """The training runs of one seed, fold and training-set size.

        Args:
            setting: what they have in common; its methods make the runs.

        Returns:
            The runs, each after the one that it starts from. Every task is tested by at most one of them.
        """


class Dedicated(Arm):
    """One model a task."""

    key = "dedicated"
    label = "dedicated training"
    look = Look("o", "-", "#8A919C")

    def plan(self, setting: Setting) -> Iterator[Planned]:
        """A run a task."""
        for task in setting.tasks:
            yield setting.training(self.key, task, setting.protocol.steps_of(setting.protocol.steps))


class Transfer(Arm):
    """Pre-trained on the other tasks or on one of them (`pretrain_on`), then trained on the task.

    Under the budget `steps` the two share it; under `samples` each task of either is trained on in full.

    Args:
        key: as in `Arm`.
        label: as in `Arm`.
        layers: what is trained after the pre-training: `all`, `decoder` or `head`.
        look: as in `Arm`.
    """

    def __init__(
        self, key: str = "transfer", label: str = "transfer", layers: Layers = "all", look: Look | None = None
    ) -> None:
        self.key, self.label, self.layers, self.look = key, label, layers, look

    def plan(self, setting: Setting) -> Iterator[Planned]:
        """A pre-training and a fine-tuning a task; none for the task that all others are pre-trained on."""
        protocol = setting.protocol
        shared = protocol.budget == "steps"
        before, after = (protocol.pretraining, protocol.finetuning) if shared else (protocol.steps, protocol.steps)
        for task in setting.tasks:
            pretrain_on = [name for name in setting.tasks if name != task]
            kind = f"without-{task}"
            if protocol.pretrain_on != OTHERS:
                if task == protocol.pretrain_on:
                    continue
                pretrain_on, kind = [protocol.pretrain_on], f"on-{protocol.pretrain_on}"
            start = setting.pretraining(kind, pretrain_on, protocol.steps_of(before, len(pretrain_on)))
            yield start
            yield setting.finetuning(self.key, task, protocol.steps_of(after), start, self.layers)


class MultiTask(Arm):
    """One model on all tasks."""

    key = "multitask"
    label = "multi-task training"
    look = Look("s", "-", INK)

    def plan(self, setting: Setting) -> Iterator[Planned]:
        """One run."""
        yield setting.training(self.key, None, setting.protocol.steps_of(setting.protocol.steps, len(setting.tasks)))


class MultiTaskPerTask(Arm):
    """One model on all tasks, with output channels for each (`model.outputs: per_task`).

    Beside `multitask` of a base with `model.outputs: shared` it tells what an output for each task gains or costs.
    """

    key = "multitask_per_task"
    label = "multi-task, an output a task"
    look = Look("H", (0, (3, 1, 1, 1)), INK)

    def plan(self, setting: Setting) -> Iterator[Planned]:
        """One run."""
        steps = setting.protocol.steps_of(setting.protocol.steps, len(setting.tasks))
        planned = setting.training(self.key, None, steps)
        yield replace(planned, config=with_overrides(planned.config, {"model.outputs": "per_task"}))


class MultiTaskFinetune(Arm):
    """One model on all tasks, then trained on one of them; the two share the budget."""

    key = "multitask_finetune"
    label = "multi-task with fine-tuning"
    look = Look("D", (0, (5, 2)), INK)

    def plan(self, setting: Setting) -> Iterator[Planned]:
        """One pre-training, and a fine-tuning a task."""
        protocol, tasks = setting.protocol, setting.tasks
        union = setting.pretraining("union", tasks, protocol.steps_of(protocol.pretraining, len(tasks)))
        yield union
        for task in tasks:
            yield setting.finetuning(self.key, task, protocol.steps_of(protocol.finetuning), union, "all")


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        arm.key: arm
        for arm in (
            Dedicated(),
            Transfer(look=Look("^", (0, (5, 2)), "#6B7280")),
            Transfer("transfer_decoder", "transfer (decoder only)", "decoder", DECODER_LOOK),
            Transfer("transfer_head", "transfer (head only)", "head", Look("P", (0, (1, 1.2)), "#7A8290")),
            MultiTask(),
            MultiTaskPerTask(),
            MultiTaskFinetune(),
        )
    }
)


def find_arms(entries: Sequence[str | Mapping[str, Any]]) -> list[Arm]:
    """The arms that a protocol names.

    Args:
        entries: each the key of a built-in arm, the import path of a subclass of `Arm`, or a mapping with its
            `class_path` and perhaps `init_args`.

    Raises:
        ConfigError: there is no such arm, or it cannot be made.
    """
    return [ARMS[entry] if isinstance(entry, str) and entry in ARMS else _own_arm(entry) for entry in entries]


def _own_arm(entry: str | Mapping[str, Any]) -> Arm:
    from jsonargparse import ArgumentError, ArgumentParser  # when an arm needs it: its import takes time

    path = entry if isinstance(entry, str) else str(entry.get("class_path", ""))
    if "." not in path:
        fix = f"use some of: {', '.join(ARMS)}, or the class_path of an arm of your own"
        raise ConfigError(f"arms names {path or entry}", fix=fix)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Arm, "arm")
    try:
        arm: Arm = parser.instantiate(parser.parse_object({"arm": entry})).arm
    except (ArgumentError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"arms names {path}, which cannot be made ({reason})", fix="correct it") from None
    return arm
