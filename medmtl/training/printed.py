"""What `medmtl fit` and `test` print at their end: a short table, and where the rest is."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from rich.table import Table

from medmtl.accuracy import FOREGROUND
from medmtl.callbacks.checkpoints import MONITOR
from medmtl.errors import RunError
from medmtl.files import read_json
from medmtl.report.test.sentences import headline, routing_sentence
from medmtl.runs.folder import RunFolder
from medmtl.runs.metrics import read_metrics
from medmtl.terminal import terminal
from medmtl.training.request import known_config


def print_trained(run: RunFolder, tasks: Sequence[str]) -> None:
    """Validation Dice of the best checkpoint, by task and class.

    Args:
        run: the run folder.
        tasks: that were trained.
    """
    console = terminal()
    validated = [row for row in read_metrics(run.metrics) if MONITOR in row]
    if validated:
        best = max(validated, key=lambda row: float(row[MONITOR]))
        table = Table("task", f"validation Dice, step {best['step']}")
        for name in [*tasks, "mean"]:
            value = best.get(f"val/{name}/dice")  # a task that has joined a resumed training lacks it at first
            table.add_row(name, "-" if value is None else f"{float(value):.3f}")
            for key in (key for key in best if re.fullmatch(rf"val/{re.escape(name)}/[^/]+/dice", key)):
                each = key.split("/")[-2]
                if each != FOREGROUND:
                    table.add_row(f"  {each}", f"{float(best[key]):.3f}")
        console.print(table)
    else:
        console.print("nothing was validated, so that there is no best checkpoint, no table and no verdict")
    console.print(f"trained: {run.best if run.best.is_file() else run.path}", soft_wrap=True)
    console.print(f"next: medmtl test --run {quote(str(run.path))}{_trust(run)}", soft_wrap=True)


def _trust(run: RunFolder) -> str:
    """` --trust` for a run with classes of one's own, which the other commands refuse otherwise."""
    if not run.best.is_file():
        return ""
    try:
        known_config(run.best)
    except RunError:
        return " --trust"
    return ""


def print_tested(run: RunFolder, tasks: Sequence[str], metrics: Mapping[str, Any], page: Path) -> None:
    """Accuracy and calibration by task and class, and what the test found in a sentence.

    Args:
        run: the run folder, with its report.
        tasks: that were tested.
        metrics: what was logged, by key.
        page: the report.
    """
    report = read_json(run.report / "report.json")
    table = Table("task", "Dice", "HD95 mm", "ECE whole", "ACE band")
    for task in [*tasks, "mean"]:
        classes = report["tasks"].get(task, {}).get("classes", {})
        for name, shown in {task: task, **{f"{task}/{each}": f"  {each}" for each in classes}}.items():
            row = {key: metrics.get(f"test/{name}/{key}") for key in ("dice", "hd95_mm", "ece_whole", "ace_band")}
            digits = {"hd95_mm": 1}
            cells = ("-" if value is None else f"{float(value):.{digits.get(key, 3)}f}" for key, value in row.items())
            table.add_row(shown, *cells)
    console = terminal()
    console.print(table)
    console.print(headline(report), soft_wrap=True)
    if routing_sentence(report):
        console.print(routing_sentence(report), soft_wrap=True)
    console.print(f"report: {page}", soft_wrap=True)
