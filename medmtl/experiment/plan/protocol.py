"""Protocol: what an experiment compares, on how much training, and how its runs are started."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import yaml

from medmtl.errors import ConfigError
from medmtl.experiment.plan.cell import Budget

OTHERS: Final = "others"
EVERY_CASE: Final = "all"


@dataclass(frozen=True)
class Protocol:
    """An experiment: arms, budget, seeds, folds and training-set sizes, over one base configuration.

    Args:
        base: configuration that every training run derives from: a file, or the bare name of a shipped one.
        arms: what is compared, in the order of tables and figures; of a pair, the later arm is compared with the
            earlier one. dedicated: one model a task. transfer: pre-trained on `pretrain_on`, then trained on the task
            with all layers; transfer_decoder and transfer_head train only those. multitask: one model on all tasks.
            multitask_finetune: on all tasks, then on the task. An arm of your own: `class_path: mymodule.MyArm`, a
            subclass of `medmtl.experiment.Arm`.
        pretrain_on: what transfer is pre-trained on: `others`, the union of all other tasks, or the name of one task.
        budget: what arms have in common. steps: optimizer steps of a model, pre-training included. samples: patches
            of every task that a model is trained on (in expectation; the tasks of a union are drawn equally often).
        steps: optimizer steps a model, or steps' worth of patches a task.
        validations: validations of each training run, which choose its best weights.
        finetune_share: share of `steps` that fine-tuning gets where it shares a budget with the pre-training, which
            gets the rest.
        seeds: seeds of the training runs.
        folds: folds of a cross-validation by patient, each tested once; 1 = the base's own split.
        sizes: training cases a task at most, `all` for all of them; more than one gives learning curves.
        overrides: key -> value, set in the base for every run, such as `data.batch_size: 2`.
        finetune_overrides: key -> value of the model, set in fine-tuning runs after that, such as
            `model.optimizer.init_args.lr: 1.0e-3`.
        launcher: `local` starts processes on this machine, `slurm` submits jobs to a cluster.
        at_once: training runs at a time; on this machine each gets an equal share of the cores.
        cluster: options of submitit for `slurm`, such as `slurm_partition`, `timeout_min`, `gpus_per_node`.
    """

    base: str = "multitask.yaml"
    arms: list[str | dict[str, Any]] = field(default_factory=lambda: ["dedicated", "transfer", "multitask"])
    pretrain_on: str = OTHERS
    budget: Literal["steps", "samples"] = "steps"
    steps: int = 1000
    validations: int = 5
    finetune_share: float = 0.5
    seeds: list[int] = field(default_factory=lambda: [0])
    folds: int = 1
    sizes: list[int | Literal["all"]] = field(default_factory=lambda: [EVERY_CASE])
    overrides: dict[str, Any] = field(default_factory=dict)
    finetune_overrides: dict[str, Any] = field(default_factory=dict)
    launcher: Literal["local", "slurm"] = "local"
    at_once: int = 1
    cluster: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the domains.

        Raises:
            ConfigError: names the key, its value and what it may be.
        """
        for key in ("arms", "seeds", "sizes"):
            values = getattr(self, key)
            if not values or any(values.count(value) > 1 for value in values):  # entries may be mappings
                raise ConfigError(f"{key}={values}", fix="list one or more, each once")
        counts = {key: [getattr(self, key)] for key in ("steps", "validations", "folds", "at_once")}
        counts["sizes"] = [size for size in self.sizes if size != EVERY_CASE]
        for key, values in counts.items():
            if any(value < 1 for value in values):
                raise ConfigError(f"{key}={getattr(self, key)}", fix="use 1 or more")
        others = [key for key in self.finetune_overrides if not key.startswith("model.")]
        if others:
            raise ConfigError(f"finetune_overrides sets {others[0]}", fix="set only keys of the model there")
        if not 0 < self.finetune_share < 1:
            raise ConfigError(f"finetune_share={self.finetune_share}", fix="use a share between 0 and 1, such as 0.5")

    @property
    def finetuning(self) -> int:
        """Steps, or steps' worth of patches a task, of a fine-tuning that shares the budget with a pre-training."""
        return round(self.steps * self.finetune_share)

    @property
    def pretraining(self) -> int:
        """Steps, or steps' worth of patches a task, of that pre-training."""
        return self.steps - self.finetuning

    def steps_of(self, share: int, tasks: int = 1) -> int:
        """Optimizer steps of one training run.

        Args:
            share: its part of the budget: `steps`, or less.
            tasks: how many tasks it trains on; under the budget `samples` each adds to the length.

        Raises:
            ConfigError: the validations do not divide them.
        """
        steps = share * (tasks if self.budget == "samples" else 1)
        if steps < 1 or steps % self.validations:
            raise ConfigError(
                f"steps={self.steps}: a training run of {steps} steps cannot be divided into {self.validations} parts",
                fix=f"use a multiple of {self.validations} that stays one with finetune_share={self.finetune_share:g}",
            )
        return steps

    def budget_of(self, batch_size: int) -> Budget:
        """The budget as the runs' records keep it."""
        return Budget(self.budget, self.steps, batch_size, self.validations)

    def to_yaml(self) -> str:
        """The protocol as a configuration that gives it again."""
        return yaml.safe_dump(asdict(self), sort_keys=False)
