"""One self-contained page: the headline, tables, figures and every case, to be opened from disk."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from medmtl.calibration import regions
from medmtl.calibration.intervals import INTERVAL_METRICS
from medmtl.files import write_text
from medmtl.report.intervals import gain_sentences
from medmtl.report.results import CaseResult, cases_table, tasks_of
from medmtl.report.theme import DOTS_PER_INCH, FOREIGN, METRICS, REGIONS, SCORES, task_colours

PAGE_DOTS_PER_INCH = 106
_ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Picture:
    """A figure as a page holds it.

    Attributes:
        base64: the PNG file.
        width: its width on the page, in pixels.
    """

    base64: str
    width: int

    @classmethod
    def of(cls, png: bytes) -> "Picture":
        """The picture of a PNG file's bytes."""
        pixels = int.from_bytes(png[16:20], "big")  # width in the PNG header
        return cls(base64.b64encode(png).decode("ascii"), round(pixels * PAGE_DOTS_PER_INCH / DOTS_PER_INCH))


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
    page = page_template("report.html.j2").render(
        report=report,
        headline=headline(report),
        rows=cases_table(results),
        shown_scores=list(dict.fromkeys(score for result in results for score in result.scores)),
        colours={**dict.fromkeys(report["ood"]["sources"], FOREIGN), **task_colours(tasks_of(results))},
        figures={name: Picture.of(png) for name, png in figures.items()},
        facts={key: value for key, value in facts.items() if key != "data_note"},
        data_note=facts.get("data_note", ""),
        regions=REGIONS,
        model_regions=[name for name, region in regions.REGIONS.items() if region.follows_prediction],
        metrics=METRICS,
        scores=SCORES,
        interval_metrics=INTERVAL_METRICS,
        gained=gain_sentences(report, METRICS),
    )
    write_text(out, page)


def page_template(name: str) -> Template:
    """A template of `templates/`: what it is given is escaped, and a name that it is not given is an error."""
    environment = Environment(
        loader=PackageLoader("medmtl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "bracketed": bracketed}
    return environment.get_template(name)


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


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table cell; a dash where there is none."""
    return "\N{EN DASH}" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def bracketed(middle: float | None, ends: Mapping[str, Any], digits: int = 3, signed: bool = False) -> str:
    """A number and its interval for a table cell: "0.912 [0.880, 0.940]"; a dash where there is none.

    Args:
        middle: the number.
        ends: holds its `low` and `high`, None where there is no interval.
        digits: after the point.
        signed: whether the number gets a sign, as a difference does.
    """
    if middle is None:
        return number(None)
    text = f"{middle:{'+' if signed else ''}z.{digits}f}"
    low, high = ends["low"], ends["high"]
    if low is not None and high is not None:
        text += f" [{low:z.{digits}f}, {high:z.{digits}f}]"
    return text.replace("-", "\N{MINUS SIGN}")


def _count(count: int, noun: str, words: bool = True) -> str:
    name = _WORDS[count] if words and count < len(_WORDS) else str(count)
    return f"{name} {noun}" if count == 1 else f"{name} {noun}s"
