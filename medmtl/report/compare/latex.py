"""The LaTeX table of a comparison: arms within tasks, metrics with their intervals, in the manner of booktabs."""

import re
from collections.abc import Mapping
from typing import Any

from medmtl.report.compare.reading import (
    arms_of,
    budget,
    classes_of,
    find_pair,
    intervals,
    label_of,
    metric_of,
    patients,
    protocol,
    rows_of,
    value_of,
    with_interval,
)
from medmtl.results.compared import COMPARED

COLUMNS = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "ace_band": "ACE in the band"}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


def latex_table(comparison: Mapping[str, Any]) -> str:
    """The table as a file that a paper inputs; it needs the package booktabs.

    A number is bold only where the verdicts call its arm better than every other arm of the row's task.

    Args:
        comparison: what `compare.json` holds.
    """
    arms = arms_of(comparison, comparison["arms"])
    classes = classes_of(comparison)
    groups = []
    for name, row in rows_of(comparison).items():
        groups.append(_group(comparison, escaped(name), row, arms))
        for each, own in classes.get(name, {"tasks": {}})["tasks"].items():
            groups.append(_group(comparison, rf"\quad {escaped(each)}", own, arms))
    columns = _columns(comparison)
    head = " & ".join(("Task", "Training", *columns.values()))
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        rf"\caption{{{_caption(comparison)}}}",
        r"\begin{tabular}{ll" + "r" * len(columns) + "}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        "\n\\addlinespace\n".join(groups),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def escaped(text: str) -> str:
    """A text on one line without LaTeX commands."""
    plain = re.sub("|".join(map(re.escape, _SPECIAL)), lambda found: _SPECIAL[found[0]], " ".join(text.split()))
    return f"{{}}{plain}" if plain.startswith(("[", "*")) else plain  # options of the line break before it, otherwise


def _columns(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> head of its column: three built-in ones, and the user's own."""
    own = [metric for metric in comparison["metrics"] if metric not in COMPARED]
    return COLUMNS | {metric: escaped(metric_of(comparison, metric).label) for metric in own}


def _group(comparison: Mapping[str, Any], head: str, row: Mapping[str, Any], arms: list[str]) -> str:
    """The lines of a task or a class: one an arm, its name in the first."""
    lines = []
    for index, arm in enumerate(arms):
        cells = [head if index == 0 else "", escaped(label_of(comparison, arm))]
        for metric in _columns(comparison):
            text = escaped(with_interval(value_of(row, arm, metric), metric_of(comparison, metric)))
            cells.append(rf"\textbf{{{text}}}" if _best(row, arm, arms, metric) else text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join(lines)


def _best(row: Mapping[str, Any], arm: str, arms: list[str], metric: str) -> bool:
    """Whether the verdicts call an arm better than every other one."""
    beaten = []
    for other in arms:
        ahead, behind = find_pair(row, arm, other, metric), find_pair(row, other, arm, metric)
        beaten.append((ahead or {}).get("verdict") == "better" or (behind or {}).get("verdict") == "worse")
    return len(arms) > 1 and sum(beaten) == len(arms) - 1


def _caption(comparison: Mapping[str, Any]) -> str:
    sentences = [
        f"Experiment {comparison['experiment']}.",
        f"Mean over test cases [its interval]. {intervals(comparison)}",
        budget(comparison),
        f"{protocol(comparison)} Patients a task: n = {patients(comparison['tasks'].values(), COLUMNS)}.",
        "HD95: 95th-percentile Hausdorff distance; an empty prediction counts as the volume's diagonal. ACE: average "
        "calibration error within 5 mm of the organ.",
        f"Bold: better than every other arm (Wilcoxon signed-rank, Holm-corrected, level {comparison['level']:g}, and "
        "an interval of the difference that excludes 0).",
    ]
    if comparison.get("classes"):
        sentences.append(
            "Indented: the classes of the task above, whose figures are means over them; p-values of classes are "
            "corrected over all classes of all tasks."
        )
    if comparison["missing"]:
        sentences.append("Runs that are missing or left out are named in compare.json.")
    if comparison["data_note"]:
        sentences.append(f"{comparison['data_note']}.")
    return escaped(" ".join(sentences))
