"""Several processes that share the work: rank and size, and results of all processes in the order of a single one."""

import os
from collections.abc import Mapping
from typing import TypeVar

from torch import distributed

Found = TypeVar("Found")

# What Lightning's launcher, torchrun and SLURM set; the first process has 0 in each that is set.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
# How many processes torchrun and `srun` started.
SIZES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def is_first() -> bool:
    """Whether this is the first process of the command, as its launcher says: true for one that runs alone.

    This works before the process group is initialised; afterwards Lightning's `trainer.is_global_zero` is the same.
    """
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def launched_from_outside() -> bool:
    """Whether torchrun, SLURM or a user on several nodes started the processes, rather than Lightning."""
    return any(int(os.environ.get(name) or 1) > 1 for name in SIZES) or not is_first()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place() -> tuple[int, int]:
    """Rank and number of processes; 0 and 1 before the process group is initialised, or for one alone."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def gather(found: Mapping[int, Found]) -> list[Found]:
    """Gather the results of all processes for their shares of a series, in the order of the series.

    Every process must call it, and each gets all results. Nothing is averaged or rounded, so that figures computed
    from them are those of a single process.

    Args:
        found: number of the step in this process's share -> its result; in step `i` the process of rank `r` has the
            item `i * processes + r` of the series (`data.sampling.Share`). Steps may be missing. Tensors must be on
            the CPU: they would otherwise crowd the sender's device on every process.
    """
    parts: list[Mapping[int, Found]] = [found]
    if distributed.is_initialized():
        parts = [{} for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(parts, dict(found))
    steps = sorted({step for part in parts for step in part})
    return [part[step] for step in steps for part in parts if step in part]


def part() -> None:
    """Destroy the process group, so that the next command in this process works alone."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
