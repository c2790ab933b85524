"""The page of a test: headline, tables, figures and every case in one file that opens from disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.intervals import INTERVAL_METRICS
from medmtl.calibration.metrics.regions import REGIONS
from medmtl.files import write_text
from medmtl.report.html import Picture, render
from medmtl.report.stack import Stack
from medmtl.report.style import OOD_COLOUR, task_colours
from medmtl.report.test.cases import Pictured, first_cases, links_of
from medmtl.report.test.sentences import conclusions, gain_sentences, headline, routing_sentence
from medmtl.report.wrong_verdicts import KINDS
from medmtl.results.case import tasks_of
from medmtl.results.test import EvaluationResult, cases_table
from medmtl.version import PAPER

SLIDERS = 24  # on a page, about 80 kB each: wrong verdicts first, then the worst cases

# What a region holds where it is that of a class.
CLASS_REGIONS = {"whole": "whole volume", "band": "band of 5 mm around the class"}


def render_report(
    report: Mapping[str, Any],
    evaluation: EvaluationResult,
    figures: Mapping[str, bytes],
    facts: Mapping[str, str],
    out: Path,
    pictured: Sequence[Pictured] = (),
    stacks: Mapping[tuple[str, str], Stack] = MappingProxyType({}),
) -> None:
    """Write the page.

    Args:
        report: the content of `report.json`, see `build_report`.
        evaluation: what it was made from.
        figures: name -> PNG; the names that `write_report` gives.
        facts: about the run, for example {"checkpoint": ..., "layers": ...}, in the order to show them. The key
            `data_note` ("Digital phantoms, not patients") is shown at the head and in every caption instead.
        out: the file, `report.html`.
        pictured: the cases whose pictures are shown.
        stacks: dataset and case -> its slices, of which the first `SLIDERS` of those are shown.
    """
    tasks = tasks_of(evaluation.cases)
    by_interest = sorted(pictured, key=lambda each: (not each.verdict_wrong, each.kind == "best"))
    sliders = [each.place for each in by_interest if each.case in stacks][:SLIDERS]
    page = render(
        "report.html.j2",
        report=report,
        headline=headline(report),
        conclusions=conclusions(report),
        first=first_cases(pictured),
        pictured=[each for each in pictured if not each.verdict_wrong],
        wrong={kind: [each for each in pictured if each.kind == kind] for kind in KINDS},
        links=links_of(pictured),
        stacks={each.place: stacks[each.case] for each in pictured if each.place in sliders},
        rows=cases_table(evaluation.cases, evaluation.metrics),
        scores=list(dict.fromkeys(score for result in evaluation.cases for score in result.scores)),
        colours={**dict.fromkeys(report["ood"]["datasets"], OOD_COLOUR), **task_colours(tasks)},
        figures={name: Picture.of(png) for name, png in figures.items()},
        facts={key: value for key, value in facts.items() if key != "data_note"},
        data_note=facts.get("data_note", ""),
        regions={name: region.description for name, region in REGIONS.items()},
        model_regions=[name for name, region in REGIONS.items() if region.follows_prediction],
        accuracy=list(ACCURACY),
        calibration=list(evaluation.metrics),
        higher=[key for key, metric in evaluation.metrics.items() if metric.higher_is_better],
        interval_metrics=INTERVAL_METRICS,
        gained=gain_sentences(report),
        routed=routing_sentence(report),
        class_regions=CLASS_REGIONS,
        paper=PAPER,
        with_classes={name: task for name, task in report["tasks"].items() if "classes" in task},
    )
    write_text(out, page)
