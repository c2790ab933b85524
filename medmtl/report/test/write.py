"""The report of a test as files: `report.json`, `cases.csv`, `bins.json`, `figures/*.png` and `report.html`."""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medmtl.calibration.metrics.bins import BinTable
from medmtl.calibration.metrics.intervals import FrequencyBand, frequency_band
from medmtl.files import remove_others, write_text, written_whole
from medmtl.report.drawing import case_slices
from medmtl.report.reliability import reliability_diagram
from medmtl.report.slices import CaseSlices
from medmtl.report.style import to_png
from medmtl.report.test import figures
from medmtl.report.test.cases import Pictured, pictured_cases
from medmtl.report.test.maps import calibration_map
from medmtl.report.test.page import CLASS_REGIONS, render_report
from medmtl.results.by_class import class_bins, class_regions
from medmtl.results.case import CaseResult, pooled_bins, tasks_of
from medmtl.results.test import EvaluationResult, build_report, write_cases

LONGEST = 150  # letters of a figure's file name, of the 255 bytes that file systems take


def write_report(
    folder: Path,
    evaluation: EvaluationResult,
    signatures: Mapping[str, Mapping[str, NDArray[np.float64]]],
    slices: Mapping[tuple[str, str], CaseSlices],
    facts: Mapping[str, str],
) -> Path:
    """Write the whole report; files of an earlier test are replaced.

    Args:
        folder: where it goes, `report` in the run folder.
        evaluation: what the test found.
        signatures: layer -> dataset -> spectral signatures `(cases, K)`; empty without a signature bank.
        slices: (dataset, case) -> planes, for those cases that have them; see `pictured_cases` for those shown.
        facts: about the run, see `render_report`.

    Returns:
        The path of `report.html`.
    """
    report = build_report(evaluation)
    pictured = pictured_cases(evaluation)
    drawn = _draw(evaluation, signatures, slices, pictured)
    pictures = write_figures(folder / "figures", drawn, facts.get("data_note", ""))
    write_cases(folder / "cases.csv", evaluation.cases, evaluation.metrics)
    write_text(folder / "bins.json", json.dumps(_bins(evaluation.cases), allow_nan=False) + "\n")
    write_text(folder / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    page = folder / "report.html"
    stacks = {place: planes.stack for place, planes in slices.items() if planes.stack is not None}
    render_report(report, evaluation, pictures, facts, page, pictured, stacks)
    return page


def write_figures(folder: Path, drawn: Mapping[str, Figure], note: str) -> dict[str, bytes]:
    """Write figures as PNG files; those that were in the folder before are removed.

    Args:
        folder: where they go.
        drawn: name -> figure.
        note: see `to_png`.

    Returns:
        Name -> PNG.
    """
    pictures = {name: to_png(figure, note) for name, figure in drawn.items()}
    remove_others(folder, "*.png")
    for name, png in pictures.items():
        with written_whole(folder / f"{_file_name(name)}.png") as beside:
            beside.write_bytes(png)
    return pictures


def _file_name(figure: str) -> str:
    """A name that any system takes, of a figure whose name holds names of tasks and cases."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", figure)
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{zlib.crc32(figure.encode()):08x}"


def _bins(results: Sequence[CaseResult]) -> dict[str, dict[str, dict[str, Any]]]:
    """Dataset -> case -> region -> reliability bins, of the cases that have some."""
    bins: dict[str, dict[str, dict[str, Any]]] = {}
    for result in results:
        if result.calibration:
            regions = {region: table.to_dict() for region, table in result.calibration.items()}
            bins.setdefault(result.dataset, {})[result.case] = regions
    return bins


def _draw(
    evaluation: EvaluationResult,
    signatures: Mapping[str, Mapping[str, NDArray[np.float64]]],
    slices: Mapping[tuple[str, str], CaseSlices],
    pictured: Sequence[Pictured],
) -> dict[str, Figure]:
    results = evaluation.cases
    tasks = tasks_of(results)
    cases = {task: [result for result in results if result.dataset == task] for task in tasks}
    drawn = {"dice": figures.dice_by_task(results)} if tasks else {}
    for region in dict.fromkeys(region for result in results for region in result.calibration):
        names = {False: f"reliability-{region}"}
        if evaluation.scaling is not None:
            names[True] = f"reliability-{region}-scaled"
        for scaled, name in names.items():
            tables = {task: pooled_bins(cases[task], region, scaled) for task in tasks}
            known = {task: table for task, table in tables.items() if table is not None}
            bands = {task: _band(cases[task], region, scaled) for task in known}
            if known:
                drawn[name] = reliability_diagram(known, region, scaled, bands)
    drawn |= _draw_classes(cases)
    for layer, by_dataset in signatures.items():
        drawn[f"spectra-{layer}"] = figures.spectra(by_dataset, layer, tasks)
    scores = [evaluation.score(name) for name in dict.fromkeys(name for result in results for name in result.scores)]
    for score in scores:
        threshold = evaluation.threshold if score.key == evaluation.ood_score else None
        drawn[f"score-{score.key}"] = figures.score_distributions(results, score, threshold)
    if len({result.expected for result in results}) == 2:
        drawn["roc"] = figures.roc(results, scores)
    for each in pictured:
        planes = slices.get((each.result.dataset, each.result.case))
        if planes is not None:
            drawn[f"slices-{each.figures}"] = case_slices(planes, each.title)
            if not each.verdict_wrong:
                drawn[f"map-{each.figures}"] = calibration_map(planes, each.title)
    return drawn


def _draw_classes(cases: Mapping[str, Sequence[CaseResult]]) -> dict[str, Figure]:
    """Reliability of the classes of each task that has several, a panel a class."""
    drawn = {}
    for task, own in cases.items():
        for region, scaled in product(class_regions(own), (False, True)):
            tables = class_bins(own, region, scaled)
            if not tables:
                continue
            binned = [(r.person, r.class_calibration_scaled if scaled else r.class_calibration) for r in own]
            bands = {name: _band_of([(who, by.get(name, {})) for who, by in binned], region) for name in tables}
            where = f"{CLASS_REGIONS.get(region, region)}{' after scaling' if scaled else ''}"
            title = f"Reliability of the classes of {task}\nover the {where}"
            name = f"classes-{task}-{region}{'-scaled' if scaled else ''}"
            drawn[name] = reliability_diagram(tables, region, bands=bands, title=title)
    return drawn


def _band(cases: Sequence[CaseResult], region: str, scaled: bool) -> FrequencyBand:
    tables = [(result.person, result.calibration_scaled if scaled else result.calibration) for result in cases]
    return _band_of(tables, region)


def _band_of(tables: Sequence[tuple[str, Mapping[str, BinTable]]], region: str) -> FrequencyBand:
    known = [(person, table[region]) for person, table in tables if region in table]
    return frequency_band([table for _, table in known], [person for person, _ in known])
