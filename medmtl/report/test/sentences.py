"""Sentences of the page of a test: its headline, what to conclude, and what scaling changed."""

from collections.abc import Mapping, Sequence
from typing import Any

from medmtl.calibration.metrics.intervals import INTERVAL_METRICS
from medmtl.calibration.metrics.regions import REGIONS
from medmtl.report.html import bracketed
from medmtl.results.intervals import BETTER, NOTHING, TOO_FEW, WORSE

SCALED_REGIONS = ("whole", "band")

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
    masks = ood["masks"]
    if masks["doubtful"] or masks["acceptable"]:
        bar = f"{masks['acceptable_dice']:g}"
        found = f"{masks['doubtful_found']} of {_count(masks['doubtful'], 'mask', words=False)} with Dice below {bar}"
        sentences.append(
            f"It called {found} not reliable, and {masks['acceptable_flagged']} of {masks['acceptable']} others."
        )
    if ood["note"]:
        sentences.append(ood["note"])
    return " ".join(sentences)


def conclusions(report: Mapping[str, Any]) -> list[str]:
    """What a reader should take from a test: about its masks, its warnings and its verdicts, a sentence each.

    Args:
        report: the content of `report.json`.
    """
    return [each for each in (_about_masks(report), _about_warnings(report), _about_verdicts(report)) if each]


def _about_masks(report: Mapping[str, Any]) -> str:
    means = {name: task["dice"]["mean"] for name, task in report["tasks"].items() if task["dice"]["mean"] is not None}
    if not means:
        return ""
    lowest = min(means, key=lambda name: means[name])
    ends = report["tasks"][lowest]["accuracy_intervals"]["dice"]
    words = f"Dice {bracketed(means[lowest], ends, 2)}"
    if len(means) == 1:
        return f"Masks of {lowest} have {words}."
    return f"Masks are worst for {lowest}, {words}, and best for {max(means, key=lambda name: means[name])}."


def _about_warnings(report: Mapping[str, Any]) -> str:
    masks = report["ood"]["masks"]
    if not masks["doubtful"]:
        return ""
    silent = masks["doubtful"] - masks["doubtful_found_by_either"]
    bar = f"Dice below {masks['acceptable_dice']:g}"
    if not silent:
        return f"Every mask with {bar} comes with a warning."
    return (
        f"{silent} of {_count(masks['doubtful'], 'mask', words=False)} with {bar} {_come(silent)} without any warning."
    )


def _about_verdicts(report: Mapping[str, Any]) -> str:
    verdict = report["ood"]["verdict"]
    if not verdict["out_decided"]:
        return ""
    missed = verdict["out_decided"] - verdict["detections"]
    if not missed:
        return f"No OOD image of {verdict['out_decided']} was missed; another kind of image still may be."
    share = f"{missed} of {_count(verdict['out_decided'], 'OOD image', words=False)}"
    return f"An accepted image is not proof: {share} {'was' if missed == 1 else 'were'} accepted."


def _come(count: int) -> str:
    return "comes" if count == 1 else "come"


def gain_sentences(report: Mapping[str, Any]) -> list[str]:
    """What scaling changed on the test cases, in the whole volume and in the band.

    Args:
        report: the content of `report.json`.

    Returns:
        Sentences; none where nothing was scaled.
    """
    if not report["scaling"]:
        return []
    sentences = [sentence for region in SCALED_REGIONS for sentence in _gain(report, region)]
    by_task: dict[str, Any] = {}
    for name, task in report["tasks"].items():
        gains = [task["scaling_gain"][region] for region in SCALED_REGIONS if region in task["scaling_gain"]]
        by_task |= {name: [one for gain in gains for one in gain.values()]} if gains else {}
    few = [name for name, gains in by_task.items() if any(one["verdict"] == TOO_FEW for one in gains)]
    means = [gain[key] for gain in report["mean"]["scaling_gain"].values() for key in gain]
    if by_task and any(one["verdict"] == TOO_FEW for one in means):
        sentences.append("There are too few patients to tell the effect of scaling from chance.")
    elif few:
        sentences.append(f"Taken alone, {_listed(few)} {'has' if len(few) == 1 else 'have'} too few patients to tell.")
    ratios = [_ratios(report, kind) for kind in ("calibration", "calibration_scaled")]
    if all(ratios):
        before, after = (" to ".join(dict.fromkeys((f"{min(own):.2f}", f"{max(own):.2f}"))) for own in ratios)
        by = " by task" if len(report["tasks"]) > 1 else ""
        sentences.append(f"The expected volume is {after} times the true one{by}; before scaling {before}.")
    return sentences


def routing_sentence(report: Mapping[str, Any]) -> str:
    """Dice with the task told beside Dice with the task recognised; empty for a network with one output for all.

    Args:
        report: the content of `report.json`.
    """
    routing = report.get("routing")
    if not routing:
        return ""
    told, recognised = (routing[key] for key in ("dice_told", "dice_recognised"))
    wrong = f"{routing['wrong']} of {_count(routing['cases'], 'test case', words=False)} got the output of another task"
    if told is None or recognised is None:
        return f"{wrong}."
    means = f"{told:.4f} with the task told and {recognised:.4f} with it recognised"
    return f"Mean Dice over the test cases is {means}: {wrong}."


def _gain(report: Mapping[str, Any], region: str) -> list[str]:
    mean = report["mean"]["scaling_gain"].get(region)
    tasks = [name for name, task in report["tasks"].items() if region in task["scaling_gain"]]
    if mean is None or not tasks:
        return []
    over = "in the mean over tasks" if len(tasks) > 1 else f"on {tasks[0]}"
    words = {BETTER: "lowers", WORSE: "raises", NOTHING: "has no clear effect on"}
    parts = []
    for verdict, verb in words.items():
        keys = [key for key in INTERVAL_METRICS if mean[key]["verdict"] == verdict]
        if keys:
            parts.append(f"{verb} {_listed([report['metrics'][key]['label'] for key in keys])}")
    return [f"In the {REGIONS[region].label} scaling {_listed(parts)} {over}."] if parts else []


def _ratios(report: Mapping[str, Any], kind: str) -> list[float]:
    """Expected over true volume of each task, of the whole volume."""
    found = [task[kind].get("whole", {}).get("volume_ratio") for task in report["tasks"].values()]
    return [ratio for ratio in found if ratio is not None]


def _count(count: int, noun: str, words: bool = True) -> str:
    name = _WORDS[count] if words and count < len(_WORDS) else str(count)
    return f"{name} {noun}" if count == 1 else f"{name} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
