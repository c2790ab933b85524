"""Reliability bins: exact whatever the size, the layout in memory, the number type and the place of the edges."""

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medmtl.calibration.metrics.bins import (
    BinTable,
    bin_classes,
    bin_top_label,
    bin_true_class,
    bin_volume,
    edges,
    fine_edges,
)
from medmtl.calibration.metrics.definitions import ALL_METRICS, brier, nll, summarise
from medmtl.calibration.pieces import PIECE
from medmtl.errors import ConfigError, DataError


def volume(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """What a network gives: most probabilities near 0, some exactly 0 or 1, and a label that is not quite in accord."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.sigmoid(8 * torch.randn(shape, generator=generator) - 8)
    probability[probability < 1e-6] = 0
    probability[probability > 0.999] = 1
    return probability, torch.rand(shape, generator=generator) < 0.05 + 0.8 * probability


def brute_force(probability: Tensor, label: Tensor, bins: int | Tensor) -> BinTable:
    """The definition, bin by bin and in float64."""
    p, y = probability.double().numpy().ravel(), label.numpy().astype(bool).ravel()
    edge = bins.numpy() if isinstance(bins, Tensor) else edges(bins).numpy()
    last = len(edge) - 2
    members = [(p >= edge[m]) & ((p < edge[m + 1]) | (m == last)) for m in range(last + 1)]
    return BinTable(
        count=torch.tensor([int(member.sum()) for member in members]),
        positives=torch.tensor([int(y[member].sum()) for member in members]),
        probability=torch.tensor([float(p[member].sum()) for member in members], dtype=torch.float64),
        squared_error=float(((p - y) ** 2).sum()),
        negative_log_likelihood=float(-np.log(np.maximum(np.where(y, p, 1 - p), 1e-12)).sum()),
    )


def assert_same(table: BinTable, expected: BinTable) -> None:
    """Equal counts, and sums that are equal but for the order of float64 additions."""
    assert table.count.dtype == table.positives.dtype == torch.int64
    assert table.probability.dtype == torch.float64
    assert table.count.tolist() == expected.count.tolist()
    assert table.positives.tolist() == expected.positives.tolist()
    assert table.probability.tolist() == pytest.approx(expected.probability.tolist(), rel=1e-11, abs=1e-12)
    assert table.squared_error == pytest.approx(expected.squared_error, rel=1e-11, abs=1e-12)
    assert table.negative_log_likelihood == pytest.approx(expected.negative_log_likelihood, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize(
    ("bins", "dtype"), [(1, torch.float32), (15, torch.float32), (15, torch.float64), (101, torch.float64)]
)
def test_bins_equal_brute_force_on_probabilities_like_a_networks(bins: int, dtype: torch.dtype) -> None:
    probability, label = volume((40, 30, 20))
    assert_same(bin_volume(probability.to(dtype), label, bins=bins), brute_force(probability.to(dtype), label, bins))


@pytest.mark.parametrize("bins", [10, 15, 49, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_at_an_edge_and_next_to_it_fall_where_a_float64_comparison_puts_them(
    bins: int, dtype: type[np.floating[Any]]
) -> None:
    at = edges(bins).numpy().astype(dtype)
    quotients = (np.arange(bins + 1) / bins).astype(dtype)
    nearby = [np.nextafter(edge, dtype(to)) for edge in (at, quotients) for to in (0, 1)] + [at, quotients]
    probability = torch.from_numpy(np.concatenate(nearby))
    label = torch.arange(len(probability)) % 3 == 0
    assert_same(bin_volume(probability, label, bins=bins), brute_force(probability, label, bins))


def test_bins_are_closed_below_and_the_last_on_both_sides() -> None:
    table = bin_volume(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]), torch.ones(5, dtype=torch.bool), bins=4)
    assert table.count.tolist() == [1, 1, 1, 2]
    assert edges(4).tolist() == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("voxels", [0, 1, PIECE, PIECE + 1, 3 * PIECE + 17])
def test_size_need_not_be_a_multiple_of_the_pieces_it_is_worked_in(voxels: int) -> None:
    probability, label = volume((voxels,))
    assert_same(bin_volume(probability, label), brute_force(probability, label, 15))


@pytest.mark.parametrize("shape", [(), (1, 1, 50, 40, 30), (3, PIECE + 1), (2 * PIECE, 2), (1, PIECE, 1, 2)])
def test_any_shape_is_binned(shape: tuple[int, ...]) -> None:
    probability, label = volume(shape)
    assert_same(bin_volume(probability, label), brute_force(probability, label, 15))


def test_layout_in_memory_makes_no_difference() -> None:
    probability, label = volume((2, 50, 40, 30))
    channels_last = torch.stack([1 - probability, probability], dim=-1)[..., 1]
    fortran = label.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not channels_last.is_contiguous()
    assert not fortran.is_contiguous()
    assert_same(bin_volume(channels_last, fortran), brute_force(probability, label, 15))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_labels_may_be_numbers(dtype: torch.dtype) -> None:
    probability, label = volume((20, 20, 20))
    assert_same(bin_volume(probability, label.to(dtype)), brute_force(probability, label, 15))


def test_monai_tensors_and_gradients_leave_no_trace() -> None:
    probability, label = volume((20, 20, 20))
    table = bin_volume(MetaTensor(probability).requires_grad_(), MetaTensor(label))
    assert type(table.count) is type(table.positives) is type(table.probability) is Tensor
    assert not table.probability.requires_grad
    assert_same(table, brute_force(probability, label, 15))


def test_region_restricts_what_is_counted() -> None:
    probability, label = volume((50, 40, 30))
    region = torch.rand((50, 40, 30), generator=torch.Generator().manual_seed(1)) < 0.3
    assert_same(bin_volume(probability, label, region), brute_force(probability[region], label[region], 15))


def test_what_lies_outside_the_region_may_be_anything() -> None:
    probability, label = volume((20, 20, 20))
    region = torch.zeros(20, 20, 20, dtype=torch.bool)
    region[5:10] = True
    expected = brute_force(probability[region], label[region], 15)
    probability, numbers = probability.where(region, torch.nan), label.where(region, torch.tensor(7))
    assert_same(bin_volume(probability, numbers, region), expected)


def test_region_without_voxels_gives_an_empty_table() -> None:
    probability, label = volume((20, 20, 20))
    table = bin_volume(probability, label, torch.zeros(20, 20, 20, dtype=torch.bool))
    assert table.voxels == 0
    assert len(table.count) == 15


def test_pooling_equals_binning_everything_at_once() -> None:
    (p1, y1), (p2, y2) = volume((30, 40), seed=1), volume((50, 40), seed=2)
    assert_same(bin_volume(p1, y1) + bin_volume(p2, y2), bin_volume(torch.cat([p1, p2]), torch.cat([y1, y2])))


def test_tables_of_different_bins_cannot_be_pooled() -> None:
    probability, label = volume((10,))
    with pytest.raises(DataError, match="1 and 20 bins"):
        bin_volume(probability, label, bins=1) + bin_volume(probability, label, bins=20)


def test_a_table_survives_json_bit_for_bit() -> None:
    table = bin_volume(*volume((50, 40, 30)))
    again = BinTable.from_dict(json.loads(json.dumps(table.to_dict())))
    for name in ("count", "positives", "probability"):
        assert torch.equal(getattr(again, name), getattr(table, name))
        assert getattr(again, name).dtype == getattr(table, name).dtype
    assert again.squared_error == table.squared_error
    assert again.negative_log_likelihood == table.negative_log_likelihood


def test_counts_and_sums_stay_exact_above_2_to_the_24_voxels_in_a_bin() -> None:
    rows = 1_700_000
    p = np.float32(0.02)
    one_in_ten = (torch.arange(10) == 0).expand(rows, 10)
    table = bin_volume(torch.tensor(p).expand(rows, 10), one_in_ten)
    assert table.count[0] == 10 * rows > 2**24
    assert table.positives[0] == rows
    exact = float(Fraction(float(p)) * 10 * rows)
    assert float(table.probability[0]) == pytest.approx(exact, rel=1e-12)
    # A float32 counter, as MONAI 1.6.1 and torchmetrics 1.9.0 keep, stops on the way.
    bin_of = torch.zeros(1, dtype=torch.int64).expand(10 * rows)
    assert torch.zeros(1).scatter_add_(0, bin_of, torch.ones(1).expand(10 * rows)) == 2**24


class _LargestTensor(TorchDispatchMode):
    """Notes the largest memory block behind any tensor made under it."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known, self.bytes, self.operations = known, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
                self.operations += 1
        return result


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0)])
def test_working_memory_does_not_grow_with_the_volume(axes: tuple[int, int, int]) -> None:
    inputs = [tensor.permute(axes) for tensor in (torch.rand(60, 70, 100), *torch.rand(2, 60, 70, 100).round().bool())]
    with _LargestTensor({tensor.untyped_storage().data_ptr() for tensor in inputs}) as largest:
        bin_volume(*inputs)
    assert largest.operations > 100
    assert largest.bytes <= 8 * PIECE


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1e-6, 1.0000001])
def test_a_probability_that_is_none_is_named(wrong: float) -> None:
    probability = torch.full((5, 5), 0.5)
    probability[3, 3] = wrong
    with pytest.raises(DataError, match=f"probability {probability[3, 3].item()} "):
        bin_volume(probability, torch.zeros(5, 5, dtype=torch.bool))


