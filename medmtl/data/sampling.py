"""Which case the next patch comes from, P(task) proportional to n_task^a, and which volumes a process scores.

Several processes share out what a single one would have drawn or scored, without repeating any of it.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

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
    calls `set_epoch`.) All processes walk the same order, and each takes its turn: together they draw what one process
    would have drawn, so that no case repeats before all of its task were drawn.

    Args:
        sizes: task -> number of training cases.
        balance: exponent of the sizes, see `task_probabilities`.
        draws: number of draws in an epoch, of all processes together.
        seed: seed of the whole run.
        rank: number of this process; it takes the draws `rank`, `rank + processes`, ...
        processes: how many share the draws.
        done: draws of this process that the first iteration leaves out: a training that was stopped in the middle of
            an epoch has seen them.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        balance: float,
        draws: int,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        done: int = 0,
    ) -> None:
        self.sizes = dict(sizes)
        self.probabilities = task_probabilities(sizes, balance)
        self.draws = draws
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.done = done
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Draws of this process in an epoch."""
        return len(range(self.rank, self.draws, self.processes))

    def __iter__(self) -> Iterator[Draw]:
        """Yield this process's draws of the epoch."""
        done, self.done = self.done, 0
        return islice(self._of_all_processes(), self.rank + done * self.processes, None, self.processes)

    def _of_all_processes(self) -> Iterator[Draw]:
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


class Share(Dataset[dict[str, Any] | None]):
    """The volumes that one of several processes scores: every `processes`-th, from its rank on.

    All shares are equally long, since a step that only some processes make would leave them waiting for the others: a
    process that has run out gets None.

    Args:
        volumes: the whole series.
        rank: number of this process.
        processes: how many share the series.
    """

    def __init__(self, volumes: Dataset[dict[str, Any]], rank: int = 0, processes: int = 1) -> None:
        self.volumes = volumes
        self.rank = rank
        self.processes = processes
        self._total = len(volumes)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Steps of each process."""
        return -(-self._total // self.processes)

    def __getitem__(self, step: int) -> dict[str, Any] | None:
        """Return a volume, or None."""
        index = step * self.processes + self.rank
        return self.volumes[index] if index < self._total else None
