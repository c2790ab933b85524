"""The summary of a benchmark, for `ood.json` and the command line, computed from the records."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medmtl.files import write_text
from medmtl.ood.detectors import Detector
from medmtl.ood.metrics.benchmark_table import COLUMNS, Scored, benchmark_table
from medmtl.ood.metrics.exchangeable import rate_if_exchangeable
from medmtl.ood.metrics.failure import failure_detection, rejection
from medmtl.ood.metrics.false_alarms import flagged_by_task, flagged_people
from medmtl.ood_benchmark.options import Options
from medmtl.report.ood.failure import REJECTED_SHARE
from medmtl.results.benchmark import Record

SCHEMA = 2

FAILURE = ("aurc", "e_aurc", "drop", "spearman")

# Groups that should be rejected; controls should not, and covariate shifts may be too weak to matter.
OUT_OF_DISTRIBUTION = ("far", "near", "nonsense")


def write_summary(
    path: Path,
    records: Sequence[Record],
    detectors: Sequence[Detector],
    options: Options,
    notes: Sequence[str],
    facts: Mapping[str, Any],
    both_verdicts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `ood.json`.

    Args:
        path: the file.
        records: scores of all detectors, with decisions.
        detectors: those that scored, for their description.
        options: of the benchmark.
        notes: in words, what was left out.
        facts: of the run.
        both_verdicts: see `verdict_summary`; None where the run checks no masks.

    Returns:
        What was written: `schema`, `scores` and `shifts` (descriptions by name, see `OODScore` and `Shift`),
        `detectors` (figures by column, with intervals), `verdict` and `verdicts` (how often each detector rejects
        in-distribution and OOD images; the verdict is the first detector's), `false_alarms` (test patients with a
        rejected image, all and by task, with exact intervals, see `flagged_people`), `rate_if_exchangeable` (what the
        rule would give if validation and test patients were exchangeable, see `rate_if_exchangeable`), `failure` (how
        well each score detects bad segmentations, with intervals, and the effect of rejecting a tenth),
        `both_verdicts`, `images` and `people` (how many by group), `notes` and `facts`.
    """
    names = [detector.name for detector in detectors]
    scored = [record for record in records if record.group != "training"]
    of = {name: [record for record in scored if record.detector == name] for name in names}
    verdicts = {name: _verdict(found, options.alpha) for name, found in of.items()}
    seen = of[names[0]]
    groups = [record.group for record in seen]
    summary = {
        "schema": SCHEMA,
        "scores": descriptions(detectors),
        "shifts": {shift.name: shift.description() for shift in options.shifts_used},
        "detectors": _columns(of),
        "verdict": {"detector": names[0], **verdicts[names[0]]},
        "verdicts": verdicts,
        "false_alarms": {name: _false_alarms(found) for name, found in of.items()},
        "rate_if_exchangeable": {name: _rate_if_exchangeable(found, options.alpha) for name, found in of.items()},
        "failure": {name: _failure(found) for name, found in of.items()},
        **({} if both_verdicts is None else {"both_verdicts": dict(both_verdicts)}),
        "images": {group: groups.count(group) for group in dict.fromkeys(groups)},
        "people": {group: len({r.patient for r in seen if r.group == group}) for group in dict.fromkeys(groups)},
        "notes": list(notes),
        "facts": dict(facts),
    }
    write_text(path, json.dumps(summary, indent=1) + "\n")
    return summary


def descriptions(detectors: Sequence[Detector]) -> dict[str, dict[str, Any]]:
    """Name -> description of each detector's score; labels that several share are followed by the name."""
    scores = [detector.quantity for detector in detectors]
    labels = [score.label for score in scores]
    return {
        score.key: {
            **score.description(),
            "label": score.label if labels.count(score.label) == 1 else f"{score.label} ({score.key})",
        }
        for score in scores
    }


def print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """A short table: the AUROC of every detector in every column, the best mean first."""
    detectors: Mapping[str, Mapping[str, Any]] = summary["detectors"]
    columns = [column for column in COLUMNS if any(column in found for found in detectors.values())]
    table = Table("AUROC", *(column.replace("_", " ") for column in columns))
    for name in sorted(detectors, key=lambda name: -(detectors[name].get("mean", {}).get("auroc") or 0)):
        figures = [detectors[name].get(column, {}).get("auroc") for column in columns]
        table.add_row(name, *("-" if figure is None else f"{figure:.3f}" for figure in figures))
    console.print(table)
    verdict = summary["verdict"]
    if verdict["false_alarm_rate"] is None:
        console.print(f"{verdict['detector']} cannot decide at alpha = {verdict['alpha']:g}: too few calibration cases")
    else:
        found = verdict["detection_rate"]
        rejects = "" if found is None else f" and {found:.0%} of the OOD ones"
        console.print(
            f"{verdict['detector']} rejects {verdict['false_alarm_rate']:.0%} of the in-distribution images{rejects} "
            f"(alpha = {verdict['alpha']:g})"
        )
        console.print(_alarm_table(summary["false_alarms"][verdict["detector"]]))
    if "both_verdicts" in summary:
        console.print(_verdict_table(summary["both_verdicts"]))
    gain = summary["failure"][verdict["detector"]]["rejecting"]
    if gain is not None:
        console.print(f"{verdict['detector']}: {gain}", soft_wrap=True, highlight=False)
    for note in summary["notes"]:
        console.print(f"note: {note}", soft_wrap=True, highlight=False)


