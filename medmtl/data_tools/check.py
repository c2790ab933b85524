"""`medmtl data check`: read every case, print the findings, and write them to files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from medmtl.data.task import data_note
from medmtl.data_tools.affine import refuse_within, write_fixed
from medmtl.data_tools.examine import examine
from medmtl.data_tools.listing import Dataset
from medmtl.data_tools.records import write_csv, write_json
from medmtl.data_tools.verdicts import Plan, too_few
from medmtl.report.data.page import write_data_page
from medmtl.results.dataset import Finding
from medmtl.results.dataset_summary import Summary, headline, summarise
from medmtl.terminal import terminal

PRINTED = 30  # findings in the terminal; the files have all
COLOURS = {"error": "red", "warning": "yellow", "note": "default"}


def check(
    datasets: Sequence[Dataset],
    title: str,
    out: Path,
    jobs: int | None = None,
    fixed: Path | None = None,
    plan: Plan | None = None,
) -> bool:
    """Check datasets, print a table and write `check.json`, `check.csv` and `check.html`.

    Args:
        datasets: the datasets, compared with one another.
        title: the folder or configuration, for the page.
        out: folder of the three files.
        jobs: see `examine`.
        fixed: folder for copies of labels on their image's grid, see `write_fixed`; None writes none.
        plan: what a training would do with the patients; None: no verdicts are asked for.

    Returns:
        Whether every case can be used.

    Raises:
        DataError: `fixed` lies within a dataset.
        RunError: see `examine`.
    """
    if fixed is not None:
        refuse_within(datasets, fixed)
    cases, findings = examine(datasets, jobs)
    note = data_note(dataset.configured_root for dataset in datasets)
    names = {dataset.name: dataset.names for dataset in datasets}
    few = too_few(datasets, cases, plan)
    write_json(out / "check.json", datasets, cases, findings, few)
    write_csv(out / "check.csv", cases, findings)
    summaries = [summarise(dataset.name, cases, names[dataset.name]) for dataset in datasets]
    write_data_page(out / "check.html", title, cases, findings, summaries, names, note, few)
    console = terminal()
    _print(console, summaries, findings)
    console.print(headline(cases, findings))
    if note:
        console.print(f"{note}.")
    if few is not None:
        console.print(f"{few}.", soft_wrap=True)
    if fixed is not None:
        written = write_fixed(datasets, findings, fixed)
        console.print(f"labels on their image's grid: {len(written)} written into {fixed}", soft_wrap=True)
    console.print(f"data check: {out / 'check.html'}", soft_wrap=True)
    return not any(finding.severity == "error" for finding in findings)


def _print(console: Console, summaries: Sequence[Summary], findings: Sequence[Finding]) -> None:
    for summary in summaries:
        title = f"{summary.name}: {summary.labelled} labelled, {summary.test} test, {summary.patients} patients"
        usual = Table(Column("", overflow="fold"), "cases", "smallest", "median", "largest", title=title)
        for name, cases, *values in summary.ranges:
            usual.add_row(name, str(cases), *(f"{value:.4g}" for value in values))
        console.print(usual)
    if findings:
        found = Table(*(Column(title, overflow="fold") for title in ("", "case", "finding", "fix")))
        for finding in findings[:PRINTED]:
            severity = Text(finding.severity, COLOURS[finding.severity])
            where = f"{finding.dataset} {finding.case}" if len(summaries) > 1 else finding.case
            found.add_row(severity, where or "all", finding.message, finding.fix)
        console.print(found)
    if len(findings) > PRINTED:
        console.print(f"and {len(findings) - PRINTED} more in the files")
