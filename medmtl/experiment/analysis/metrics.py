"""Metrics that arms are compared by: the built-in ones, and a user's own calibration metrics that all runs measured."""

from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from medmtl.calibration.metrics.definitions import METRICS
from medmtl.files import read_json
from medmtl.quantity import Quantity
from medmtl.results.compared import COMPARED
from medmtl.typed import typed

REGION = "band"  # over which calibration is compared


def own_metrics(report: Path, columns: Collection[str]) -> dict[str, Quantity]:
    """Calibration metrics of a user's own that a run measured over the region, those with a direction.

    Args:
        report: `report.json` of the run, which describes what was measured.
        columns: of its `cases.csv`.

    Returns:
        Column of `cases.csv` -> what it holds.
    """
    if not report.is_file():
        return {}
    described = typed(dict[str, dict[str, Any]], typed(dict[str, Any], read_json(report)).get("metrics") or {})
    found = {}
    for key, about in described.items():
        column, higher = f"{key}_{REGION}", about.get("higher_is_better")
        if column in columns and key not in METRICS and higher is not None:
            known = {"label": f"{about['label']} in the {REGION}", "higher_is_better": higher}
            known |= {name: about[name] for name in ("unit", "digits") if name in about}
            found[column] = typed(Quantity, {"key": column, **known}, key)
    return found


def metrics_in_common(own: Iterable[Mapping[str, Quantity]]) -> dict[str, Quantity]:
    """What runs can be compared by: the built-in metrics, and the own ones that all of them measured.

    Args:
        own: `own_metrics` of each run.
    """
    common = reduce(lambda first, second: {key: first[key] for key in first if key in second}, map(dict, own))
    return {**COMPARED, **common}


def describe(metrics: Mapping[str, Quantity]) -> dict[str, dict[str, Any]]:
    """The metrics as `compare.json` holds them: key -> label, unit, higher_is_better and digits."""
    return {
        key: {
            "label": metric.label,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            "digits": metric.digits,
        }
        for key, metric in metrics.items()
    }
