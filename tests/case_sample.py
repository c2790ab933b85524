from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.results.case import CaseResult
from medmtl.results.test import EvaluationResult, build_report


def bins_of(probability: list[float], label: list[int]) -> BinTable:
    return bin_volume(torch.tensor(probability, dtype=torch.float64), torch.tensor(label), bins=5)


def report_of(results: Sequence[CaseResult], **given: Any) -> dict[str, Any]:
    """What `report.json` holds of these cases."""
    return build_report(EvaluationResult("run", results, **({"alpha": 0.05, "ood_score": "spectral"} | given)))


@pytest.fixture(scope="module")
def make_case() -> Callable[..., CaseResult]:
    """One case; what a test does not name is plausible and unimportant to it."""

    def make(case: str = "a", dataset: str = "Liver", expected: str = "in", **given: Any) -> CaseResult:
        known = expected == "in"
        table = bins_of([0.05, 0.35, 0.75, 0.95], [0, 0, 1, 1])
        values: dict[str, Any] = {
            "dice": 0.9 if known else None,
            "hd95_mm": 4.5 if known else None,
            "asd_mm": 1.5 if known else None,
            "calibration": {"whole": table, "band": table} if known else {},
            "scores": {"spectral": 0.1, "entropy": 0.2, "max_softmax": 0.05},
            "p_value": 0.5,
            "rejected": False,
            "nearest_task": "Liver",
            "preprocessing": "1 x 1 x 1 mm, z-score",
        }
        return CaseResult(case=case, dataset=dataset, expected=expected, **(values | given))

    return make


@pytest.fixture(scope="module")
def results(make_case: Callable[..., CaseResult]) -> list[CaseResult]:
    """Two tasks of four cases and three OOD images, of which the spectral score finds all and entropy not all."""
    generator = np.random.default_rng(0)
    found = []
    for task, dice in (("Liver", 0.9), ("Heart", 0.7)):
        for index in range(4):
            label = generator.integers(0, 2, 400)
            probability = np.clip(0.5 + (label - 0.5) * generator.uniform(0, 1, 400), 0, 1)
            table = bins_of(probability.tolist(), label.tolist())
            scores = {"spectral": 0.01 + 0.01 * index, "entropy": 0.1 + 0.1 * index, "max_softmax": 0.1}
            found.append(
                make_case(
                    f"{task}_{index}",
                    task,
                    dice=dice - 0.1 * index,
                    calibration={"whole": table, "band": table},
                    scores=scores,
                    rejected=index == 3 and task == "Heart",
                    nearest_task=task,
                )
            )
    for index in range(3):
        scores = {"spectral": 0.1 + 0.1 * index, "entropy": 0.15 + 0.1 * index, "max_softmax": 0.2}
        found.append(make_case(f"ood_{index}", "Other", "out", scores=scores, p_value=0.04, rejected=index > 0))
    return found
