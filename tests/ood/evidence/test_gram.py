"""GramMatrix: sums over voxels that come window by window are those over all at once, by brute force in float64."""

import numpy as np
import pytest
import torch

from medmtl.ood.evidence.gram import GramMatrix


def windows(channels: int, size: tuple[int, int, int], count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature maps `(B, C, h, w, d)`, and what their voxels count."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, channels, *size, generator=generator) + 1
    return features, torch.rand(count, *size, generator=generator)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 4), (9, 32, 32)])
def test_sums_over_batches_are_those_over_all_voxels(size: tuple[int, int, int], exact: bool) -> None:
    given = [windows(4, size, count, seed) for seed, count in enumerate((2, 1, 3))]
    moments = GramMatrix(4, exact, torch.device("cpu"))
    for features, weights in given:
        moments.add(features, weights.sqrt())
    columns = np.concatenate([features.double().movedim(1, -1).reshape(-1, 4).numpy() for features, _ in given])
    weights = np.concatenate([weights.double().flatten().numpy() for _, weights in given])
    # The roots of the weights are float32 here.
    np.testing.assert_allclose(moments.gram.numpy(), columns.T * weights @ columns, rtol=2e-6)
    np.testing.assert_allclose(moments.total.numpy(), columns.T @ weights, rtol=2e-6)
    assert moments.voxels == pytest.approx(weights.sum(), rel=2e-6)
    assert moments.gram.dtype == moments.total.dtype == torch.float64


def test_a_batch_of_another_size_counts_alike_and_what_was_asked_for_stays() -> None:
    (many, weights), (few, others) = windows(3, (4, 5, 6), 4, 0), windows(3, (4, 5, 6), 1, 1)
    moments, apart = GramMatrix(3, True, torch.device("cpu")), GramMatrix(3, True, torch.device("cpu"))
    moments.add(many, weights)
    asked = moments.gram
    before = asked.clone()
    moments.add(few, others)
    for features, roots in [*zip(many.split(1), weights.split(1), strict=True), (few, others)]:
        apart.add(features, roots)
    torch.testing.assert_close(moments.gram, apart.gram, rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.total, apart.total, rtol=1e-12, atol=0)
    assert torch.equal(asked, before)


def test_maps_in_another_memory_order_count_alike() -> None:
    features, weights = windows(4, (5, 6, 7), 2, 0)
    plain, last = GramMatrix(4, False, torch.device("cpu")), GramMatrix(4, False, torch.device("cpu"))
    plain.add(features, weights)
    last.add(features.to(memory_format=torch.channels_last_3d), weights)
    assert torch.equal(plain.gram, last.gram)
    assert torch.equal(plain.total, last.total)
