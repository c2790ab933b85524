"""Records: which runs in the folder of an experiment are compared, and which are left out."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from medmtl.calibration.metrics.bins import BinTable
from medmtl.data.task import data_note
from medmtl.errors import DataError, RunError
from medmtl.experiment.analysis.finished import FinishedRun, read_run
from medmtl.experiment.analysis.metrics import metrics_in_common
from medmtl.experiment.plan.cell import Cell
from medmtl.experiment.plan.labels import ARMS_FILE, describe_keys, read_arms
from medmtl.files import TextError, read_json, resolved
from medmtl.quantity import Quantity
from medmtl.renamed import warn_of_names
from medmtl.runs.folder import RunFolder
from medmtl.typed import typed

DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)  # what a wrong file makes of it

_Place = tuple[str, str | None, int, int | None, int | None]  # arm, task, seed, fold, training cases


@dataclass(frozen=True)
class Records:
    """The runs that can be compared.

    Attributes:
        experiment: name of the experiment's folder.
        runs: the finished runs, one a cell, by name; one that is planned for several cells is listed for each.
        arms: the arms that have a run, in their order -> label and look, see `describe_arms`.
        missing: what could not be used, in sentences.
        notes: what a reader should know of the choice, in sentences.
    """

    experiment: str
    runs: tuple[FinishedRun, ...]
    arms: Mapping[str, Mapping[str, Any]]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Quantity]:
        """What the runs can be compared by."""
        return metrics_in_common(run.own_metrics for run in self.runs)

    @property
    def data_note(self) -> str:
        """The note that every figure of these data must carry; empty for patients."""
        tasks = [task for run in self.runs for task in run.config["data"]["tasks"].values()]
        return data_note(task["root"] for task in tasks)


def read_records(folder: Path) -> Records:
    """Read the finished runs of an experiment.

    Where the experiment has a plan (`jobs/`), only runs of planned cells and fingerprints count, whatever cell they
    were made for: runs of an earlier plan had other arms, settings or data. Without a plan any finished run may count;
    of several of one cell, it is the one that finished last (by the time of its `run.json`).

    Args:
        folder: the experiment, with `runs/` and, where it was planned by `medmtl experiment`, `jobs/`.

    Returns:
        The runs, and what was left out.

    Raises:
        RunError: there is no finished run.
    """
    planned = _planned(folder / "jobs")
    found: list[FinishedRun] = []
    finished, unfinished, unreadable = set(), [], []
    for path in sorted((folder / "runs").glob("*/run.json")):
        run = RunFolder(path.parent)
        try:
            record = run.read_manifest().get("experiment") or {}
            if not record.get("finished"):
                unfinished.append(run.path.name)
                continue
            finished.add(record["fingerprint"])
            if record["cell"] is not None:
                found.append(read_run(run, record))
        except (*DAMAGED, DataError, TextError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            unreadable.append(f"Run {run.path.name} cannot be read and is left out ({reason}).")
    if planned:  # unfinished runs of an earlier plan are not missing
        unfinished = [one.name for one in planned if one.fingerprint not in finished]
    runs, outdated, notes = _one_a_cell(found, planned, finished, folder / "runs")
    if not runs:
        raise RunError(
            " ".join([f"{folder} holds no finished run to compare", *unreadable, *outdated]),
            fix="run `medmtl experiment --config FILE` to the end, or name the folder of another experiment",
        )
    missing = [f"Not finished: {_listed(unfinished)}."] if unfinished else []
    notes += _other_versions(runs)
    warn_of_names({old: new for run in runs for old, new in run.renamed.items()}, str(folder / "runs"))
    return Records(
        resolved(folder).name,
        tuple(runs),
        _arms(folder / ARMS_FILE, {run.cell.arm for run in runs}),
        tuple(missing + unreadable + outdated),
        tuple(notes),
    )


def pooled_tables(runs: Iterable[FinishedRun]) -> dict[str, dict[str, dict[str, BinTable]]]:
    """Reliability bins of all cases, seeds and folds together.

    Args:
        runs: the runs to pool, all of one training-set size.

    Returns:
        Region -> arm -> task -> bins.
    """
    found: dict[str, dict[str, dict[str, list[BinTable]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run in runs:
        for task, regions in run.bins.items():
            for region, table in regions.items():
                found[region][run.cell.arm][task].append(table)
    return {
        region: {
            arm: {task: reduce(add, tables) for task, tables in by_task.items()} for arm, by_task in by_arm.items()
        }
        for region, by_arm in found.items()
    }


@dataclass(frozen=True)
class _PlannedRun:
    """A run that the experiment plans; without a cell it is a pre-training."""

    name: str
    fingerprint: str
    cell: Cell | None


def _planned(folder: Path) -> list[_PlannedRun]:
    planned = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            job = typed(dict[str, Any], read_json(path), "the job")
            known = {key: job[key] for key in ("name", "fingerprint", "cell") if key in job}
            planned.append(typed(_PlannedRun, known, "the job"))
        except (OSError, ValueError) as error:
            reason = f"{path} describes no training run ({error})"
            raise RunError(reason, fix="start `medmtl experiment` again") from None
    return planned


def _arms(path: Path, present: Collection[str]) -> dict[str, dict[str, Any]]:
    """The description of the arms that have a run: those of the plan in its order, and others after them."""
    planned = {key: about for key, about in read_arms(path).items() if key in present}
    others = describe_keys(set(present) - set(planned), beside=planned)
    return {**planned, **others}


def _one_a_cell(
    runs: Iterable[FinishedRun], planned: Iterable[_PlannedRun], finished: Collection[str], folder: Path
) -> tuple[list[FinishedRun], list[str], list[str]]:
    """The run of each cell that is compared; sentences on cells without one, and on runs that are left out."""
    plans, planned_as = {}, defaultdict(list)
    for one in planned:
        if one.cell is not None:
            plans[_place(one.cell)] = one
            planned_as[one.fingerprint].append(one.cell)
    cells: dict[_Place, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        for cell in planned_as.get(run.fingerprint, [run.cell]):
            cells[_place(cell)].append(replace(run, cell=cell))

    def rank(run: FinishedRun) -> tuple[int, str]:
        return RunFolder(folder / run.name).manifest.stat().st_mtime_ns, run.name

    kept, outdated, notes = [], [], []
    unplanned = [run for place, same in cells.items() for run in same if plans and place not in plans]
    if unplanned:
        budgets = {one.cell.budget.text for one in plans.values() if one.cell is not None}
        other = sorted({run.cell.budget.text for run in unplanned} - budgets)
        why = f", and the budgets differ ({'; '.join(other)})" if other else ""
        names = _listed(sorted(run.name for run in unplanned))
        notes.append(f"Not compared, since the experiment no longer plans them{why}: {names}.")
    for place, same in cells.items():
        plan = plans.get(place)
        if plans and plan is None:
            continue
        may_count = [run for run in same if plan is None or run.fingerprint == plan.fingerprint]
        if plan is not None and not may_count:
            why = "cannot be read" if plan.fingerprint in finished else "not finished"
            instead = f"{plan.name} is planned instead and {why}"
            outdated += [f"Run {run.name} was made under an earlier plan and is left out; {instead}." for run in same]
            continue
        newest = max(may_count, key=rank)
        kept.append(newest)
        if len(same) > 1:
            others = _listed(sorted(run.name for run in same if run is not newest))
            notes.append(f"Of several finished runs of one cell, {newest.name} counts; left out: {others}.")
    return sorted(kept, key=lambda run: run.name), outdated, notes


def _place(cell: Cell) -> _Place:
    """Its place in the comparison, whatever its budget."""
    return cell.arm, cell.task, cell.seed, cell.fold, cell.cases


def _other_versions(runs: Iterable[FinishedRun]) -> list[str]:
    """A sentence on each package whose version may explain a difference between runs."""
    notes = []
    for package in ("medmtl", "torch"):
        made_by: dict[str, list[str]] = defaultdict(list)
        for run in {run.name: run for run in runs}.values():
            if package in run.versions:
                made_by[run.versions[package]].append(run.name)
        if len(made_by) > 1:
            which = "; ".join(f"{version} ({_listed(names, 3)})" for version, names in sorted(made_by.items()))
            notes.append(f"The runs were made by different versions of {package}: {which}.")
    return notes


def _listed(names: list[str], at_most: int = 8) -> str:
    """Names in a sentence; of many, the first few and the number of the others."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
