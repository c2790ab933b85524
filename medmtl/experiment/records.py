"""Records: what the finished runs of an experiment's folder found, read from the files that they wrote."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import yaml

from medmtl.calibration.bins import BinTable
from medmtl.data.splits import read_splits
from medmtl.data.task import data_note
from medmtl.errors import DataError, RunError
from medmtl.experiment.cell import ARMS, Cell
from medmtl.run import RunFolder

# What arms are compared by: columns of `cases.csv`.
METRICS = {
    "dice": {"better": "higher", "unit": ""},
    "hd95_mm": {"better": "lower", "unit": "mm"},
    "asd_mm": {"better": "lower", "unit": "mm"},
    "ece_band": {"better": "lower", "unit": ""},
    "ace_band": {"better": "lower", "unit": ""},
    "brier_band": {"better": "lower", "unit": ""},
    "nll_band": {"better": "lower", "unit": "nats"},
}


@dataclass(frozen=True)
class ScoredCase:
    """A case as one run segmented it.

    Attributes:
        case: its name, unique within its task.
        patient: whose image it is; the same name in another task is the same person.
        values: each of `METRICS` -> its value, NaN where it is undefined.
    """

    case: str
    patient: str
    values: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that was trained and tested to the end.

    Attributes:
        name: of its folder.
        cell: what it is compared as.
        steps: optimizer steps that it was trained for.
        processes: processes that shared the training, each with a batch of its own.
        fingerprint: of its configuration and data.
        config: the resolved configuration.
        splits: task -> part -> cases.
        cases: task -> its test cases.
        bins: task -> region -> reliability bins of its test cases together; empty for a run that kept none.
    """

    name: str
    cell: Cell
    steps: int
    processes: int
    fingerprint: str
    config: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, list[str]]]
    cases: Mapping[str, list[ScoredCase]]
    bins: Mapping[str, Mapping[str, BinTable]]


