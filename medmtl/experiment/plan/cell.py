"""Cell: what a training run of an experiment is compared as, and the budget it was given."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

# The order in tables and figures; of a pair, the later arm is compared with the earlier one.
ARMS = ("dedicated", "transfer", "transfer_decoder", "transfer_head", "multitask", "multitask_finetune")


@dataclass(frozen=True)
class Budget:
    """What makes arms comparable.

    Attributes:
        notion: `steps`: every final model has had the same number of optimizer steps, those of its pre-training
            included; `samples`: every task has been seen in the same number of patches by each model trained on it.
        steps: optimizer steps a model (notion `steps`), or steps' worth of patches a task (notion `samples`).
        batch_size: patches in a step.
        validations: how often each training run is validated to choose its best weights.
    """

    notion: Literal["steps", "samples"]
    steps: int
    batch_size: int
    validations: int

    @property
    def text(self) -> str:
        """The budget in words, for tables."""
        if self.notion == "steps":
            return f"{self.steps:,} optimizer steps of {self.batch_size} patches a model, pre-training included"
        return f"{self.steps * self.batch_size:,} patches of each task"


@dataclass(frozen=True)
class Cell:
    """One tested training run, as a cell of the comparison.

    Attributes:
        experiment: name of the experiment.
        arm: one of `ARMS`.
        task: the task that its test is about; None for all tasks.
        seed: seed of the run.
        fold: fold of the cross-validation; None without one.
        cases: training cases a task at most; None for all.
        budget: what it was given.
    """

    experiment: str
    arm: str
    task: str | None
    seed: int
    fold: int | None
    cases: int | None
    budget: Budget

    def to_dict(self) -> dict[str, Any]:
        """The cell as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Cell":
        """The cell that `to_dict` gave."""
        return cls(**{**state, "budget": Budget(**state["budget"])})