@pytest.mark.parametrize("wrong", [2, -1, 255])
def test_a_label_that_is_neither_0_nor_1_is_named(wrong: int) -> None:
    with pytest.raises(DataError, match=f"label value {wrong} "):
        bin_volume(torch.rand(3), torch.tensor([0, 1, wrong]))


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(DataError, match=r"\(3, 4\), \(4, 3\)"):
        bin_volume(torch.rand(3, 4), torch.ones(4, 3))
    with pytest.raises(DataError, match=r"\(3, 4\), \(3, 4\), \(12,\)"):
        bin_volume(torch.rand(3, 4), torch.ones(3, 4), torch.ones(12))


def test_no_bins_are_refused() -> None:
    with pytest.raises(ConfigError, match="bins=0"):
        bin_volume(torch.rand(3), torch.ones(3), bins=0)


def test_edges_that_float32_can_hold_are_exact() -> None:
    for bins in range(1, 200):
        exact = [Fraction(m, bins) for m in range(bins + 1)]
        for edge, value in zip(edges(bins).tolist(), exact, strict=True):
            assert edge == float(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_explicit_edges_close_bins_below_and_the_last_on_both_sides(dtype: torch.dtype) -> None:
    given = torch.tensor([0, 1e-3, 0.25, 0.7, 1], dtype=torch.float64)
    probability, label = volume((40, 30, 20))
    at_edges = torch.tensor([0.0, 0.25, 0.25, 1.0, 0.7, 1e-3]).view(6, 1, 1).expand(6, 30, 20)
    probability[:6] = at_edges
    assert_same(bin_volume(probability.to(dtype), label, bins=given), brute_force(probability.to(dtype), label, given))


def test_fine_edges_ascend_and_are_narrow_near_0_and_1() -> None:
    fine = fine_edges()
    assert torch.equal(edges(fine), fine)
    assert len(fine) == 4097
    width = fine.diff()
    assert width.max() <= 8 / 4094
    assert 0 < width[0] < 1.2e-7
    assert float(fine[-2]) == pytest.approx(1 - float(fine[1]), abs=1e-15)


@pytest.mark.parametrize("wrong", [[0.0], [0.0, 0.5], [0.1, 1.0], [0.0, 0.5, 0.5, 1.0], [0.0, 0.7, 0.3, 1.0]])
def test_edges_that_do_not_ascend_from_0_to_1_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ConfigError, match="do not ascend"):
        bin_volume(torch.rand(3), torch.ones(3), bins=torch.tensor(wrong))


