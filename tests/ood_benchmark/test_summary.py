"""The summary of a benchmark: what it says of false alarms, of people, and of the width of its intervals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood_benchmark.options import Options
from medmtl.ood_benchmark.score import with_decisions
from medmtl.ood_benchmark.summary import write_summary
from medmtl.results.benchmark import Record

# Test scores lie so many standard deviations above held-out ones.
SHIFTED = (0, 1, 3, 10)


def made(shift: float, seed: int = 0) -> list[Record]:
    """29 held-out patients and 100 test patients of one task, the scores of the latter shifted."""
    generator = np.random.default_rng(seed)
    rows = [
        Record(
            "spectral", group, "Liver", 0, "Liver", f"{group}{who}", f"{group}{who}", added + generator.normal(), 0.9
        )
        for group, people, added in (("calibration", 29, 0.0), ("in_distribution", 100, shift))
        for who in range(people)
    ]
    return with_decisions(rows, 0.05)


def summary_of(records: list[Record], folder: Path) -> dict[str, Any]:
    return write_summary(folder / "ood.json", records, [Spectral()], Options([Spectral()], shifts=[]), [], {})


def test_measured_false_alarms_rise_when_test_images_differ_from_held_out_ones(tmp_path: Path) -> None:
    found = []
    for shift in SHIFTED:
        made_of = [made(shift, seed) for seed in range(3)]
        rates = [summary_of(records, tmp_path)["false_alarms"]["spectral"]["rate"] for records in made_of]
        flagged = [[record.rejected for record in records if record.group == "in_distribution"] for records in made_of]
        assert rates == pytest.approx(np.mean(flagged, axis=1).tolist())
        found.append(np.mean(rates))
    # 1 in 30 by expectation where test patients are exchangeable with the held-out ones, and all of them far away.
    assert found[0] < 0.1
    assert 2 * found[0] < found[1] < found[2] < found[3] == 1
