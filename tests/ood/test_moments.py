"""Moments: sums over voxels that come in parts are those over all of them at once, by brute force in float64."""

import numpy as np
import pytest
import torch

from medmtl.ood.moments import ROOM, Moments


def parts(channels: int, sizes: list[tuple[int, int, int]]) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Feature maps, every other one with weights."""
    generator = torch.Generator().manual_seed(0)
    found: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    for number, size in enumerate(sizes):
        features = torch.randn(channels, *size, generator=generator) + 1
        found.append((features, torch.rand(*size, generator=generator) if number % 2 else None))
    return found


SIZES = {
    "few voxels": [(2, 3, 4), (1, 1, 1)],
    "as many as there is room for, and more": [(8, 64, 64), (8, 64, 64), (3, 5, 7), (40, 64, 64), (3, 5, 7)],
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("sizes", list(SIZES.values()), ids=list(SIZES))
def test_sums_over_parts_are_those_over_all_voxels(sizes: list[tuple[int, int, int]], exact: bool) -> None:
    channels = 4
    assert ROOM // channels == 8 * 64 * 64  # what the sizes above stand for
    given = parts(channels, sizes)
    moments = Moments(given[0][0], exact)
    for features, roots in given:
        count = features[0].numel() if roots is None else float(roots.double().square().sum())
        moments.add(features, None if roots is None else roots.sqrt(), count)
    columns = np.concatenate([features.double().flatten(1).numpy() for features, _ in given], axis=1)
    weights = np.concatenate(
        [
            np.ones(features[0].numel()) if roots is None else roots.double().flatten().numpy()
            for features, roots in given
        ]
    )
    # Roots of weights are float32 here, and so are the channel sums of 163,840 voxels at once in the second case.
    np.testing.assert_allclose(moments.gram().numpy(), columns * weights @ columns.T, rtol=1e-6)
    np.testing.assert_allclose(moments.total().numpy(), columns @ weights, rtol=1e-6 if exact else 5e-6)
    assert moments.gram().dtype == moments.total().dtype == torch.float64


def test_asking_does_not_change_the_sums_and_what_was_asked_for_stays() -> None:
    (first, _), (second, _) = parts(3, [(4, 4, 4), (4, 4, 4)])[0], parts(3, [(2, 4, 4)])[0]
    asked, silent = Moments(first, exact=True), Moments(first, exact=True)
    asked.add(first, None, 64)
    gram = asked.gram()
    before = gram.clone()
    for moments in (asked, silent):
        if moments is silent:
            moments.add(first, None, 64)
        moments.add(second, None, 32)
    torch.testing.assert_close(asked.gram(), silent.gram(), rtol=1e-12, atol=0)
    assert torch.equal(gram, before)
    assert asked.voxels == silent.voxels == 96


def test_maps_in_another_memory_order_count_alike() -> None:
    (features, _), (other, roots) = parts(4, [(5, 6, 7), (5, 6, 7)])
    plain, last = Moments(features, exact=False), Moments(features, exact=False)
    for each, weights in ((features, None), (other, roots)):
        plain.add(each, weights, 1)
        last.add(each.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2), weights, 1)
    assert torch.equal(plain.gram(), last.gram())
    assert torch.equal(plain.total(), last.total())