def test_without_scores_all_else_is_the_same() -> None:
    probability, label = volume((40, 30, 20))
    table, expected = bin_volume(probability, label, scores=False), bin_volume(probability, label)
    assert torch.equal(table.count, expected.count)
    assert torch.equal(table.positives, expected.positives)
    assert torch.equal(table.probability, expected.probability)
    undefined = [name for name, value in summarise(table, ALL_METRICS).items() if np.isnan(value)]
    assert undefined == ["brier", "nll", "within_bins"]


def classes_of(shape: tuple[int, ...], classes: int = 4) -> tuple[Tensor, Tensor]:
    """Class probabilities `(C, *shape)` and a label that is mostly the likeliest."""
    generator = torch.Generator().manual_seed(3)
    probability = (3 * torch.randn(classes, *shape, generator=generator, dtype=torch.float64)).softmax(0)
    random = torch.randint(classes, shape, generator=generator)
    return probability, probability.argmax(0).where(torch.rand(shape, generator=generator) < 0.7, random)


@pytest.mark.parametrize("shape", [(70, 60, 50), (7,)])
def test_classes_are_binned_each_against_the_rest(shape: tuple[int, ...]) -> None:
    probability, label = classes_of(shape)
    for number, table in enumerate(bin_classes(probability, label)):
        assert_same(table, brute_force(probability[number], label == number, 15))


