"""The page of `medmtl data check`, self-contained `check.html`: worst findings first, then the cases."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmtl.files import write_text
from medmtl.report.html import render
from medmtl.report.style import PALETTE
from medmtl.results.dataset import SEVERITIES, CaseFacts, Finding
from medmtl.results.dataset_summary import Summary, headline

FIRST = 3  # cases with findings to look at
SHOWN = 120  # cases with a picture, about 30 kB each


def write_data_page(
    path: Path,
    title: str,
    cases: Sequence[CaseFacts],
    findings: Sequence[Finding],
    summaries: Sequence[Summary],
    organs: Mapping[str, Mapping[int, str]],
    data_note: str = "",
    too_few: str | None = None,
) -> None:
    """Write the page.

    Args:
        path: the file, `check.html`.
        title: the folder or configuration.
        cases: all cases, in the order of the datasets.
        findings: worst first.
        summaries: one for each dataset.
        organs: dataset -> label value -> name.
        data_note: note on the data, "Digital phantoms, not patients"; may be empty.
        too_few: a sentence where the patients are too few for verdicts.
    """
    of_case: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        of_case.setdefault((finding.dataset, finding.case), []).append(finding)
    # Cases without findings alternate between datasets, so that every dataset has pictures.
    turn = {id(case): number for each in summaries for number, case in enumerate(_own(cases, each.name))}
    ordered = sorted(cases, key=lambda case: (*_rank(of_case.get((case.dataset, case.case), [])), turn[id(case)]))
    page = render(
        "data.html.j2",
        title=title,
        headline=headline(cases, findings),
        summaries=summaries,
        findings=findings,
        ordered=ordered,
        shown=SHOWN,
        places={(case.dataset, case.case) for case in ordered[:SHOWN]},
        first=[(case, of_case[case.dataset, case.case][0]) for case in ordered if (case.dataset, case.case) in of_case][
            :FIRST
        ],
        of_case=of_case,
        pictures={
            (case.dataset, case.case): base64.b64encode(case.thumbnail).decode("ascii")
            for case in ordered[:SHOWN]
            if case.thumbnail
        },
        organs=organs,
        colour=lambda value: PALETTE[(value - 1) % len(PALETTE)],
        data_note=data_note,
        too_few=too_few,
    )
    write_text(path, page)


def _own(cases: Sequence[CaseFacts], dataset: str) -> list[CaseFacts]:
    return [case for case in cases if case.dataset == dataset]


def _rank(findings: Sequence[Finding]) -> tuple[int, int]:
    """Worst findings first, and more before fewer; cases without any at the end."""
    if not findings:
        return len(SEVERITIES), 0
    return min(SEVERITIES.index(finding.severity) for finding in findings), -len(findings)
