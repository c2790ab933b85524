"""Vector scaling of the classes' shares in the foreground: the sample, the fit against scipy, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from medmtl.calibration.scaling.class_shares import ClassSample, FittedShares, sample_classes
from medmtl.calibration.scaling.per_task import Fitted, TaskScalings
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.calibration.scaling.zones import ZoneHistograms

NAMES = ("head", "body", "tail")


def sample(patient: str, voxels: int = 400, seed: int = 0, classes: int = 3) -> ClassSample:
    """Labels drawn from softmax(z), and a network that is twice as sure and prefers later classes."""
    draw = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(voxels, 3, generator=draw)
    label = torch.multinomial(torch.softmax(logits[:, :classes], 1), 1, generator=draw)[:, 0]
    shares = torch.log_softmax(2 * logits + torch.arange(3), 1)
    return ClassSample(patient, NAMES, shares, label, torch.randint(1, 5, (voxels,), generator=draw).double())


def nll(weight: NDArray, offset: NDArray, log_shares: NDArray, label: NDArray) -> float:
    return float(-log_softmax(log_shares * weight + offset, axis=1)[np.arange(len(label)), label].mean())


def test_the_fit_has_the_least_nll_over_all_voxels_that_the_sample_represents() -> None:
    samples = [sample(str(number), seed=number) for number in range(3)]
    found = FittedShares.fit(samples)
    times = torch.cat([each.weight for each in samples]).long()
    log_shares = torch.cat([each.log_shares for each in samples]).double().repeat_interleave(times, 0).numpy()
    label = torch.cat([each.label for each in samples]).repeat_interleave(times).numpy()
    exact = minimize(lambda x: nll(x[:3], x[3:], log_shares, label), [1.0] * 3 + [0.0] * 3, method="BFGS")
    assert found.scaling is not None
    assert found.nll_after == pytest.approx(exact.fun, abs=1e-7)
    assert found.nll_before == pytest.approx(nll(np.ones(3), np.zeros(3), log_shares, label), abs=1e-7)
    assert found.scaling.weight.tolist() == pytest.approx(exact.x[:3].tolist(), abs=1e-3)
    assert found.scaling.offset.tolist() == pytest.approx((exact.x[3:] - exact.x[3:].mean()).tolist(), abs=1e-3)
    assert found.scaling.weight.tolist() == pytest.approx([0.5] * 3, abs=0.1)
    assert (found.cases, found.voxels, found.refused) == (3, len(label), "")


def test_the_order_of_the_cases_changes_nothing() -> None:
    samples = [sample(str(number), seed=number) for number in range(3)]
    forth, back = (FittedShares.fit(own).state_dict() for own in (samples, samples[::-1]))
    assert all(torch.equal(forth["scaling"][name], back["scaling"][name]) for name in ("weight", "offset"))


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([sample("a"), sample("b"), sample("b", seed=2)], "2 people have labels of every class, and 3 are needed"),
        ([sample("a"), sample("b", voxels=0)], "1 person has labels of every class"),
        ([sample("a", voxels=0)], "0 people have labels of every class"),
        ([sample(name, classes=2) for name in "abc"], "class tail has 0 voxels, and 50 are needed"),
    ],
)
def test_too_few_people_or_voxels_leave_the_shares_as_they_are_and_say_so(samples, reason) -> None:
    found = FittedShares.fit(samples)
    assert found.scaling is None
    assert reason in found.refused
    assert found.nll_after == found.nll_before
    assert found.summary()["scaling"] == "as the network gives them"


def test_a_checkpoint_keeps_them_by_task_beside_scalings_that_are_as_before(tmp_path: Path) -> None:
    single = Fitted.on(ZoneHistograms.empty(), "temperature")
    plain = TaskScalings(single, {})
    assert "shares" not in plain.state_dict()
    fits = {"Many": FittedShares.fit([sample(name) for name in "abc"]), "Few": FittedShares.fit([sample("a")])}
    torch.save(TaskScalings(single, {}, fits).state_dict(), tmp_path / "state")
    found = TaskScalings.from_state_dict(torch.load(tmp_path / "state", weights_only=True))
    before, after = fits["Many"].scaling, found.shares_of("Many")
    assert before is not None
    assert after is not None
    assert torch.equal(before.weight, after.weight)
    assert [found.shares_of(head) for head in ("Few", "Other", None)] == [None] * 3
    assert found.shares["Few"].refused == fits["Few"].refused


def test_a_sample_has_as_many_voxels_of_each_class_read_where_they_lie_in_the_working_space() -> None:
    draw = torch.Generator().manual_seed(1)
    label = torch.zeros(30, 20, 20, dtype=torch.uint8)
    label[:20], label[20:24], label[24, 0, :5] = 1, 2, 3
    logits = torch.randn(3, 15, 20, 10, generator=draw)
    native, affine = torch.eye(4).double(), torch.diag(torch.tensor([2.0, 1, 2, 1])).double()
    found = sample_classes(logits, label, WorkingVolume.of(logits[0], logits[0], affine, native), "a", NAMES)
    assert torch.bincount(found.label).tolist() == [666, 666, 5]
    voxels = torch.zeros(3).double().index_add_(0, found.label, found.weight)
    assert voxels.tolist() == pytest.approx([8000, 1600, 5])
    # The last class is small enough to be there whole: half a voxel is rounded to the even side, as numpy does.
    places = np.argwhere(label.numpy() == 3) / [2, 1, 2]
    expected = logits.numpy()[(slice(None), *np.rint(places).astype(int).T)].T
    np.testing.assert_allclose(found.log_shares[found.label == 2], log_softmax(expected, axis=1), atol=1e-6)
