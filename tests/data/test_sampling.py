"""Sampling: P(task) proportional to n^a, epochs that can be drawn again, cases visited in turn."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from medmtl.data.sampling import BalancedSampler, Draw, Share, task_probabilities
from medmtl.errors import ConfigError

SIZES = {"Large": 100, "Middle": 25, "Small": 4}


def drawn(sampler: BalancedSampler, epoch: int) -> list[Draw]:
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (0, {"Large": 1 / 3, "Middle": 1 / 3, "Small": 1 / 3}),
        (0.5, {"Large": 10 / 17, "Middle": 5 / 17, "Small": 2 / 17}),
        (1, {"Large": 100 / 129, "Middle": 25 / 129, "Small": 4 / 129}),
    ],
)
def test_tasks_are_drawn_as_often_as_the_balance_says(balance: float, expected: dict[str, float]) -> None:
    assert task_probabilities(SIZES, balance) == pytest.approx(expected)
    sampler = BalancedSampler(SIZES, balance, draws=20_000, seed=1)
    counts = Counter(draw.task for epoch in range(2) for draw in drawn(sampler, epoch))
    observed = [counts[task] for task in SIZES]
    assert chisquare(observed, [40_000 * expected[task] for task in SIZES]).pvalue > 1e-3


def test_cases_of_a_task_are_drawn_equally_often() -> None:
    counts = Counter(draw.case for draw in BalancedSampler({"A": 7}, 0.5, draws=7 * 50))
    assert counts == dict.fromkeys(range(7), 50)


def test_every_case_of_a_task_is_visited_before_any_repeats() -> None:
    for epoch in range(5):
        draws = drawn(BalancedSampler(SIZES, 0.5, draws=1000, seed=2), epoch)
        for task, size in SIZES.items():
            cases = [draw.case for draw in draws if draw.task == task]
            rounds = [cases[start : start + size] for start in range(0, len(cases), size)]
            assert all(len(set(turn)) == len(turn) for turn in rounds)
            assert len({tuple(turn) for turn in rounds[:-1]}) > 1


def test_an_epoch_is_the_same_whenever_it_is_drawn() -> None:
    sampler = BalancedSampler(SIZES, 0.5, draws=200, seed=3)
    epochs = [drawn(sampler, epoch) for epoch in range(4)]
    resumed = BalancedSampler(SIZES, 0.5, draws=200, seed=3)
    assert [drawn(resumed, epoch) for epoch in (3, 1)] == [epochs[3], epochs[1]]
    assert all(one != other for number, one in enumerate(epochs) for other in epochs[:number])


def test_an_epoch_that_was_stopped_goes_on_after_what_was_drawn() -> None:
    for processes in (1, 2):
        for rank in range(processes):
            whole, halved = (BalancedSampler(SIZES, 0.5, 200, 3, rank, processes, done) for done in (0, 70))
            assert len(halved) == len(whole)
            for epoch, done in ((3, 70), (4, 0)):
                assert drawn(halved, epoch) == drawn(whole, epoch)[done:]


def test_another_seed_draws_other_patches() -> None:
    one, other = (list(BalancedSampler(SIZES, 0.5, draws=200, seed=seed)) for seed in (0, 1))
    assert one != other
    assert not {draw.seed for draw in one} & {draw.seed for draw in other}


def test_each_draw_has_a_random_state_of_its_own() -> None:
    draws = list(BalancedSampler(SIZES, 0.5, draws=1000))
    assert len({draw.seed for draw in draws}) == 1000
    assert np.ptp([draw.seed for draw in draws]) > 2**31


def test_an_epoch_has_the_length_that_was_asked_for() -> None:
    sampler = BalancedSampler(SIZES, 0.5, draws=17)
    assert len(sampler) == len(list(sampler)) == 17
    assert all(0 <= draw.case < SIZES[draw.task] for draw in sampler)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_draw_together_what_one_would_draw(processes: int) -> None:
    options = {"balance": 0.5, "draws": 200, "seed": 4}
    alone = BalancedSampler(SIZES, **options)
    shares = [BalancedSampler(SIZES, **options, rank=rank, processes=processes) for rank in range(processes)]
    for epoch in range(3):
        expected, found = drawn(alone, epoch), [drawn(share, epoch) for share in shares]
        assert [len(share) for share in shares] == [len(draws) for draws in found]
        together = [found[number % processes][number // processes] for number in range(200)]
        assert together == expected


def test_batches_of_two_processes_are_a_batch_of_twice_the_size() -> None:
    alone = list(BalancedSampler(SIZES, 0.5, draws=24))
    ranks = [list(BalancedSampler(SIZES, 0.5, draws=24, rank=rank, processes=2)) for rank in range(2)]
    for batch in range(4):
        shared = [draw for draws in ranks for draw in draws[3 * batch : 3 * batch + 3]]
        assert set(shared) == set(alone[6 * batch : 6 * batch + 6])


def test_no_case_repeats_over_all_processes_before_every_case_was_drawn() -> None:
    ranks = [list(BalancedSampler({"A": 10}, 1, draws=30, rank=rank, processes=3)) for rank in range(3)]
    for turn in range(3):
        steps = range(10 * turn, 10 * turn + 10)
        assert sorted(ranks[step % 3][step // 3].case for step in steps) == list(range(10))


@pytest.mark.parametrize(("volumes", "processes"), [(7, 1), (7, 2), (8, 2), (7, 3), (1, 3), (0, 2)])
def test_every_volume_is_in_one_share_and_shares_are_equally_long(volumes: int, processes: int) -> None:
    series = [{"case": number} for number in range(volumes)]
    shares = [Share(series, rank, processes) for rank in range(processes)]
    found = [[share[step] for step in range(len(share))] for share in shares]
    assert len({len(items) for items in found}) == 1
    in_turn = [item for step in zip(*found, strict=True) for item in step]
    assert in_turn[:volumes] == series
    assert in_turn[volumes:] == [None] * (len(in_turn) - volumes)
    assert len(in_turn) - volumes < processes


@pytest.mark.parametrize("balance", [-0.1, 1.1, float("nan")])
def test_a_balance_outside_its_domain_is_refused_by_its_key(balance: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.balance"):
        BalancedSampler(SIZES, balance, draws=1)
