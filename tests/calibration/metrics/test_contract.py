"""`check_metric`: every built-in metric and one of a user's own hold it, and each broken promise is named."""

import math
import random

import pytest
from jsonargparse import ArgumentParser

from medmtl.calibration import ALL_METRICS, METRICS, REGIONS, BinMetric, BinTable, check_metric, metrics_with
from medmtl.errors import ConfigError
from medmtl.quantity import Quantity


class LastBin(BinMetric):
    key = "last_bin"
    label = "last bin"
    higher_is_better = True

    def __call__(self, table: BinTable) -> float:
        return float(table.positives[-1] / table.count[-1]) if table.count[-1] else math.nan


@pytest.mark.parametrize("metric", [*ALL_METRICS.values(), LastBin()], ids=lambda metric: metric.key)
def test_metrics_hold_the_contract(metric: BinMetric) -> None:
    check_metric(metric)


def emptied(table: BinTable) -> float:
    value = float(table.count[0])
    table.count.zero_()
    return value


BROKEN = {
    "has a key of letters": {"key": "last bin"},
    "has a key that no built-in metric has": {"key": "ece"},
    "has a label": {"label": ""},
    "has a unit": {"unit": None},
    "is better higher or lower": {"higher_is_better": "lower"},
    "has a number of digits": {"digits": 1.5},
    "gives a finite float": {"__call__": lambda self, table: int(table.count[0])},
    "leaves the table as it is": {"__call__": lambda self, table: emptied(table)},
    "gives the same for the same table": {"__call__": lambda self, table: random.random()},
    "gives for two volumes pooled": {"__call__": lambda self, table: table.negative_log_likelihood * 2**45 % 97},
    "gives a float, NaN where it is undefined, for an empty table, but raises ZeroDivisionError": {
        "__call__": lambda self, table: float(table.count[0]) / table.voxels
    },
    "gives a float, NaN where it is undefined, for an empty table": {
        "__call__": lambda self, table: 1.0 if table.voxels else None
    },
    "is at its best": {"higher_is_better": False},
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_promise_is_named(words: str) -> None:
    broken = type("Broken", (LastBin,), {"higher_is_better": None} | BROKEN[words])()
    with pytest.raises(AssertionError, match=f"^Broken breaks its contract: a calibration metric {words}"):
        check_metric(broken)


def test_a_metric_of_ones_own_is_named_by_its_class_path() -> None:
    parser = ArgumentParser()
    parser.add_argument("--metrics", type=list[BinMetric])
    parsed = parser.parse_args([f'--metrics=[{{"class_path": "{__name__}.LastBin"}}]'])
    metrics = metrics_with(parser.instantiate(parsed).metrics)
    assert list(metrics) == [*METRICS, "last_bin"]
    assert metrics["last_bin"].quantity == Quantity("last_bin", "last bin", higher_is_better=True)


def test_a_metric_over_a_region_is_a_column_with_its_description() -> None:
    assert METRICS["nll"].over(REGIONS["band"]) == Quantity("nll_band", "NLL in the band", "nats", False)


@pytest.mark.parametrize("key", ["ece", "rmsce", "two words", ""])
def test_a_key_that_is_taken_or_no_identifier_is_refused(key: str) -> None:
    metric = LastBin()
    metric.key = key
    with pytest.raises(ConfigError, match="LastBin"):
        metrics_with([metric])


def test_a_metric_without_a_label_and_a_second_one_of_the_same_key_are_refused() -> None:
    nameless = type("Nameless", (BinMetric,), {"key": "nameless", "__call__": LastBin.__call__})()
    with pytest.raises(ConfigError, match="Nameless has no key or no label"):
        metrics_with([nameless])
    with pytest.raises(ConfigError, match="key last_bin of LastBin is taken"):
        metrics_with([LastBin(), LastBin()])
