"""Finished: what one finished run of an experiment found, read from the files that it wrote."""

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

from medmtl.calibration.metrics.bins import BinTable
from medmtl.data.splits import read_splits
from medmtl.experiment.plan.cell import ARMS, Cell
from medmtl.results.compared import COMPARED
from medmtl.runs.folder import RunFolder

METRICS = {
    key: {"better": "higher" if quantity.higher_is_better else "lower", "unit": quantity.unit}
    for key, quantity in COMPARED.items()
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
        versions: package -> its version at the training; empty for a run that kept none.
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
    versions: Mapping[str, str]
    fingerprint: str
    config: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, list[str]]]
    cases: Mapping[str, list[ScoredCase]]
    bins: Mapping[str, Mapping[str, BinTable]]


def read_run(run: RunFolder, record: Mapping[str, Any]) -> FinishedRun:
    """Read a finished run.

    Args:
        run: its folder.
        record: what its `run.json` says of its place in the experiment.

    Raises:
        OSError, ValueError, KeyError, TypeError, yaml.YAMLError, DataError: a file is missing or damaged.
    """
    cell = Cell.from_dict(record["cell"])
    if cell.arm not in ARMS:
        raise ValueError(f"its arm {cell.arm} is none of {', '.join(ARMS)}")
    cases = _read_cases(run.report / "cases.csv", cell.task)
    config, splits = yaml.safe_load(run.config.read_text()), read_splits(run.splits)
    for file, tasks in ((run.config, config["data"]["tasks"]), (run.splits, splits)):
        if not set(cases) <= set(tasks):
            raise ValueError(f"{file.name} lacks task {min(set(cases) - set(tasks))}, which was tested")
    training = run.read_manifest().get("fit", {})
    return FinishedRun(
        name=run.path.name,
        cell=cell,
        steps=record["steps"],
        processes=training.get("processes", 1),
        versions=training.get("versions", {}),
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
        task, case = row["dataset"], row["case"]
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