def _alarm_table(alarms: Mapping[str, Any]) -> Table:
    """False alarms by patient, of each task and of all."""
    table = Table("false alarms", "patients", "flagged", "rate", "95 % interval (exact)")
    for name, row in {**alarms["tasks"], "all tasks": alarms}.items():
        known = row["rate"] is not None
        rate = (f"{row['rate']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}") if known else ("-", "-")
        table.add_row(name, str(row["people"]), str(row["people_flagged"]), *rate)
    return table


def _verdict_table(found: Mapping[str, Any]) -> Table:
    """How many images of each kind are flagged by each of the two verdicts."""
    table = Table("flagged", "images", "by the image's verdict", "by the mask's", "by either", "Dice of the others")
    rows = {**found["groups"], "wrong masks": found["wrong_masks"], "acceptable masks": found["acceptable_masks"]}
    for name, row in rows.items():
        others = row["dice_of_unflagged"]
        counts = (str(row[key]) for key in ("images", "image", "mask", "either"))
        table.add_row(name.replace("_", " "), *counts, "-" if others is None else f"{others:.2f}")
    return table


def _columns(of: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Any]]:
    """Detector -> column -> figures; all detectors have scored the same images in the same order."""
    first = next(iter(of.values()))
    images = Scored(
        groups=[record.group for record in first],
        conditions=[record.condition for record in first],
        severities=[record.severity for record in first],
        patients=[record.patient for record in first],
    )
    found = benchmark_table(images, {name: [record.score for record in records] for name, records in of.items()})
    return {
        name: {
            column: {
                "auroc": figures.auroc.value,
                "low": figures.auroc.low,
                "high": figures.auroc.high,
                "reliable": figures.auroc.reliable,
                "fpr_at_95_in_kept": figures.fpr_at_95_in_kept,
                "people": figures.people,
                "rank": figures.rank,
            }
            for column, figures in columns.items()
        }
        for name, columns in found.items()
    }


def _verdict(records: Sequence[Record], alpha: float) -> dict[str, float | None]:
    inside = [record.rejected for record in records if record.group == "in_distribution"]
    outside = [record.rejected for record in records if record.group in OUT_OF_DISTRIBUTION]
    return {"alpha": alpha, "false_alarm_rate": _share(inside), "detection_rate": _share(outside)}


def _false_alarms(records: Sequence[Record]) -> dict[str, Any]:
    """Test patients with a rejected image: of all tasks, and under `tasks` of each."""
    tested = [record for record in records if record.group == "in_distribution"]
    rejected, patients = [record.rejected for record in tested], [record.patient for record in tested]
    tasks = flagged_by_task(rejected, patients, [record.task for record in tested])
    own = {task: asdict(found) for task, found in tasks.items()}
    return {**asdict(flagged_people(rejected, patients)), "tasks": own}


def _rate_if_exchangeable(records: Sequence[Record], alpha: float) -> dict[str, Any]:
    held = [record for record in records if record.group in ("calibration", "in_distribution")]
    found = rate_if_exchangeable(
        [record.score for record in held],
        [record.task for record in held],
        [record.patient for record in held],
        alpha,
    )
    rate = found.rate
    return {
        "rate": rate.value,
        "low": rate.low,
        "high": rate.high,
        "reliable": rate.reliable,
        "tasks": dict(found.tasks),
        "decided": found.decided,
    }


def _failure(records: Sequence[Record]) -> dict[str, Any]:
    """From all images with a label, shifted or not, except calibration images."""
    labelled = [record for record in records if record.group != "calibration"]
    scores = [record.score for record in labelled]
    dice = [math.nan if record.dice is None else record.dice for record in labelled]
    inside = [record.group == "in_distribution" for record in labelled]
    found = failure_detection(scores, dice, [record.patient for record in labelled], inside)
    gain = rejection(scores, dice, REJECTED_SHARE)
    return {
        **{name: getattr(found, name).value for name in FAILURE},
        "intervals": {name: [getattr(found, name).low, getattr(found, name).high] for name in FAILURE},
        "reliable": found.aurc.reliable,
        "images": found.images,
        "people": found.people,
        "rejecting": None if gain is None else str(gain),
    }


def _share(rejected: Sequence[bool | None]) -> float | None:
    known = [bool(each) for each in rejected if each is not None]
    return sum(known) / len(known) if known else None
