"""Sentences of the page of a test: its headline, and what scaling changed."""

from collections.abc import Mapping, Sequence
from typing import Any

from medmtl.calibration.metrics.intervals import INTERVAL_METRICS
from medmtl.results.intervals import BETTER, NOTHING, TOO_FEW, WORSE

_ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def headline(report: Mapping[str, Any]) -> str:
    """Accuracy, detections and false alarms of a test, from its `report.json`."""
    tasks, ood = report["tasks"], report["ood"]
    verdict = ood["verdict"]
    if report["mean"]["dice"] is None:
        sentences = ["No test case had a Dice."]
    else:
        over = f"over {_count(len(tasks), 'task')}" if len(tasks) > 1 else f"on {next(iter(tasks))}"
        sentences = [f"Mean Dice {report['mean']['dice']:.2f} {over}."]
    parts = []
    if verdict["out_decided"]:
        volumes = _count(verdict["out_decided"], "OOD volume", words=False)
        parts.append(f"flagged {verdict['detections']} of {volumes}")
    if verdict["in_decided"]:
        alarms = ood["false_alarms"]
        volumes = _count(verdict["in_decided"], "in-distribution volume", words=False)
        patients = _count(alarms["people"], "patient", words=False)
        parts.append(
            f"raised a false alarm on {alarms['people_flagged']} of {patients} ({verdict['false_alarms']} of {volumes})"
        )
    if parts:
        sentences.append(f"At {_ALPHA} = {verdict['alpha']:g} it {' and '.join(parts)}.")
    if ood["note"]:
        sentences.append(ood["note"])
    return " ".join(sentences)


def gain_sentences(report: Mapping[str, Any]) -> list[str]:
    """What scaling changed on the test cases over the region that it was fitted on.

    Args:
        report: the content of `report.json`.

    Returns:
        Sentences; none where nothing was scaled.
    """
    region = report["scaling"]["region"] if report["scaling"] else None
    tasks = {
        name: task["scaling_gain"][region] for name, task in report["tasks"].items() if region in task["scaling_gain"]
    }
    if not tasks:
        return []
    whole = report["mean"]["scaling_gain"][region]
    over = "in the mean over tasks" if len(tasks) > 1 else f"on {next(iter(tasks))}"
    words = {BETTER: "lowers", WORSE: "raises", NOTHING: "has no clear effect on"}
    sentences = []
    for verdict in (BETTER, WORSE, NOTHING):
        keys = [key for key in INTERVAL_METRICS if whole[key]["verdict"] == verdict]
        if keys:
            labels = _listed([report["metrics"][key]["label"] for key in keys])
            sentences.append(f"Scaling {words[verdict]} {labels} {over}.")
    few = [name for name, gain in tasks.items() if any(one["verdict"] == TOO_FEW for one in gain.values())]
    if any(one["verdict"] == TOO_FEW for one in whole.values()):
        sentences.append("There are too few patients to tell the effect of scaling from chance.")
    elif few:
        sentences.append(f"Taken alone, {_listed(few)} {'has' if len(few) == 1 else 'have'} too few patients to tell.")
    return sentences


def _count(count: int, noun: str, words: bool = True) -> str:
    name = _WORDS[count] if words and count < len(_WORDS) else str(count)
    return f"{name} {noun}" if count == 1 else f"{name} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
