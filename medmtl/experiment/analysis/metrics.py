"""Metrics that arms are compared by, each a column of `cases.csv`, described as `Quantity`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medmtl.accuracy import ACCURACY
from medmtl.quantity import Quantity

REGION = "band"
_CALIBRATION = (
    Quantity("ece", "ECE", higher_is_better=False),
    Quantity("ace", "ACE", higher_is_better=False),
    Quantity("brier", "Brier score", higher_is_better=False),
    Quantity("nll", "NLL", "nats", higher_is_better=False),
)


def _over_region(metric: Quantity) -> Quantity:
    return replace(metric, key=f"{metric.key}_{REGION}", label=f"{metric.label} in the {REGION}")


COMPARED: Mapping[str, Quantity] = MappingProxyType(
    {**ACCURACY, **{metric.key: metric for metric in map(_over_region, _CALIBRATION)}}
)


def own_metrics(report: Path, columns: Sequence[str]) -> dict[str, Quantity]:
    """Calibration metrics of a user's own that a run measured over the region and that have a direction.

    Args:
        report: `report.json` of the run, which describes its calibration metrics.
        columns: of its `cases.csv`.
    """
    if not report.is_file():
        return {}
    described: Mapping[str, Mapping[str, Any]] = json.loads(report.read_text()).get("metrics") or {}
    found = (_over_region(Quantity(**{"key": key, **about})) for key, about in described.items())
    return {
        metric.key: metric
        for metric in found
        if metric.key in columns and metric.key not in BUILT_IN and metric.higher_is_better is not None
    }


def describe(metrics: Mapping[str, Quantity]) -> dict[str, dict[str, Any]]:
    """Key -> label, unit, higher_is_better and digits, as `compare.json` holds them."""
    return {key: {part: value for part, value in asdict(metric).items() if part != "key"} for key, metric in metrics.items()}
