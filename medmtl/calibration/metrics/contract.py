"""Contract test of calibration metrics, for the tests of a user's own."""

import math
from dataclasses import fields

import torch
from torch import Tensor

from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.calibration.metrics.definitions import ALL_METRICS, BinMetric
from medmtl.contract import requirements

VOXELS = 4000


def check_metric(metric: BinMetric) -> None:
    """Check that a calibration metric has the properties that the rest of medmtl relies on.

    Args:
        metric: an instance, as `class_path` constructs it.

    Raises:
        AssertionError: names the requirement that is not met.
    """
    require = requirements(metric, "a calibration metric")
    key = getattr(metric, "key", "")
    require(isinstance(key, str) and key.isidentifier(), "has a key of letters, digits and underscores")
    require(ALL_METRICS.get(key, metric) is metric, "has a key that no built-in metric has")
    require(isinstance(getattr(metric, "label", None), str) and bool(metric.label), "has a label")
    require(isinstance(metric.unit, str), "has a unit, or an empty one")
    require(metric.higher_is_better in (True, False, None), "is better higher or lower, or neither")
    require(isinstance(metric.digits, int) and metric.digits >= 0, "has a number of digits")

    probability, label = _volume(0)
    table = bin_volume(probability, label)
    before = _copy(table)
    value = metric(table)
    require(isinstance(value, float) and math.isfinite(value), "gives a finite float for a usual table")
    require(_alike(table, before), "leaves the table as it is")
    require(metric(table) == value, "gives the same for the same table")

    more, more_label = _volume(1, VOXELS // 3)
    pooled = metric(table + bin_volume(more, more_label))
    together = metric(bin_volume(torch.cat([probability, more]), torch.cat([label, more_label])))
    require(
        math.isclose(pooled, together, rel_tol=1e-9, abs_tol=1e-12),
        "gives for two volumes pooled what it gives for all their voxels binned at once",
    )

    nothing = torch.zeros(VOXELS, dtype=torch.bool)
    for name, region in (("an empty table", nothing), ("a table without foreground", ~label), ("one bin", ~nothing)):
        binned = bin_volume(probability, label, region, bins=1 if name == "one bin" else 15)
        try:
            found = metric(binned)
        except Exception as error:
            require(False, f"gives a float, NaN where it is undefined, for {name}, but raises {error!r}")
        require(isinstance(found, float), f"gives a float, NaN where it is undefined, for {name}")

    if metric.higher_is_better is not None:
        best = metric(bin_volume(label.float(), label))
        for p in (1 - label.float(), probability.round(), probability):  # wrong, too sure, as they are
            other = metric(bin_volume(p, label))
            better = other > best if metric.higher_is_better else other < best
            require(not better, "is at its best where probabilities are 0 for background and 1 for foreground")


def _volume(seed: int, voxels: int = VOXELS) -> tuple[Tensor, Tensor]:
    """Probabilities in [0, 1] with both ends frequent, over-confident for labels drawn from a flatter curve."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(voxels, generator=generator)
    label = torch.rand(voxels, generator=generator) < torch.sigmoid(logits / 2)
    return torch.sigmoid(logits), label


def _copy(table: BinTable) -> BinTable:
    return BinTable.from_dict(table.to_dict())


def _alike(table: BinTable, other: BinTable) -> bool:
    pairs = ((getattr(table, field.name), getattr(other, field.name)) for field in fields(BinTable))
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)
