"""Streaming metrics: equal to one call on everything, over updates, processes, cases and classes."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from medmtl.calibration.metrics.bins import BinTable, bin_classes, bin_top_label, bin_true_class, bin_volume, fine_edges
from medmtl.calibration.metrics.definitions import ALL_METRICS, adaptive_ece, ece, nll, summarise
from medmtl.calibration.metrics.streaming import CalibrationBins, CalibrationMetrics
from medmtl.errors import ConfigError, DataError


def volume(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities mostly near 0 and 1, and a label that is not quite in accord."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.sigmoid(6 * torch.randn(shape, generator=generator) - 5)
    return probability, torch.rand(shape, generator=generator) < 0.05 + 0.8 * probability


def assert_same(table: BinTable, expected: BinTable) -> None:
    """Equal counts, and sums that are equal but for the order of float64 additions."""
    assert table.count.dtype == table.positives.dtype == torch.int64
    assert table.probability.dtype == torch.float64
    assert table.count.tolist() == expected.count.tolist()
    assert table.positives.tolist() == expected.positives.tolist()
    assert table.probability.tolist() == pytest.approx(expected.probability.tolist(), rel=1e-11, abs=1e-12)
    assert table.squared_error == pytest.approx(expected.squared_error, rel=1e-11, abs=1e-12)
    assert table.negative_log_likelihood == pytest.approx(expected.negative_log_likelihood, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 15])
def test_bins_stream_what_one_call_would_bin(bins: int) -> None:
    probability, label = volume((40, 30, 20))
    region = torch.rand(40, 30, 20, generator=torch.Generator().manual_seed(1)) < 0.5
    metric = CalibrationBins(bins)
    for rows in range(0, 40, 10):
        part = slice(rows, rows + 10)
        metric.update(probability[part], label[part], region[part])
    assert_same(metric.compute(), bin_volume(probability, label, region, bins))
    metric.reset()
    metric.update(probability, label)
    assert_same(metric.compute(), bin_volume(probability, label, bins=bins))


def test_a_computed_table_does_not_change_when_the_metric_goes_on() -> None:
    probability, label = volume((40, 30, 20))
    metric = CalibrationBins()
    metric.update(probability, label)
    before = metric.compute()
    metric.update(probability, label)
    once = bin_volume(probability, label)
    assert_same(before, once)
    assert_same(metric.compute(), once + once)


def test_metrics_of_two_processes_add_up_to_one() -> None:
    (p1, y1), (p2, y2) = volume((30, 40), seed=1), volume((50, 40), seed=2)
    one, other = CalibrationBins(), CalibrationBins()
    one.update(p1, y1)
    other.update(p2, y2)
    states = {id(getattr(one, name)): getattr(other, name) for name in other.metric_state}
    one.dist_sync_fn = lambda state, group: [state, states[id(state)]]
    one.distributed_available_fn = lambda: True
    assert_same(one.compute(), bin_volume(p1, y1) + bin_volume(p2, y2))
    assert int(one.count.sum()) == p1.numel()  # after which each process goes on by itself


def test_merged_metrics_add_up_to_one() -> None:
    (p1, y1), (p2, y2) = volume((30, 40), seed=1), volume((50, 40), seed=2)
    one, other = CalibrationBins(), CalibrationBins()
    one.update(p1, y1)
    other.update(p2, y2)
    one.merge_state(other)
    assert_same(one.compute(), bin_volume(p1, y1) + bin_volume(p2, y2))


def test_the_metric_keeps_its_precision_in_a_half_precision_module() -> None:
    probability, label = volume((40, 30, 20))
    module = torch.nn.ModuleDict({"bins": CalibrationBins()}).half()
    module["bins"].update(probability, label)
    assert_same(module["bins"].compute(), bin_volume(probability, label))


def test_bins_without_scores_have_no_brier_score() -> None:
    metric = CalibrationBins(scores=False)
    metric.update(*volume((10, 10)))
    assert math.isnan(metric.compute().squared_error)
    with pytest.raises(ConfigError, match="bins=-1"):
        CalibrationBins(bins=-1)


SHAPES = [(6, 5), (8, 7, 6)]


def batch_of(shape: tuple[int, ...], classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Class probabilities `(2, C, *shape)`, class numbers and a region, both `(2, 1, *shape)`."""
    generator = torch.Generator().manual_seed(seed)
    probability = (2 * torch.randn(2, classes, *shape, generator=generator)).softmax(1)
    label = torch.randint(classes, (2, 1, *shape), generator=generator)
    region = torch.rand(2, 1, *shape, generator=generator) < 0.8
    if classes == 2:
        probability = probability[:, 1:]
    return probability, label, region


def expected_of(tables: list[BinTable]) -> dict[str, float]:
    """Pooled, and the mean over those cases that have voxels."""
    found = summarise(sum(tables[1:], tables[0]), ALL_METRICS)
    for name, metric in ALL_METRICS.items():
        found[f"{name}_per_case"] = float(np.mean([metric(table) for table in tables if table.voxels]))
    return found


def plain(computed: Mapping[str, Tensor]) -> dict[str, float]:
    assert all(value.ndim == 0 and value.dtype == torch.float64 for value in computed.values())
    return {name: value.item() for name, value in computed.items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["binary", "top_label", "true_class"])
