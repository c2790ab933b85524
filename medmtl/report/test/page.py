"""One self-contained page: the headline, tables, figures and every case, to be opened from disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmtl.calibration.metrics.definitions import METRICS
from medmtl.calibration.metrics.intervals import INTERVAL_METRICS
from medmtl.calibration.metrics.regions import REGIONS
from medmtl.files import write_text
from medmtl.report.html import Picture, page_template
from medmtl.report.style import OOD_COLOUR, SCORES, task_colours
from medmtl.results.intervals import gain_sentences
from medmtl.results.test import CaseResult, cases_table, tasks_of

_ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def render_report(
    report: Mapping[str, Any],
    results: Sequence[CaseResult],
    figures: Mapping[str, bytes],
    facts: Mapping[str, str],
    out: Path,
) -> None:
    """Write the page.

    Args:
        report: what `build_report` made of the results.
        results: all cases.
        figures: name -> PNG; the names that `write_report` gives.
        facts: what to say of the run, for example {"checkpoint": ..., "layers": ...}, in the order to show it. The key
            `data_note` ("Digital phantoms, not patients") is shown at the head and in every caption instead.
        out: the file, `report.html`.
    """
    labels = {key: metric.label for key, metric in METRICS.items()}
    page = page_template("report.html.j2").render(
        report=report,
        headline=headline(report),
        rows=cases_table(results),
        shown_scores=list(dict.fromkeys(score for result in results for score in result.scores)),
        colours={**dict.fromkeys(report["ood"]["datasets"], OOD_COLOUR), **task_colours(tasks_of(results))},
        figures={name: Picture.of(png) for name, png in figures.items()},
        facts={key: value for key, value in facts.items() if key != "data_note"},
        data_note=facts.get("data_note", ""),
        regions={name: region.description for name, region in REGIONS.items()},
        model_regions=[name for name, region in REGIONS.items() if region.follows_prediction],
        metrics=labels,
        scores=SCORES,
        interval_metrics=INTERVAL_METRICS,
        gained=gain_sentences(report, labels),
    )
    write_text(out, page)


def headline(report: Mapping[str, Any]) -> str:
    """The result in plain words: accuracy, and what the verdicts got right and wrong."""
    tasks, ood = report["tasks"], report["ood"]
    verdict = ood["verdict"]
    if report["mean"]["dice"] is None:
        sentences = ["No test case had a Dice."]
    else:
        over = f"over {_count(len(tasks), 'task')}" if len(tasks) > 1 else f"on {next(iter(tasks))}"
        sentences = [f"Mean Dice {report['mean']['dice']:.2f} {over}."]
    found, alarms = "", ""
    if verdict["out_decided"]:
        found = f"flagged {verdict['detections']} of {_count(verdict['out_decided'], 'foreign volume', words=False)}"
    if verdict["in_decided"]:
        noun = "ones" if found else "volumes"
        alarms = f"raised a false alarm on {verdict['false_alarms']} of {verdict['in_decided']} familiar {noun}"
    if found or alarms:
        sentences.append(f"At {_ALPHA} = {verdict['alpha']:g} it {' and '.join(filter(None, (found, alarms)))}.")
    if ood["note"]:
        sentences.append(ood["note"])
    return " ".join(sentences)


def _count(count: int, noun: str, words: bool = True) -> str:
    name = _WORDS[count] if words and count < len(_WORDS) else str(count)
    return f"{name} {noun}" if count == 1 else f"{name} {noun}s"
