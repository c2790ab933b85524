"""mL1-ACE against its definition, written out over bins and voxels in float64."""

import itertools
import math

import pytest
import torch
from monai.data import MetaTensor
from torch.autograd import gradcheck

from medmtl.calibration import ace, bin_volume
from medmtl.errors import ConfigError, DataError
from medmtl.losses import ML1ACE

KINDS = pytest.mark.parametrize("soft", [True, False], ids=["soft", "hard"])


def patches(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits, float64, and labels that are foreground more often than they say."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=random, dtype=torch.float64) - 1
    return logits, (torch.rand(shape, generator=random) < (logits + 1).sigmoid()).to(torch.uint8)


def weights_in_bins(p: float, bins: int, soft: bool) -> list[float]:
    """How much of a voxel each bin holds."""
    if not soft:
        return [float(m / bins <= p < (m + 1) / bins or p == 1 == (m + 1) / bins) for m in range(bins)]
    p = min(max(p, 0.5 / bins), 1 - 0.5 / bins)
    return [max(0.0, 1 - abs(p - (m + 0.5) / bins) * bins) for m in range(bins)]


def by_loops(logits: torch.Tensor, label: torch.Tensor, bins: int, soft: bool) -> float:
    images = []
    for z, y in zip(logits, label, strict=True):
        voxels = [
            (1 / (1 + math.exp(-a)), float(b)) for a, b in zip(z.flatten().tolist(), y.flatten().tolist(), strict=True)
        ]
        gaps = []
        for m in range(bins):
            held = [(weights_in_bins(p, bins, soft)[m], p, y) for p, y in voxels]
            weight = math.fsum(w for w, _, _ in held)
            if weight >= 0.01:
                gaps.append(abs(math.fsum(w * y for w, _, y in held) - math.fsum(w * p for w, p, _ in held)) / weight)
        images.append(sum(gaps) / len(gaps))
    return sum(images) / len(images)


def by_autograd(logits: torch.Tensor, label: torch.Tensor, bins: int, soft: bool) -> torch.Tensor:
    """The same with a matrix of bins x voxels an image, for its gradient."""
    p, y = logits.sigmoid().flatten(1), label.flatten(1).double()
    m = torch.arange(bins)[:, None]
    if soft:
        held = 1 - (p.clamp(0.5 / bins, 1 - 0.5 / bins)[:, None] * bins - 0.5 - m).abs()
        held = held.clamp(min=0)
    else:
        held = ((p * bins).floor().clamp(max=bins - 1)[:, None] == m).double()
    weight = held.sum(2)
    gaps = ((held * y[:, None]).sum(2) - (held * p[:, None]).sum(2)).abs() / weight.clamp(min=1e-9)
    filled = weight >= 0.01
    return ((gaps * filled).sum(1) / filled.sum(1)).mean()


@KINDS
@pytest.mark.parametrize(
    ("bins", "shape"), [(20, (3, 1, 4, 5, 6)), (1, (3, 1, 4, 5, 6)), (5, (2, 1, 17, 12)), (20, (1, 1, 1, 1, 1))]
)
def test_value_and_gradient_are_those_of_the_definition(soft: bool, bins: int, shape: tuple[int, ...]) -> None:
    logits, label = patches(*shape)
    logits.requires_grad_()
    loss = ML1ACE(bins, soft, absent=True)(logits, label)
    assert loss.item() == pytest.approx(by_loops(logits, label, bins, soft), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    (expected,) = torch.autograd.grad(by_autograd(logits, label, bins, soft), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@KINDS
def test_the_gradient_is_that_of_finite_differences(soft: bool) -> None:
    logits, label = patches(2, 1, 3, 4, 5)
    assert gradcheck(lambda z: ML1ACE(6, soft)(z, label), logits.requires_grad_())


@KINDS
def test_a_large_image_is_the_sum_of_its_pieces(soft: bool) -> None:
    logits, label = patches(2, 1, 41, 42, 43)
    logits.requires_grad_()
    loss, expected = ML1ACE(20, soft)(logits, label), by_autograd(logits, label, 20, soft)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected, logits), rtol=1e-9, atol=1e-15)


def test_hard_bins_are_those_of_the_metric() -> None:
    logits, label = patches(4, 1, 9, 10, 11)
    measured = [ace(bin_volume(z.sigmoid(), y, bins=20)) for z, y in zip(logits, label, strict=True)]
    assert ML1ACE(20, soft=False)(logits, label).item() == pytest.approx(sum(measured) / 4, abs=1e-12)


def test_float32_is_close_to_float64_with_a_million_voxels() -> None:
    logits, label = patches(1, 1, 100, 100, 100)
    single, double = ML1ACE()(logits.float(), label), ML1ACE()(logits, label)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(double.item(), rel=1e-6)


def test_a_hard_bin_holds_its_lower_edge_and_the_last_one_certainty() -> None:
    # Two bins: 0 alone in the lower one; 1/2 and 1 together in the upper one, with one of two voxels foreground.
    logits = torch.tensor([-1000.0, 0.0, 1000.0]).view(1, 1, 3)
    label = torch.tensor([0, 0, 1]).view(1, 1, 3)
    assert ML1ACE(2, soft=False)(logits, label).item() == pytest.approx((0 + abs(0.5 - 0.75)) / 2)


def test_soft_bins_are_continuous_where_hard_ones_jump() -> None:
    logits, label = patches(1, 1, 50)
    below, above = logits.clone(), logits.clone()
    below[..., 0], above[..., 0] = -1e-9, 1e-9  # on both sides of the edge at 1/2
    jumps = {soft: abs(ML1ACE(4, soft)(below, label) - ML1ACE(4, soft)(above, label)).item() for soft in (True, False)}
    assert jumps[True] < 1e-8
    assert jumps[False] > 1e-3


def test_a_voxel_at_a_soft_centre_is_in_that_bin_alone() -> None:
    logits, label = torch.zeros(1, 1, 4), torch.tensor([0, 0, 0, 1]).view(1, 1, 4)  # 1/2 is the centre of 2 of 3
    assert ML1ACE(3)(logits, label).item() == pytest.approx(0.25)


@pytest.mark.parametrize("share", [0.0, 0.009, 0.011])
def test_a_bin_with_less_than_a_hundredth_of_a_voxel_is_empty(share: float) -> None:
    # Soft bins at 1/4 and 3/4. One voxel is at 1/4; the other one, foreground, has `share` in the upper bin.
    p = torch.tensor([0.25, 0.25 + 0.5 * share], dtype=torch.float64)
    lower = ((1 - share) * (1 - p[1]) - 0.25) / (2 - share)
    expected = lower if share < 0.01 else (lower + 1 - p[1]) / 2
    loss = ML1ACE(2)(p.logit().view(1, 1, 2), torch.tensor([0, 1]).view(1, 1, 2))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)