def test_metrics_are_pooled_and_per_case_in_2_and_3_dimensions(form: Any, shape: tuple[int, ...]) -> None:
    metric, tables = CalibrationMetrics(form), []
    for seed in range(3):
        probability, label, region = batch_of(shape, 2 if form == "binary" else 3, seed)
        region[1] &= seed > 0  # one case without voxels
        metric.update(MetaTensor(probability), label, region)
        for p, y, inside in zip(probability, label[:, 0], region[:, 0], strict=True):
            one = {"binary": bin_volume, "top_label": bin_top_label, "true_class": bin_true_class}[form]
            tables.append(one(p[0] if form == "binary" else p, y, inside))
    assert plain(metric.compute()) == pytest.approx(expected_of(tables), abs=1e-12)
    assert metric.compute()["ece"] != metric.compute()["ece_per_case"]


@pytest.mark.parametrize("shape", SHAPES)
def test_class_wise_metrics_are_those_of_each_class_and_their_mean(shape: tuple[int, ...]) -> None:
    metric, tables = CalibrationMetrics("class_wise", classes=3), []
    for seed in range(3):
        probability, label, region = batch_of(shape, 3, seed)
        metric.update(probability, label[:, 0], region[:, 0])  # a channel is no must
        tables += [
            bin_classes(p, y, inside) for p, y, inside in zip(probability, label[:, 0], region[:, 0], strict=True)
        ]
    by_class = [expected_of([case[number] for case in tables]) for number in range(3)]
    found = plain(metric.compute())
    for name in ALL_METRICS:
        for kind in ("", "_per_case"):
            values = [expected[name + kind] for expected in by_class]
            assert found[name + kind] == pytest.approx(np.mean(values), abs=1e-12)
            assert [found[f"{name}_class_{number}{kind}"] for number in range(3)] == pytest.approx(values, abs=1e-12)
    assert len(found) == len(ALL_METRICS) * 2 * 4


@pytest.mark.parametrize("form", ["binary", "class_wise", "top_label"])
def test_two_processes_give_what_one_would(form: Any) -> None:
    def make() -> CalibrationMetrics:
        return CalibrationMetrics(form, classes=3 if form == "class_wise" else None)

    one, other, alone = make(), make(), make()
    for seed in range(4):
        batch = batch_of((8, 7, 6), 2 if form == "binary" else 3, seed)
        (one, other)[seed % 2].update(*batch)
        alone.update(*batch)
    states = {id(getattr(one, name)): getattr(other, name) for name in other.metric_state}
    one.dist_sync_fn = lambda state, group: [state, states[id(state)]]
    one.distributed_available_fn = lambda: True
    assert plain(one.compute()) == pytest.approx(plain(alone.compute()), abs=1e-13)


def test_reset_forgets_all() -> None:
    metric = CalibrationMetrics()
    metric.update(*batch_of((6, 5), 2, 0))
    metric.reset()
    metric.update(*batch_of((6, 5), 2, 1))
    again = CalibrationMetrics()
    again.update(*batch_of((6, 5), 2, 1))
    assert plain(metric.compute()) == plain(again.compute())


def test_without_voxels_there_is_no_metric() -> None:
    metric = CalibrationMetrics()
    metric.update(torch.rand(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    assert all(math.isnan(value) for value in plain(metric.compute()).values())


def test_metrics_may_be_chosen_and_adaptive_ece_is_one() -> None:
    metric = CalibrationMetrics(metrics={"adaptive_ece": adaptive_ece, "ece": ece}, bins=fine_edges(), scores=False)
    probability, label, _ = batch_of((8, 7, 6), 2, 0)
    metric.update(probability, label)
    found = plain(metric.compute())
    assert list(found) == ["adaptive_ece", "ece", "adaptive_ece_per_case", "ece_per_case"]
    table = bin_volume(probability, label, bins=fine_edges())
    assert found["adaptive_ece"] == pytest.approx(adaptive_ece(table), abs=1e-14)


def test_nll_of_the_true_class_is_that_of_torch() -> None:
    metric = CalibrationMetrics("true_class", metrics={"nll": nll})
    probability, label, _ = batch_of((8, 7, 6), 5, 0)
    metric.update(probability, label)
    expected = torch.nn.functional.nll_loss(probability.double().log(), label[:, 0])
    assert plain(metric.compute())["nll"] == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("bins", [15, fine_edges()], ids=["equal", "fine"])
def test_states_are_of_constant_size_below_1_mb(bins: Any) -> None:
    metric = CalibrationMetrics("class_wise", classes=4, bins=bins)

    def size() -> int:
        return sum(state.untyped_storage().nbytes() for state in metric.metric_state.values())

    before = size()
    for seed in range(3):
        metric.update(*batch_of((20, 20, 20), 4, seed))
    assert size() == before < 2**20


def test_a_wrong_number_of_classes_is_refused() -> None:
    for form, classes in (("binary", 2), ("class_wise", None), ("top_label", 3)):
        with pytest.raises(ConfigError, match=f"form {form} with classes={classes}"):
            CalibrationMetrics(form, classes)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="of 2 classes, not 3"):
        CalibrationMetrics("class_wise", 3).update(torch.rand(1, 2, 4, 4), torch.ones(1, 1, 4, 4))
    with pytest.raises(DataError, match="of 2 classes, not 1"):
        CalibrationMetrics().update(torch.rand(1, 2, 4, 4), torch.ones(1, 1, 4, 4))
