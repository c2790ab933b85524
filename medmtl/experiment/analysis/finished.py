"""Results of one finished run of an experiment, read from the files that it wrote."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.bins import BinTable
from medmtl.data.splits import read_splits
from medmtl.experiment.analysis.metrics import own_metrics
from medmtl.experiment.plan.cell import Cell
from medmtl.files import parse_yaml, read_json, read_table, read_text
from medmtl.quantity import Quantity
from medmtl.renamed import rename
from medmtl.results.by_class import FOREGROUND_DICE
from medmtl.results.compared import COMPARED
from medmtl.runs.folder import RunFolder

# Columns of `cases.csv` that earlier versions named otherwise.
OLD_COLUMNS = {"source": "dataset"}


@dataclass(frozen=True)
class ScoredCase:
    """What one run measured on a case.

    Attributes:
        case: its name, unique within its task.
        patient: name of the patient; the same name in another task is the same person.
        values: each of `COMPARED` and of the run's own metrics -> its value, NaN where it is undefined.
        classes: class -> key of an accuracy metric -> its value, of a task with several classes.
        foreground_dice: Dice of all classes as one; NaN with one class.
    """

    case: str
    patient: str
    values: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    foreground_dice: float = math.nan


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run: its training and test are complete.

    Attributes:
        name: of its folder.
        cell: what it is compared as.
        steps: optimizer steps that it was trained for.
        processes: processes that shared the training, each with a batch of its own.
        versions: package -> its version at the training; empty if the run recorded none.
        fingerprint: of its configuration and data.
        config: the resolved configuration, with the key names of today.
        renamed: names of an earlier version in its configuration -> those of today.
        splits: task -> part -> cases.
        own_metrics: calibration metrics of a user's own, by column of `cases.csv`.
        cases: task -> its test cases.
        bins: task -> region -> reliability bins of its test cases together; empty if the run recorded none.
    """

    name: str
    cell: Cell
    steps: int
    processes: int
    versions: Mapping[str, str]
    fingerprint: str
    config: Mapping[str, Any]
    renamed: Mapping[str, str]
    splits: Mapping[str, Mapping[str, list[str]]]
    own_metrics: Mapping[str, Quantity]
    cases: Mapping[str, list[ScoredCase]]
    bins: Mapping[str, Mapping[str, BinTable]]

    def classes_of(self, task: str) -> tuple[str, ...]:
        """The classes that it tells apart in a task; none where it has one."""
        return tuple(dict.fromkeys(name for case in self.cases[task] for name in case.classes))


def read_run(run: RunFolder, record: Mapping[str, Any]) -> FinishedRun:
    """Read a finished run.

    Args:
        run: its folder.
        record: its place in the experiment, from its `run.json`.

    Raises:
        OSError, ValueError, KeyError, TypeError, yaml.YAMLError, DataError: a file is missing or damaged.
    """
    cell = Cell.from_dict(record["cell"])
    rows = _labelled_rows(run.report / "cases.csv")
    own = own_metrics(run.report / "report.json", rows[0].keys() if rows else ())
    cases = _cases(rows, cell.task, [*COMPARED, *own])
    config, renamed = rename(parse_yaml(read_text(run.config)))
    splits = read_splits(run.splits)
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
        renamed=renamed,
        splits=splits,
        own_metrics=own,
        cases=cases,
        bins=_read_bins(run.report / "bins.json", cases),
    )


def _labelled_rows(path: Path) -> list[dict[str, str]]:
    """The rows of labelled test cases of the trained tasks, under the column names of today."""
    rows = [{OLD_COLUMNS.get(key, key): value for key, value in row.items()} for row in read_table(path)]
    return [row for row in rows if row["expected"] == "in" and row["dice"]]


def _cases(rows: Iterable[Mapping[str, str]], only: str | None, metrics: Iterable[str]) -> dict[str, list[ScoredCase]]:
    """Test cases by task; of one task alone if the run is about that."""
    cases: dict[str, dict[str, ScoredCase]] = defaultdict(dict)
    for row in rows:
        task, case = row["dataset"], row["case"]
        if only not in (None, task):
            continue
        if case in cases[task]:
            raise ValueError(f"cases.csv lists case {case} of {task} twice")
        values = {metric: float(row.get(metric) or math.nan) for metric in metrics}
        foreground = float(row.get(FOREGROUND_DICE) or math.nan)
        cases[task][case] = ScoredCase(case, row.get("patient") or case, values, _by_class(row), foreground)
    if not cases:
        raise ValueError("cases.csv has no labelled test case" + (f" of {only}" if only else ""))
    return {task: list(found.values()) for task, found in cases.items()}


def _by_class(row: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Class -> metric -> value, of the columns `CLASS/METRIC` that a case has."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for column, value in row.items():
        name, _, metric = column.rpartition("/")
        if name and metric in ACCURACY and value:
            found[name][metric] = float(value)
    return dict(found)


def _read_bins(path: Path, cases: Mapping[str, Iterable[ScoredCase]]) -> dict[str, dict[str, BinTable]]:
    """Task -> region -> bins of the given cases together."""
    if not path.is_file():
        return {}
    kept = read_json(path)
    pooled: dict[str, dict[str, BinTable]] = {}
    for task, tested in cases.items():
        tables: dict[str, list[BinTable]] = defaultdict(list)
        for case in tested:
            for region, state in kept.get(task, {}).get(case.case, {}).items():
                tables[region].append(BinTable.from_dict(state))
        pooled[task] = {region: reduce(add, found) for region, found in tables.items()}
    return pooled
