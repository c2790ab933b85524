"""False alarms and power of rules for the verdict, simulated for tasks of unequal size and scale.

Five tasks as in `multitask-open.yaml`: 36, 9, 18, 18 and 18 training people, and 12, 3, 6, 6 and 6 held-out ones.
Scores are normal, of Student's t with 5 degrees of freedom, or of a gamma distribution, each with mean 0 and deviation
1 before tasks are given scales and centres of their own. Where the network remembers its training images their scores
vary 15 % less. An OOD image lies three deviations above the mean of the task that fits it best.

    python tests/benchmarks/verdict_rules.py
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from medmtl.ood.conformal import ConformalRule
from medmtl.ood.detectors.by_task import centre_and_spread

TRAINING, HELD_OUT, TESTED = (36, 9, 18, 18, 18), (12, 3, 6, 6, 6), 200
SHIFT, ALPHA = 3.0, 0.05
Floats = NDArray[np.float64]
Scores = list[Floats]

DRAWS: Mapping[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "Student t, 5": lambda rng, size: rng.standard_t(5, size=size) / np.sqrt(5 / 3),
    "gamma, 4": lambda rng, size: (rng.gamma(4, size=size) - 4) / 2,
}


def by_name(scores: Sequence[Floats]) -> dict[str, list[float]]:
    """Task -> scores."""
    return {f"task {number}": own.tolist() for number, own in enumerate(scores)}


def placed(scores: Scores, centre: Floats, scale: Floats) -> Scores:
    """Scores of each task with its centre and scale."""
    return [middle + width * own for own, middle, width in zip(scores, centre, scale, strict=True)]


def scaled(scores: Scores, found: Sequence[tuple[float, float]]) -> Scores:
    """The inverse of `placed`, with estimated centres and scales."""
    return [(own - middle) / width for own, (middle, width) in zip(scores, found, strict=True)]


def threshold(held_out: Scores, training: Scores | None, corrected: bool) -> float:
    """Of the pooled rule, with the training images as they are or corrected."""
    if training is None:
        return ConformalRule(by_name(held_out), ALPHA).threshold
    if corrected:
        return ConformalRule(by_name(held_out), ALPHA, training=by_name(training)).threshold
    joined = [np.concatenate(parts) for parts in zip(held_out, training, strict=True)]
    return ConformalRule({"all": np.concatenate(joined).tolist()}, ALPHA).threshold


RULES: Mapping[str, tuple[bool, bool, bool]] = {  # standardised by task, with training images, corrected
    "held-out, one scale for all tasks": (False, False, False),
    "held-out, standardised by task": (True, False, False),
    "held-out and training, standardised": (True, True, False),
    "held-out and training, standardised, corrected (ours)": (True, True, True),
}


def simulate(draw: str, tight: float, spread: float, repetitions: int) -> dict[str, tuple[float, float, float]]:
    """Rule -> false-alarm rate over the mix of tasks, that of the worst task, and power."""
    rng = np.random.default_rng(0)
    alarms = {name: np.zeros((repetitions, len(TRAINING))) for name in RULES}
    power = {name: np.zeros(repetitions) for name in RULES}
    for repetition in range(repetitions):
        centre, scale = spread * rng.normal(size=5), np.exp(spread * rng.normal(size=5))

        unit = {
            "training": [(1 - tight) * DRAWS[draw](rng, size) for size in TRAINING],
            "held-out": [DRAWS[draw](rng, size) for size in HELD_OUT],
            "tested": [DRAWS[draw](rng, TESTED) for _ in TRAINING],
            "foreign": [DRAWS[draw](rng, TESTED) + SHIFT for _ in TRAINING],
        }
        plain = {part: placed(own, centre, scale) for part, own in unit.items()}
        found = [centre_and_spread(own) for own in plain["training"]]
        standardised = {part: scaled(own, found) for part, own in plain.items()}
        for name, (by_task, trained, corrected) in RULES.items():
            scores = standardised if by_task else plain
            limit = threshold(scores["held-out"], scores["training"] if trained else None, corrected)
            alarms[name][repetition] = [np.mean(own > limit) for own in scores["tested"]]
            power[name][repetition] = np.mean([np.mean(own > limit) for own in scores["foreign"]])
    weights = np.array(HELD_OUT) / sum(HELD_OUT)
    return {
        name: (float(rates.mean(0) @ weights), float(rates.mean(0).max()), float(power[name].mean()))
        for name, rates in alarms.items()
    }


def main() -> None:
    """Print a table for every distribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    repetitions = parser.parse_args().repetitions
    console = Console(width=120)
    for draw in DRAWS:
        for spread in (0.0, 0.5):
            for tight in (0.0, 0.15):
                title = f"{draw}; tasks {'alike' if not spread else 'unlike'}; training scores {tight:.0%} tighter"
                table = Table("rule", "false alarms", "worst task", "power", title=title)
                for name, figures in simulate(draw, tight, spread, repetitions).items():
                    table.add_row(name, *(f"{figure:.3f}" for figure in figures))
                console.print(table)


if __name__ == "__main__":
    main()
