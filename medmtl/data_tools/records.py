"""The results of a data check as `check.json` and `check.csv`."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medmtl.data_tools.listing import Dataset
from medmtl.files import write_table, write_text
from medmtl.results.dataset import DIRECTIONS, CaseFacts, Finding

SCHEMA = 2


def write_json(
    path: Path,
    datasets: Sequence[Dataset],
    cases: Sequence[CaseFacts],
    findings: Sequence[Finding],
    too_few: str | None = None,
) -> None:
    """Write datasets, findings (worst first) and cases as strict JSON: a number that does not exist is null.

    Args:
        path: the file.
        datasets: what was checked.
        cases: of all of them.
        findings: worst first.
        too_few: a sentence where the patients are too few for verdicts.
    """
    content = {
        "schema": SCHEMA,
        "datasets": {
            dataset.name: {
                "root": str(dataset.root),
                "layout": type(dataset.layout).__name__,
                "organs": {organ: list(values) for organ, values in dataset.corpus.organs.items()},
                "ignore": dataset.corpus.ignore,
                "channels": list(dataset.corpus.channels),
                "modality": dataset.corpus.modality,
            }
            for dataset in datasets
        },
        "too_few_patients": too_few,
        "findings": [asdict(finding) for finding in findings],
        "cases": [_case(case) for case in cases],
    }
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, cases: Iterable[CaseFacts], findings: Iterable[Finding]) -> None:
    """Write a row for each case; channels and label values make columns of their own."""
    by_case: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_case.setdefault((finding.dataset, finding.case), []).append(finding)
    rows = [_row(case, by_case.get((case.dataset, case.case), [])) for case in cases]
    write_table(path, list(dict.fromkeys(column for row in rows for column in row)), rows)


def _case(case: CaseFacts) -> dict[str, Any]:
    record = {key: value for key, value in asdict(case).items() if key != "thumbnail"}
    record["intensity"] = [
        {key: value if math.isfinite(value) else None for key, value in channel._asdict().items()}
        for channel in case.intensity
    ]
    record["volumes_ml"] = {str(value): volume for value, volume in case.volumes_ml.items()}
    return record


def _row(case: CaseFacts, findings: Sequence[Finding]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": case.dataset,
        "case": case.case,
        "patient": case.patient,
        "part": case.part,
        "image": " ".join(case.images),
        "label": " ".join(case.labels),
        "worst": findings[0].severity if findings else "",
        "findings": "; ".join(finding.message for finding in findings),
        "shape": " ".join(map(str, case.shape)),
        "axes": case.axes,
        "dtype": case.dtype,
    }
    spacing = case.spacing_by_axis
    row |= {f"spacing {name} (mm)": spacing.get(name, "") for name in DIRECTIONS}
    for number, channel in enumerate(case.intensity):
        row |= {f"channel {number} {name}": value for name, value in channel._asdict().items()}
    return row | {f"label {value} (ml)": round(volume, 4) for value, volume in sorted(case.volumes_ml.items())}
