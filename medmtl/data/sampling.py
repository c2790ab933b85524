"""Which case the next patch comes from: P(task) proportional to n_task^a, reproducible for every epoch."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from medmtl.errors import ConfigError


class Draw(NamedTuple):
    """One patch to draw: from which task and case, with which random state."""

    task: str
    case: int
    seed: int


def task_probabilities(sizes: Mapping[str, int], balance: float) -> dict[str, float]:
    """P(task) = n_task^a / sum of n^a (MultiTalent, arXiv 2303.14444, uses a = 1/2).

    Args:
        sizes: task -> number of training cases, all above 0.
        balance: the exponent a, in [0, 1]; 0 = all tasks equally often, 1 = all cases equally often.

    Raises:
        ConfigError: the exponent is outside [0, 1].
    """
    if not 0 <= balance <= 1:
        raise ConfigError(f"data.balance={balance}", fix="use a number from 0 (equal tasks) to 1 (equal cases)")
    weights = {task: float(size) ** balance for task, size in sizes.items()}
    total = sum(weights.values())
    return {task: weight / total for task, weight in weights.items()}


class BalancedSampler(Sampler[Draw]):
    """Draws tasks with `task_probabilities`, and within a task runs through its cases in a shuffled order.

    Epoch `e` is the same whenever it is drawn, so that a resumed run goes on as if it had never stopped. (Lightning
    calls `set_epoch`.)

    Args:
        sizes: task -> number of training cases.
        balance: exponent of the sizes, see `task_probabilities`.
        draws: number of draws in an epoch.
        seed: seed of the whole run.
    """

    def __init__(self, sizes: Mapping[str, int], balance: float, draws: int, seed: int = 0) -> None:
        self.sizes = dict(sizes)
        self.probabilities = task_probabilities(sizes, balance)
        self.draws = draws
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Draws in an epoch."""
        return self.draws

    def __iter__(self) -> Iterator[Draw]:
        """Yield the draws of the epoch."""
        generator = np.random.default_rng((self.seed, self.epoch))
        names = list(self.sizes)
        chosen = generator.choice(len(names), size=self.draws, p=[self.probabilities[name] for name in names])
        seeds = generator.integers(2**32, size=self.draws)
        waiting: dict[str, list[int]] = {name: [] for name in names}
        for number, seed in zip(chosen, seeds, strict=True):
            name = names[number]
            if not waiting[name]:
                waiting[name] = generator.permutation(self.sizes[name]).tolist()
            yield Draw(name, waiting[name].pop(), int(seed))
