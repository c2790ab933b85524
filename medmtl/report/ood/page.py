"""An out-of-distribution benchmark as one self-contained page, `ood.html`, with its figures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from medmtl.files import write_text
from medmtl.ood.conformal import cases_needed
from medmtl.ood.metrics.benchmark_table import COLUMNS
from medmtl.ood.metrics.false_alarms import flagged_people
from medmtl.report.html import Picture, number, render
from medmtl.report.ood.failure import labelled, rejecting, risk_coverage_curves, score_against_dice
from medmtl.report.ood.figures import heat_map, severity_curves
from medmtl.report.ood.numbers import (
    TITLES,
    Condition,
    aurocs,
    detectors_by_mean,
    images_of,
    leading,
    score_label,
    threshold,
    tied,
    verdict_detector,
    verdicts,
    without_network,
)
from medmtl.report.ood.scores import roc_by_group, scores_by_group
from medmtl.report.ood.wrong import first_of, wrong_verdicts
from medmtl.report.test.write import write_figures
from medmtl.results.benchmark import Record, rule_of


def write_ood_page(
    folder: Path,
    run: str,
    records: Sequence[Record],
    statistics: Mapping[str, Any],
    facts: Mapping[str, str],
    notes: Sequence[str],
    pictures: Mapping[str, Figure] = MappingProxyType({}),
) -> Path:
    """Write page and figures; figures of an earlier benchmark are removed.

    Args:
        folder: where they go, `ood` in the run folder.
        run: name of the run.
        records: the score of every detector for every image, tasks in the order of the configuration.
        statistics: what `ood.json` holds: `scores`, `shifts`, `detectors`, `verdict` and, with labels, `failure`.
            The verdict may name its `detector`; without a name it is the first. A detector's columns may have a
            `rank`: "first", "tied" or "behind". With `false_alarms` and `rate_if_exchangeable` there is a table of
            false alarms by task.
        facts: of the run, in the order to show them; `data_note` as in `render_report`.
        notes: what was left out and why, a sentence each.
        pictures: `place` of an image whose verdict is wrong, see `wrong_verdicts` -> its figure.

    Returns:
        The path of `ood.html`.
    """
    values = aurocs(records)
    ranked = detectors_by_mean(statistics)
    wrong = wrong_verdicts(records, verdict_detector(statistics), statistics)
    figures = write_figures(
        folder / "figures", {**_draw(records, values, statistics), **pictures}, facts.get("data_note", "")
    )
    page = render(
        "ood.html.j2",
        run=run,
        sentences=sentences(records, statistics),
        failure_sentences=failure_sentences(records, statistics),
        notes=notes,
        wrong=wrong,
        first=first_of(wrong),
        calibration_patients=_calibration_patients(records, statistics),
        ranked=ranked,
        tied=tied(statistics),
        ties_known=_ties_known(statistics),
        statistics=statistics,
        failure=statistics.get("failure", {}),
        columns={
            column: TITLES.get(column, column)
            for column in COLUMNS
            if any(column in row for row in statistics["detectors"].values())
        },
        best_in={column: _best_in(statistics, column) for column in COLUMNS},
        alarms=statistics.get("false_alarms", {}).get(verdict_detector(statistics)),
        exchangeable=statistics.get("rate_if_exchangeable", {}).get(verdict_detector(statistics)),
        deciding=verdict_detector(statistics),
        verdicts={name: verdicts(records, name) for name in leading(statistics)},
        images=images_of(records),
        severities=sorted({where.severity for row in values.values() for where in row if where.severity}),
        leading=leading(statistics),
        bars=without_network(statistics),
        labels={name: score_label(statistics, name) for name in ranked},
        figures={name: Picture.of(png) for name, png in figures.items()},
        facts={key: value for key, value in facts.items() if key != "data_note"},
        data_note=facts.get("data_note", ""),
    )
    write_text(folder / "ood.html", page)
    return folder / "ood.html"


def sentences(records: Sequence[Record], statistics: Mapping[str, Any]) -> list[str]:
    """The result in plain words: the verdicts, the best detector and those tied with it, and what was not measured."""
    lines = [_verdict_sentence(records, statistics)]
    best, *_ = ranked = detectors_by_mean(statistics)
    mean = {name: statistics["detectors"][name].get("mean", {}).get("auroc") for name in ranked}
    if mean[best] is not None:
        bars = without_network(statistics)
        bare = ", which needs no network" if best in bars else ""
        auroc = f"AUROC {number(mean[best])}"
        lines.append(
            f"The best detector in the mean is {score_label(statistics, best)}{bare}, {auroc}{_rivals(statistics)}."
        )
        others = [
            f"{score_label(statistics, name)} {number(mean[name])}" for name in bars if name in mean and name != best
        ]
        if others:
            lines.append(f"Baselines without a network: {' and '.join(others)}.")
    absent = [group for group in ("far", "near", "covariate", "nonsense") if group not in images_of(records)]
    if absent:
        lines.append(f"Not measured, and not in the mean: {', '.join(absent)}.")
    return lines


def failure_sentences(records: Sequence[Record], statistics: Mapping[str, Any]) -> list[str]:
    """The effect of rejecting the images of highest score, for the detectors of `leading`."""
    lines = []
    for name in leading(statistics):
        gain = rejecting(records, name)
        if gain is not None:
            would = "would have raised" if gain.after > gain.before else "would not have raised"
            share = f"{100 * gain.rejected / gain.images:.0f}\N{NO-BREAK SPACE}%"
            lines.append(
                f"By {score_label(statistics, name)}, rejecting the worst {share} "
                f"({gain.rejected} of {gain.images} images) {would} mean Dice "
                f"from {gain.before:.2f} to {gain.after:.2f}."
            )
    return lines


def _best_in(statistics: Mapping[str, Any], column: str) -> list[str]:
    """The detectors of highest AUROC in a column."""
    values = {name: row.get(column, {}).get("auroc") for name, row in statistics["detectors"].items()}
    known = {name: value for name, value in values.items() if value is not None}
    return [name for name, value in known.items() if value == max(known.values())]


def _verdict_sentence(records: Sequence[Record], statistics: Mapping[str, Any]) -> str:
    name, alpha = verdict_detector(statistics), statistics["verdict"]["alpha"]
    counts = verdicts(records, name)
    found = [f"flagged {c.flagged} of {c.decided} {group} images" for group, c in counts.items() if group == "far"]
    if "in_distribution" in counts:
        images = counts["in_distribution"]
        tested = [r for r in records if r.detector == name and r.group == "in_distribution"]
        alarms = flagged_people([r.rejected for r in tested], [r.patient for r in tested])
        found.append(
            f"raised a false alarm on {alarms.people_flagged} of {alarms.people} patients "
            f"({images.flagged} of {images.decided} in-distribution images)"
        )
    if not found:
        have = images_of(r for r in records if r.detector == name).get("calibration", {}).get("patients", 0)
        return (
            f"No verdict can be given at \N{GREEK SMALL LETTER ALPHA} = {alpha:g}: too few calibration patients "
            f"({have}; at least {cases_needed(alpha)} are needed)."
        )
    return f"At \N{GREEK SMALL LETTER ALPHA} = {alpha:g} {score_label(statistics, name)} {' and '.join(found)}."


def _calibration_patients(records: Sequence[Record], statistics: Mapping[str, Any]) -> list[int]:
    rule = rule_of(records, verdict_detector(statistics), statistics["verdict"]["alpha"])
    return [group.patient_count for group in rule.groups.values()]


def _ties_known(statistics: Mapping[str, Any]) -> bool:
    return any(row.get("mean", {}).get("rank") for row in statistics["detectors"].values())


def _rivals(statistics: Mapping[str, Any]) -> str:
    """The detectors tied with the best, as the end of a sentence; empty where ranks are not known or there is one."""
    if not _ties_known(statistics) or len(statistics["detectors"]) < 2:
        return ""
    names = [score_label(statistics, name) for name in tied(statistics)]
    return f"; tied with it: {', '.join(names)}" if names else ", ahead of all others"


def _draw(
    records: Sequence[Record], values: Mapping[str, Mapping[Condition, float]], statistics: Mapping[str, Any]
) -> dict[str, Figure]:
    conditions = [where for by_condition in values.values() for where in by_condition]
    groups = [group for group in ("far", "near") if any(where.group == group for where in conditions)]
    drawn: dict[str, Figure] = {}
    if conditions:
        drawn |= {"heat-map": heat_map(values, statistics), "heat-map-dark": heat_map(values, statistics, dark=True)}
    if any(where.group == "covariate" and where.severity for where in conditions):
        drawn["severity"] = severity_curves(values, statistics)
    if groups:
        drawn["roc"] = roc_by_group(records, groups, statistics)
    chosen = leading(statistics)
    for name in chosen:
        line = threshold(records, name, statistics["verdict"]["alpha"])
        drawn[f"scores-{name}"] = scores_by_group(records, name, line, statistics)
    if any(labelled(records, name) for name in chosen):
        drawn["failure"] = score_against_dice(records, chosen, statistics)
        drawn["risk-coverage"] = risk_coverage_curves(records, statistics)
    return drawn