@KINDS
def test_the_order_of_voxels_does_not_matter(soft: bool) -> None:
    logits, label = patches(2, 1, 6, 7, 8)
    order = torch.randperm(6 * 7 * 8, generator=torch.Generator().manual_seed(0))
    shuffled = [values.flatten(2)[..., order].view(2, 1, 8, 6, 7) for values in (logits, label)]
    assert ML1ACE(soft=soft)(*shuffled).item() == pytest.approx(ML1ACE(soft=soft)(logits, label).item(), abs=1e-12)


@KINDS
def test_calibrated_probabilities_cost_nothing(soft: bool) -> None:
    # A quarter of the voxels given 1/4 are foreground, and three quarters of those given 3/4: centres of two bins.
    logits = torch.tensor([0.25] * 4 + [0.75] * 4, dtype=torch.float64).logit().view(1, 1, 8).requires_grad_()
    label = torch.tensor([1, 0, 0, 0, 1, 1, 1, 0]).view(1, 1, 8)
    loss = ML1ACE(2, soft)(logits, label)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-15)
    wrong = ML1ACE(2, soft)(-logits, label).item()
    assert wrong == pytest.approx(0.5)


@KINDS
def test_it_corrects_an_overconfident_scale(soft: bool) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 20_000, generator=random)
    label = torch.rand(1, 1, 20_000, generator=random) < logits.sigmoid()
    scale = torch.tensor(3.0, requires_grad=True)
    optimizer = torch.optim.Adam([scale], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        ML1ACE(soft=soft)(scale * logits, label).backward()
        optimizer.step()
    assert scale.item() == pytest.approx(1, abs=0.15)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_empty_full_and_saturated_patches_have_finite_gradients(soft: bool, dtype: torch.dtype) -> None:
    for foreground, logit in itertools.product([0, 1], [-math.inf, -1e4, -30.0, 0.0, 30.0, 1e4, math.inf]):
        logits = torch.full((2, 1, 3, 4, 5), logit, dtype=dtype, requires_grad=True)
        loss = ML1ACE(soft=soft, absent=True)(logits, torch.full((2, 1, 3, 4, 5), foreground, dtype=torch.uint8))
        loss.backward()
        assert loss.item() == pytest.approx(abs(foreground - 1 / (1 + math.exp(-max(min(logit, 99), -99)))), abs=1e-6)
        assert logits.grad.isfinite().all()
        assert logits.grad.dtype == dtype


@KINDS
def test_an_image_without_foreground_counts_as_nothing_unless_asked(soft: bool) -> None:
    logits, label = patches(3, 1, 5, 5, 5)
    label[1] = 0
    logits.requires_grad_()
    alone = [ML1ACE(soft=soft, absent=True)(z[None], y[None]).item() for z, y in zip(logits, label, strict=True)]
    loss = ML1ACE(soft=soft)(logits, label)
    loss.backward()
    assert loss.item() == pytest.approx((alone[0] + alone[2]) / 3, abs=1e-12)
    assert logits.grad[1].count_nonzero() == 0
    assert ML1ACE(soft=soft, absent=True)(logits, label).item() == pytest.approx(sum(alone) / 3, abs=1e-12)


def test_hard_bins_lower_the_probability_of_an_image_without_foreground() -> None:
    logits, label = patches(1, 1, 5, 5, 5)
    logits.requires_grad_()
    ML1ACE(soft=False, absent=True)(logits, torch.zeros_like(label)).backward()
    assert (logits.grad > 0).all()


@KINDS
def test_a_nan_is_not_hidden(soft: bool) -> None:
    logits, label = patches(1, 1, 10)
    logits[..., 3] = math.nan
    assert ML1ACE(soft=soft)(logits, label).isnan()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_the_type_of_the_label_does_not_matter(dtype: torch.dtype) -> None:
    logits, label = patches(2, 1, 6, 7, 8)
    expected = ML1ACE()(logits, label)
    assert ML1ACE()(logits, label.to(dtype)) == expected
    assert type(ML1ACE()(logits, MetaTensor(label.to(dtype)))) is torch.Tensor


def test_two_classes_are_one_channel() -> None:
    logits, label = patches(2, 1, 6, 7, 8)
    pair = torch.cat([torch.zeros_like(logits), logits], 1)
    assert ML1ACE()(pair, label).item() == pytest.approx(ML1ACE()(logits, label).item(), abs=1e-12)


@KINDS
def test_several_classes_are_averaged_without_the_background(soft: bool) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 7, 8, generator=random, dtype=torch.float64)
    label = torch.randint(0, 4, (2, 1, 6, 7, 8), generator=random)
    probability = logits.softmax(1)
    classes = [by_loops(probability[:, c].logit(), label[:, 0] == c, 20, soft) for c in (1, 2, 3)]
    assert ML1ACE(soft=soft)(logits, label).item() == pytest.approx(sum(classes) / 3, abs=1e-12)