@dataclass(frozen=True)
class Records:
    """What there is to compare.

    Attributes:
        experiment: name of the experiment's folder.
        runs: the finished runs, one a cell, by name.
        missing: what could not be used, in sentences.
        notes: what a reader should know of the choice, in sentences.
    """

    experiment: str
    runs: tuple[FinishedRun, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def data_note(self) -> str:
        """What every figure of these data must say; nothing for patients."""
        tasks = [task for run in self.runs for task in run.config["data"]["tasks"].values()]
        return data_note(task["root"] for task in tasks)


def read_records(folder: Path) -> Records:
    """Read the finished runs of an experiment.

    Of several finished runs of one cell one counts: one that the experiment still plans (`jobs/`) before others, and
    among those the one that finished last (by the time of its `run.json`).

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
                found.append(_read_run(run, record))
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, DataError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            unreadable.append(f"Run {run.path.name} cannot be read and is left out ({reason}).")
    if planned:  # what an earlier plan left behind is not missed
        unfinished = [name for fingerprint, name in planned.items() if fingerprint not in finished]
    if not found:
        raise RunError(
            " ".join([f"{folder} holds no finished run to compare", *unreadable]),
            fix="run `medmtl experiment --config FILE` to the end, or name the folder of another experiment",
        )
    runs, notes = _one_a_cell(found, set(planned), folder / "runs")
    missing = [f"Not finished: {_listed(unfinished)}."] if unfinished else []
    return Records(folder.resolve().name, tuple(runs), tuple(missing + unreadable), tuple(notes))


def pooled_tables(runs: Iterable[FinishedRun]) -> dict[str, dict[str, dict[str, BinTable]]]:
    """Reliability bins of all cases, seeds and folds together.

    Args:
        runs: the runs to pool, all of one training-set size.

    Returns:
        Region -> arm -> task -> bins, arms in their usual order.
    """
    found: dict[str, dict[str, dict[str, list[BinTable]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run in sorted(runs, key=lambda run: ARMS.index(run.cell.arm)):
        for task, regions in run.bins.items():
            for region, table in regions.items():
                found[region][run.cell.arm][task].append(table)
    return {
        region: {
            arm: {task: reduce(add, tables) for task, tables in by_task.items()} for arm, by_task in by_arm.items()
        }
        for region, by_arm in found.items()
    }


def _planned(folder: Path) -> dict[str, str]:
    """Fingerprint -> name of each run that the experiment plans."""
    planned: dict[str, str] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            job = json.loads(path.read_text())
            planned[job["fingerprint"]] = job["name"]
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{path} describes no training run", fix="start `medmtl experiment` again") from None
    return planned


def _read_run(run: RunFolder, record: Mapping[str, Any]) -> FinishedRun:
    cell = Cell.from_dict(record["cell"])
    if cell.arm not in ARMS:
        raise ValueError(f"its arm {cell.arm} is none of {', '.join(ARMS)}")
    cases = _read_cases(run.report / "cases.csv", cell.task)
    config, splits = yaml.safe_load(run.config.read_text()), read_splits(run.splits)
    for file, tasks in ((run.config, config["data"]["tasks"]), (run.splits, splits)):
        if not set(cases) <= set(tasks):
            raise ValueError(f"{file.name} lacks task {min(set(cases) - set(tasks))}, which was tested")
    return FinishedRun(
        name=run.path.name,
        cell=cell,
        steps=record["steps"],
        processes=run.read_manifest().get("fit", {}).get("processes", 1),
        fingerprint=record["fingerprint"],
        config=config,
        splits=splits,
        cases=cases,
        bins=_read_bins(run.report / "bins.json", cases),
    )


def _read_cases(path: Path, only: str | None) -> dict[str, list[ScoredCase]]:
    """Labelled test cases by task; of one task alone if the run is about that."""
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["expected"] == "in" and row["dice"]]
    cases: dict[str, dict[str, ScoredCase]] = defaultdict(dict)
    for row in rows:
        task, case = row["source"], row["case"]
        if only not in (None, task):
            continue
        if case in cases[task]:
            raise ValueError(f"{path.name} lists case {case} of {task} twice")
        values = {metric: float(row.get(metric) or math.nan) for metric in METRICS}
        cases[task][case] = ScoredCase(case, row.get("patient") or case, values)
    if not cases:
        raise ValueError(f"{path.name} has no labelled test case" + (f" of {only}" if only else ""))
    return {task: list(found.values()) for task, found in cases.items()}


def _read_bins(path: Path, cases: Mapping[str, Iterable[ScoredCase]]) -> dict[str, dict[str, BinTable]]:
    """Task -> region -> bins of the given cases together."""
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text())
    pooled: dict[str, dict[str, BinTable]] = {}
    for task, tested in cases.items():
        tables: dict[str, list[BinTable]] = defaultdict(list)
        for case in tested:
            for region, state in kept.get(task, {}).get(case.case, {}).items():
                tables[region].append(BinTable.from_dict(state))
        pooled[task] = {region: reduce(add, found) for region, found in tables.items()}
    return pooled


def _one_a_cell(runs: list[FinishedRun], planned: set[str], folder: Path) -> tuple[list[FinishedRun], list[str]]:
    """The run of each cell that counts, and sentences that name the others."""
    cells: dict[tuple[Any, ...], list[FinishedRun]] = defaultdict(list)
    for run in runs:
        cell = run.cell
        cells[cell.arm, cell.task, cell.seed, cell.fold, cell.cases].append(run)

    def rank(run: FinishedRun) -> tuple[bool, int, str]:
        finished = RunFolder(folder / run.name).manifest.stat().st_mtime_ns
        return run.fingerprint in planned, finished, run.name

    kept, notes = [], []
    for same in cells.values():
        *older, newest = sorted(same, key=rank)
        kept.append(newest)
        if older:
            others = _listed(sorted(run.name for run in older))
            notes.append(f"Of several finished runs of one cell, {newest.name} counts; left out: {others}.")
    return sorted(kept, key=lambda run: run.name), notes


def _listed(names: list[str], at_most: int = 8) -> str:
    """Names in a sentence; of many the first few and how many there are besides."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
