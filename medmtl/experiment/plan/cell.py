"""Cell: what a training run of an experiment is compared as, and its budget."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from medmtl.typed import typed


@dataclass(frozen=True)
class Budget:
    """How much training each arm has, which makes them comparable.

    Attributes:
        notion: `steps`: every final model was trained for the same number of optimizer steps, those of its pre-training
            included; `samples`: each model was trained on the same number of patches of every task of its training.
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
        """The budget as a text for tables."""
        if self.notion == "steps":
            return f"{self.steps:,} optimizer steps of {self.batch_size} patches a model, pre-training included"
        return f"{self.steps * self.batch_size:,} patches of each task"


@dataclass(frozen=True)
class Cell:
    """One tested training run, as a cell of the comparison.

    Attributes:
        experiment: name of the experiment.
        arm: key of the arm.
        task: the task that its test is about; None for all tasks.
        seed: seed of the run.
        fold: fold of the cross-validation; None without one.
        cases: training cases a task at most; None for all.
        budget: how much training it had.
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
        """The cell that `to_dict` gave.

        Raises:
            ValueError: it is something else.
        """
        return typed(cls, state, "the cell")
