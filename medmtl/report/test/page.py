"""The page of a test: headline, tables, figures and every case in one file that opens from disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.intervals import INTERVAL_METRICS
from medmtl.calibration.metrics.regions import REGIONS
from medmtl.files import write_text
from medmtl.report.html import Picture, render
from medmtl.report.style import OOD_COLOUR, task_colours
from medmtl.report.test.sentences import gain_sentences, headline, routing_sentence
from medmtl.results.case import tasks_of
from medmtl.results.test import EvaluationResult, cases_table

# What a region holds where it is that of a class.
CLASS_REGIONS = {"whole": "whole volume", "band": "band of 5 mm around the class"}


def render_report(
    report: Mapping[str, Any],
    evaluation: EvaluationResult,
    figures: Mapping[str, bytes],
    facts: Mapping[str, str],
    out: Path,
) -> None:
    """Write the page.

    Args:
        report: the content of `report.json`, see `build_report`.
        evaluation: what it was made from.
        figures: name -> PNG; the names that `write_report` gives.
        facts: about the run, for example {"checkpoint": ..., "layers": ...}, in the order to show them. The key
            `data_note` ("Digital phantoms, not patients") is shown at the head and in every caption instead.
        out: the file, `report.html`.
    """
    tasks = tasks_of(evaluation.cases)
    page = render(
        "report.html.j2",
        report=report,
        headline=headline(report),
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
        with_classes={name: task for name, task in report["tasks"].items() if "classes" in task},
    )
    write_text(out, page)
