"""A comparison as `compare.json` holds it, with numbers that are plausible and tell a mixed story."""

from itertools import combinations
from typing import Any

import numpy as np
import torch

from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.experiment.plan.labels import describe_keys

METRICS = {
    "dice": {"label": "Dice", "unit": "", "higher_is_better": True, "digits": 3},
    "hd95_mm": {"label": "HD95", "unit": "mm", "higher_is_better": False, "digits": 2},
    "asd_mm": {"label": "ASD", "unit": "mm", "higher_is_better": False, "digits": 2},
    "ece_band": {"label": "ECE in the band", "unit": "", "higher_is_better": False, "digits": 3},
    "ace_band": {"label": "ACE in the band", "unit": "", "higher_is_better": False, "digits": 3},
    "brier_band": {"label": "Brier score in the band", "unit": "", "higher_is_better": False, "digits": 3},
    "nll_band": {"label": "NLL in the band", "unit": "nats", "higher_is_better": False, "digits": 3},
}
TYPICAL = {"dice": 0.86, "hd95_mm": 7.4, "asd_mm": 1.4, "ece_band": 0.06}
TYPICAL |= {"ace_band": 0.12, "brier_band": 0.055, "nll_band": 0.19}
NOTE = "Digital phantoms, not patients"
TOO_SMALL = "no evidence: n too small"


def make_comparison(
    arms: tuple[str, ...] = ("dedicated", "transfer", "multitask"),
    patients: dict[str, int] | None = None,
    sizes: tuple[int, ...] = (2, 4, 8),
) -> dict[str, Any]:
    """A comparison of `arms` on tasks with so many patients each; the same arguments give the same numbers."""
    if patients is None:
        patients = {"HippocampusMR": 26, "SpleenCT": 9, "ProstateMR": 12, "SarcomaMR": 4, "SarcomaCT": 4}
    generator = np.random.default_rng(0)
    block = make_block(generator, arms, patients, 1.0)
    few = {str(size): make_block(generator, arms, patients, 1 - 0.9 / size) for size in sizes}
    cells = [(arm, task, size) for arm in arms for task in patients for size in (*sizes, None)]
    runs = [
        {"name": f"{arm}-{task}-{i:08x}", "arm": arm, "task": task, "seed": 0, "fold": None, "cases": size}
        | {"steps": 600, "fingerprint": f"{i:08x}"}
        for i, (arm, task, size) in enumerate(cells)
    ]
    return {
        "schema": 2,
        "experiment": "phantoms",
        "data_note": NOTE,
        "level": 0.05,
        "budget": {"notion": "steps", "text": "600 optimizer steps of 4 patches a model, pre-training included"},
        "arms": describe_keys(arms),
        "metrics": METRICS,
        **block,
        "sizes": few,
        "refused": [],
        "missing": [],
        "notes": [],
        "runs": runs,
    }


def make_block(
    generator: np.random.Generator, arms: tuple[str, ...], patients: dict[str, int], quality: float
) -> dict[str, Any]:
    rows = {task: make_row(generator, arms, n, quality) for task, n in patients.items()}
    return {"tasks": rows, "mean": make_row(generator, arms, sum(patients.values()), quality)}


def make_row(generator: np.random.Generator, arms: tuple[str, ...], n: int, quality: float) -> dict[str, Any]:
    cells: dict[str, Any] = {arm: {} for arm in arms}
    pairs = []
    for metric, about in METRICS.items():
        higher = about["higher_is_better"]
        level = TYPICAL[metric] * (quality if higher else 1 / quality) * generator.uniform(0.9, 1.1)
        for arm in arms:
            mean = float(level * generator.uniform(0.93, 1.07))
            wide = float(level * generator.uniform(0.1, 0.2) / np.sqrt(max(n, 1)))
            cells[arm][metric] = {"mean": mean, "low": mean - wide, "high": mean + wide, "n": n, "undefined": 0}
        for b, a in combinations(arms, 2):
            difference = cells[a][metric]["mean"] - cells[b][metric]["mean"]
            wide = float(level * generator.uniform(0.15, 0.25) / np.sqrt(max(n, 1)))
            p = min(1.0, max(2.0 ** (1 - n), float(np.exp(-4 * (difference / wide) ** 2))))
            smallest = min(1.0, 2.0 ** (1 - n) * 15)
            p_holm = min(1.0, max(p * 6, smallest))
            verdict = TOO_SMALL if smallest > 0.05 else "no evidence"
            if p_holm <= 0.05:
                verdict = "better" if (difference > 0) == higher else "worse"
            pairs.append(
                {"a": a, "b": b, "metric": metric, "difference": difference, "low": difference - wide}
                | {"high": difference + wide, "n": n, "p": p, "p_holm": p_holm}
                | {"smallest_p_holm": smallest, "rank_biserial": 0.42, "cohen_dz": 0.31}
                | {"verdict": verdict}
            )
    return {"arms": cells, "pairs": pairs}


def make_tables(arms: tuple[str, ...], tasks: tuple[str, ...]) -> dict[str, dict[str, BinTable]]:
    """Arm -> task -> bins of voxels whose confidence is the more exaggerated, the earlier the arm."""
    generator = np.random.default_rng(0)

    def table(arm: int) -> BinTable:
        true = generator.beta(0.6, 0.6, 4000)
        label = torch.tensor(generator.uniform(size=4000) < true)
        odds = np.log(true / (1 - true)) * (1.6 - 0.25 * arm)
        return bin_volume(torch.tensor(1 / (1 + np.exp(-odds))), label)

    return {arm: {task: table(index) for task in tasks} for index, arm in enumerate(arms)}


def set_verdicts(comparison: dict[str, Any], a: str, b: str, verdicts: dict[str, str]) -> None:
    """Give a pair's Dice these verdicts, task by task; the row "mean" is that over all tasks."""
    rows = {**comparison["tasks"], "mean": comparison["mean"]}
    for task, verdict in verdicts.items():
        for pair in rows[task]["pairs"]:
            if (pair["a"], pair["b"], pair["metric"]) == (a, b, "dice"):
                pair["verdict"] = verdict
