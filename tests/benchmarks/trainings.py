"""What `medmtl ood` found on several trainings of one configuration, as mean and range: one run decides little.

    python tests/benchmarks/trainings.py runs/seed0 runs/seed1 runs/seed2

Prints Markdown tables from the `ood.json` and `ood.csv` of each run: images flagged at the verdict's own threshold, the
AUROC of every detector on far images, false alarms, and the failure figures.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmtl.results.benchmark import Record, read_records

RIVALS = ("by_task", "fusion", "shape", "spectral", "spectral_published", "entropy", "max_softmax", "flip_disagreement")


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean and range: `0.912 (0.880 to 0.940)`."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    low, high, mean = min(known), max(known), sum(known) / len(known)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def flagged(records: Sequence[Record], detector: str, condition: str) -> str:
    """How many images of a condition a detector flags: `7 of 9`."""
    own = [each for each in records if each.detector == detector and each.condition == condition]
    return f"{sum(each.rejected is True for each in own)} of {len(own)}"


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [[title, *heads], ["---"] * (1 + len(heads)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def far_table(runs: Sequence[str], found: Sequence[dict[str, Any]], tables: Sequence[list[Record]]) -> str:
    """Far and near images flagged at the verdict's own threshold."""
    detector = found[0]["verdict"]["detector"]
    seen = [each for each in tables[0] if each.group in ("far", "near")]
    conditions = dict.fromkeys(each.condition for each in seen)
    rows = [[name, *(flagged(records, detector, name) for records in tables)] for name in conditions]
    for group in found[0]["both_verdicts"]["groups"]:
        for key, words in (("image", "image"), ("mask", "mask"), ("either", "either")):
            cells = [each["both_verdicts"]["groups"][group] for each in found]
            rows.append([f"{group}, by {words}", *(f"{cell[key]} of {cell['images']}" for cell in cells)])
    for kind in ("wrong_masks", "acceptable_masks"):
        for key in ("image", "mask", "either"):
            cells = [each["both_verdicts"][kind] for each in found]
            rows.append([f"{kind}, by {key}", *(f"{cell[key]} of {cell['images']}" for cell in cells)])
    return table("flagged", runs, rows)


def figure_table(found: Sequence[dict[str, Any]]) -> str:
    """AUROC and failure figures of the rivals, mean and range."""
    rows = []
    for name in RIVALS:
        if not all(name in each["detectors"] for each in found):
            continue
        columns = [[each["detectors"][name][column]["auroc"] for each in found] for column in ("far", "mean")]
        ranks = "/".join(str(each["detectors"][name]["far"]["rank"]) for each in found)
        failure = [[each["failure"][name][key] for each in found] for key in ("aurc", "e_aurc", "drop", "spearman")]
        rows.append([name, spread(columns[0]), ranks, *(spread(each) for each in (columns[1], *failure))])
    heads = ("AUROC far", "rank", "AUROC mean", "AURC", "E-AURC", "expected drop", "Spearman with Dice")
    return table("detector", heads, rows)


def alarm_table(runs: Sequence[str], found: Sequence[dict[str, Any]]) -> str:
    """False alarms by person, of the procedure, and how well disagreement tells wrong masks."""
    names = [each["verdict"]["detector"] for each in found]
    alarms = [each["false_alarms"][name] for each, name in zip(found, names, strict=True)]
    rates = [each["rate_if_exchangeable"][name] for each, name in zip(found, names, strict=True)]
    worst = [max((rate, task) for task, rate in each["tasks"].items() if rate is not None) for each in rates]
    auroc = [each["both_verdicts"]["auroc"] for each in found]
    rows = [
        ["people flagged in error", *(f"{each['people_flagged']} of {each['people']}" for each in alarms)],
        ["rate of the procedure", *(f"{each['rate']:.3f} [{each['low']:.3f}, {each['high']:.3f}]" for each in rates)],
        ["the same, worst task", *(f"{rate:.3f} ({task})" for rate, task in worst)],
        [
            "AUROC of the disagreement for wrong masks",
            *("-" if a is None else f"{a['value']:.3f} [{a['low']:.2f}, {a['high']:.2f}]" for a in auroc),
        ],
    ]
    return table("", runs, rows)


def main() -> None:
    """Read the runs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args().runs
    names = [run.name for run in runs]
    found = [json.loads((run / "ood" / "ood.json").read_text()) for run in runs]
    tables = [read_records(run / "ood" / "ood.csv") for run in runs]
    for part in (far_table(names, found, tables), figure_table(found), alarm_table(names, found)):
        print(part)


if __name__ == "__main__":
    main()