@KINDS
def test_what_it_keeps_for_the_gradient_does_not_grow_with_the_bins(soft: bool) -> None:
    logits, label = patches(2, 1, 6, 7, 8)

    def kept(bins: int) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            ML1ACE(bins, soft)(logits.requires_grad_(), label)
        return sum(sizes)

    assert kept(2) == kept(2000) == 2 * logits.numel()


def test_no_bins_are_refused() -> None:
    with pytest.raises(ConfigError, match="bins=0"):
        ML1ACE(bins=0)


def test_shapes_and_labels_that_do_not_fit_are_named() -> None:
    logits, label = patches(2, 1, 3, 4)
    with pytest.raises(DataError, match=r"\(2, 1, 3, 4\) and label \(2, 3, 4\)"):
        ML1ACE()(logits, label[:, 0])
    with pytest.raises(DataError, match=r"\(2, 1, 3, 4\) and label \(2, 1, 4, 3\)"):
        ML1ACE()(logits, label.view(2, 1, 4, 3))
    with pytest.raises(DataError, match="values from 0 to 255 with 1 channels"):
        ML1ACE()(logits, 255 * label)
    with pytest.raises(DataError, match="values from 0 to 3 with 3 channels"):
        ML1ACE()(logits.expand(2, 3, 3, 4), 3 * label)
    with pytest.raises(DataError, match="values from nan"):
        ML1ACE()(logits, label * math.nan)
    with pytest.raises(DataError, match="not whole"):
        ML1ACE()(logits.expand(2, 3, 3, 4), 0.5 * label)