def test_the_top_label_is_binned_against_being_right() -> None:
    probability, label = classes_of((70, 60, 50))
    region = torch.rand(70, 60, 50, generator=torch.Generator().manual_seed(1)) < 0.3
    confidence, predicted = probability.max(0)
    expected = brute_force(confidence[region], predicted[region] == label[region], 15)
    assert_same(bin_top_label(probability, label, region), expected)


def test_of_classes_that_tie_the_first_is_predicted() -> None:
    table = bin_top_label(torch.tensor([[0.5, 0.25], [0.5, 0.75]]), torch.tensor([0, 0]), bins=2)
    assert table.positives.tolist() == [0, 1]


def test_multi_class_brier_and_nll_follow_from_the_tables() -> None:
    probability, label = classes_of((30, 20, 10))
    truth = torch.nn.functional.one_hot(label, 4).movedim(-1, 0)
    squared = float((probability - truth).square().sum(0).mean())
    assert sum(brier(table) for table in bin_classes(probability, label)) == pytest.approx(squared, rel=1e-12)
    expected = torch.nn.functional.nll_loss(probability.log()[None], label[None])
    assert nll(bin_true_class(probability, label)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("wrong", [4, -1, 0.5])
def test_a_label_that_is_no_class_is_named_unless_it_lies_outside_the_region(wrong: float) -> None:
    probability, label = classes_of((5, 5))
    label = label.to(torch.float64)
    label[2, 3] = wrong
    for binning in (bin_classes, bin_top_label, bin_true_class):
        with pytest.raises(DataError, match=f"label value {wrong}.* is not a class of 0 to 3"):
            binning(probability, label)
        assert binning(probability, label, label != wrong)


@pytest.mark.parametrize("binning", [bin_classes, bin_top_label, bin_true_class])
def test_working_memory_of_classes_does_not_grow_with_the_volume(binning: Any) -> None:
    probability, label = classes_of((60, 50, 40))
    with _LargestTensor({tensor.untyped_storage().data_ptr() for tensor in (probability, label)}) as largest:
        binning(probability, label)
    assert largest.operations > 50
    assert largest.bytes <= 4 * 8 * PIECE
