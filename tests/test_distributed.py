"""Several processes: which is the first, who started them, and what they found, in the order of a single one."""

import random
from typing import Any

import pytest
from torch import distributed

from medmtl.distributed import RANKS, SIZES, gather, is_first, launched_from_outside, place


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*RANKS, *SIZES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "first", "outside"),
    [
        ({}, True, False),
        # One process under torchrun or SLURM.
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, True, False),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, True, False),
        # torchrun: the second process of the first node, the first of the second.
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, True, True),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, False, True),
        ({"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, False, True),
        # srun.
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, True, True),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, False, True),
        # A user who starts the command on each node.
        ({"NODE_RANK": "1"}, False, True),
        # What Lightning leaves in the first process after a training.
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True, False),
    ],
)
def test_the_launcher_says_which_process_this_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], first: bool, outside: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first
    assert launched_from_outside() is outside


def test_one_process_has_everything_in_its_order() -> None:
    assert place() == (0, 1)
    assert gather({2: "c", 0: "a", 7: "h"}) == ["a", "c", "h"]
    assert gather({}) == []


@pytest.mark.parametrize(("length", "processes"), [(8, 2), (7, 2), (7, 3), (2, 4), (0, 2)])
def test_what_processes_found_is_in_the_order_of_the_series(
    monkeypatch: pytest.MonkeyPatch, length: int, processes: int
) -> None:
    # Some steps find nothing, such as those of images without a label.
    kept = [number for number in range(length) if number % 5 != 1]
    parts = [
        {step: number for step, number in enumerate(range(rank, length, processes)) if number in kept}
        for rank in range(processes)
    ]

    def all_gather_object(found: list[Any], own: dict[int, int]) -> None:
        assert own == parts[0]
        found[:] = parts

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: processes)
    monkeypatch.setattr(distributed, "all_gather_object", all_gather_object)
    items = list(parts[0].items())
    random.Random(0).shuffle(items)
    assert gather(dict(items)) == kept
