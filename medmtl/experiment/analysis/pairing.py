"""Pairing: which runs of two arms may be compared on a task, and why others may not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmtl.data.splits import PARTS
from medmtl.experiment.analysis.finished import FinishedRun

# What runs must have in common besides the task's preprocessing: network, loss, patches, prediction, measurement.
# Calibration metrics of a user's own do not count: arms are compared by those that all runs have.
ALIKE = (
    "model.network",
    "model.loss",
    "model.overlap",
    "data.patch_size",
    "data.batch_size",
    "data.foreground",
    "calibration.bins",
    "calibration.regions",
)

OUT_CHANNELS = "model.network.init_args.out_channels"

WORDS = dict(zip(PARTS, ("training", "validation", "test"), strict=True))

Pair = tuple[FinishedRun, FinishedRun]


@dataclass(frozen=True)
class Pairing:
    """Two arms on one task.

    Attributes:
        runs: pairs of one seed and fold, in their order; empty if refused.
        refused: why they are not compared; None if they are.
        left_out: which seeds and folds only one of the arms has; None if there are none.
    """

    runs: Sequence[Pair]
    refused: str | None = None
    left_out: str | None = None


def pair_runs(task: str, a: str, b: str, runs_a: Sequence[FinishedRun], runs_b: Sequence[FinishedRun]) -> Pairing:
    """Pair the runs of two arms by seed and fold, or refuse.

    Runs that differ in more than the arm are refused: other cases in a part of the same fold, another budget, or
    another network, loss, preprocessing, patch or batch size.

    Args:
        task: the task.
        a: one arm.
        b: the other arm.
        runs_a: runs of `a` that were tested on the task, one a seed and fold.
        runs_b: those of `b`.
    """
    lacking = [arm for arm, runs in ((a, runs_a), (b, runs_b)) if not runs]
    if lacking:
        return Pairing([], f"there is no finished run of {' nor of '.join(lacking)}")
    keys_a, keys_b = ({(run.cell.seed, run.cell.fold): run for run in runs} for runs in (runs_a, runs_b))
    common = sorted(keys_a.keys() & keys_b.keys(), key=str)
    if not common:
        return Pairing([], "no finished runs have seed and fold in common")
    pairs = [(keys_a[key], keys_b[key]) for key in common]
    difference = next(_differences(task, pairs), None)
    if difference:
        return Pairing([], difference)
    alone = [f"{_as_text(*key)} of {a}" for key in keys_a if key not in keys_b]
    alone += [f"{_as_text(*key)} of {b}" for key in keys_b if key not in keys_a]
    return Pairing(pairs, left_out=", ".join(alone) or None)


def runs_in_common(
    task: str, runs: Mapping[str, Sequence[FinishedRun]]
) -> tuple[Mapping[str, Sequence[FinishedRun]], list[str]]:
    """The runs that the means of arms are taken over: those of the seeds and folds that all of these arms have.

    So means of different arms differ only by the arms, and two arms' means by their paired difference.

    Args:
        task: the task.
        runs: arm -> its runs that were tested on the task, at least one each.

    Returns:
        Arm -> its runs of these seeds and folds, and a sentence an arm on what that leaves out. Where no seed and fold
        is common to all, each arm keeps its own, with one sentence on that.
    """
    keys = {arm: {(run.cell.seed, run.cell.fold): run for run in found} for arm, found in runs.items()}
    common = set.intersection(*(set(found) for found in keys.values()))
    if not common:
        return runs, [f"{task}: no seed and fold is common to all arms: their means are over different seeds or folds."]
    left_out = {arm: [_as_text(*key) for key in found if key not in common] for arm, found in keys.items()}
    sentences = [
        f"{arm} on {task}: its means leave out {', '.join(names)}, which not all arms have."
        for arm, names in left_out.items()
        if names
    ]
    return {arm: [run for key, run in found.items() if key in common] for arm, found in keys.items()}, sentences


def _differences(task: str, pairs: Sequence[Pair]) -> Iterator[str]:
    """Differences between the runs, as text; none if they may be compared."""
    for first, second in pairs:
        where = "" if first.cell.fold is None else f" of fold {first.cell.fold}"
        both = [({case.case for case in run.cases[task]}, run.splits[task]) for run in (first, second)]
        (tested, split), (other_tested, other_split) = both
        parts = [("tested", tested, other_tested)]
        parts += [(word, set(split[part]), set(other_split[part])) for part, word in WORDS.items()]
        for word, own, other in parts:
            if own != other:
                more, cases = (first, own - other) if own - other else (second, other - own)
                others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
                yield f"the {word} cases{where} differ: only {more.name} has {min(cases)}{others}"
    runs = [run for pair in pairs for run in pair]
    for run in runs:
        if run.cell.budget != runs[0].cell.budget:
            budgets = [_budget(one) for one in (runs[0], run)]
            yield f"the budgets differ: {', '.join(budgets)}"
        if run.processes != runs[0].processes:  # each process draws a batch
            counts = ", ".join(f"{one.processes} ({one.name})" for one in (runs[0], run))
            yield f"the processes that shared the training differ: {counts}"
    expected, *settings = [_settings(run.config, task) for run in runs]
    for run, found in zip(runs[1:], settings, strict=True):
        keys = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        if keys:
            key, others = keys[0], f", and {len(keys) - 1} more settings" if len(keys) > 1 else ""
            values = f"{expected.get(key)} ({runs[0].name}) and {found.get(key)} ({run.name})"
            yield f"{key} differs: {values}{others}"


def _budget(run: FinishedRun) -> str:
    budget = run.cell.budget
    plural = "" if budget.validations == 1 else "s"
    return f"{budget.text} and {budget.validations} validation{plural} ({run.name})"


def _settings(config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What runs must have in common, flat: key with dots -> value. The location of the data does not count."""
    preprocessing = {key: value for key, value in config["data"]["tasks"][task].items() if key != "root"}
    found = _flat(f"data.tasks.{task}", preprocessing)
    for key in ALIKE:
        section, _, name = key.partition(".")
        value = config.get(section) or {}
        found |= _flat(key, value.get(name) if name else value)
    # Output channels follow from whether a network has one output for all tasks, or one for each.
    return {key: value for key, value in found.items() if key != OUT_CHANNELS}


def _flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {key: value}
    return {name: leaf for part, inner in value.items() for name, leaf in _flat(f"{key}.{part}", inner).items()}


def _as_text(seed: int, fold: int | None) -> str:
    return f"seed {seed}" if fold is None else f"seed {seed} fold {fold}"
