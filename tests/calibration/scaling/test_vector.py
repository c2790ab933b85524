"""Vector scaling against an optimum that scipy finds from the NLL alone, and against Platt for two classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from medmtl.calibration.scaling.histogram import logit_histogram, to_logits
from medmtl.calibration.scaling.parametric import Platt
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.errors import DataError

SEPARABLE = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))


def network(classes: int = 3, voxels: int = 20_000) -> tuple[Tensor, Tensor]:
    """Labels drawn from softmax(z), and a network that says 2.5 z + 1, 3.5 z + 2, ... instead."""
    draw = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(voxels, classes, generator=draw, dtype=torch.float64)
    label = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=draw)[:, 0]
    number = torch.arange(classes)
    return logits * (2.5 + number) + 1 + number, label


def test_weights_and_offsets_are_those_of_least_nll() -> None:
    logits, label = network(voxels=2000)
    found = VectorScaling.fit(logits, label)
    z, y = logits.numpy(), label.numpy()

    def loss(x: np.ndarray) -> float:
        scaled = z * x[:3] + np.array([0.0, x[3], x[4]])  # one offset is free to choose
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(y)), y]))

    exact = minimize(loss, [1.0, 1, 1, 0, 0], method="BFGS", options={"gtol": 1e-7})
    assert found.weight.tolist() == pytest.approx(exact.x[:3].tolist(), abs=1e-4)
    assert (found.offset - found.offset[0]).tolist() == pytest.approx([0, *exact.x[3:].tolist()], abs=1e-4)
    assert float(found.offset.sum()) == pytest.approx(0, abs=1e-12)


def test_it_undoes_what_was_done_to_the_logits_and_its_means_are_those_of_the_labels() -> None:
    logits, label = network(classes=4)
    found = VectorScaling.fit(logits, label)
    number = torch.arange(4)
    assert found.weight.tolist() == pytest.approx((1 / (2.5 + number)).tolist(), rel=0.06)
    error = found(logits) - torch.nn.functional.one_hot(label, 4)
    # Where the NLL is least its derivatives are 0: by the offsets, and by the weights.
    assert error.mean(0).abs().max() < 1e-6
    assert (error * logits).mean(0).abs().max() < 1e-6


def test_of_two_classes_it_is_platt() -> None:
    draw = torch.Generator().manual_seed(1)
    z = 3 * torch.randn(20_000, generator=draw, dtype=torch.float64)
    label = torch.rand(20_000, generator=draw) < torch.sigmoid(0.4 * z - 0.7)
    probability = torch.sigmoid(z)
    z = to_logits(probability)
    found = VectorScaling.fit(torch.stack([torch.zeros_like(z), z], dim=1), label.long())
    platt = Platt.fit(logit_histogram(probability, label))
    assert float(found.weight[1]) == pytest.approx(platt.slope, abs=1e-5)
    assert float(found.offset[1] - found.offset[0]) == pytest.approx(platt.offset, abs=1e-5)
    volume = z[:6000].view(2, 1, 10, 20, 15)
    scaled = found(torch.cat([torch.zeros_like(volume), volume], dim=1))
    assert torch.allclose(scaled[:, 1:], platt.of_logits(volume), atol=1e-5)


def test_volumes_keep_shape_and_type_and_every_class_has_its_own_map(tmp_path: Path) -> None:
    scaling = VectorScaling(torch.tensor([0.5, 2.0, 1.0]).double(), torch.tensor([0.1, -0.3, 0.2]).double())
    torch.save(scaling.state_dict(), tmp_path / "state")
    scaling = VectorScaling(**torch.load(tmp_path / "state", weights_only=True))
    logits = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    scaled = scaling(logits)
    assert (scaled.shape, scaled.dtype) == (logits.shape, torch.float32)
    for voxel, p in zip(logits.movedim(1, -1).reshape(-1, 3), scaled.movedim(1, -1).reshape(-1, 3), strict=True):
        raw = np.exp([0.5 * voxel[0] + 0.1, 2 * voxel[1] - 0.3, voxel[2] + 0.2])
        assert p.tolist() == pytest.approx((raw / raw.sum()).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "label", "reason"),
    [
        (torch.rand(10, 3), torch.arange(10) % 2, "no voxel of class 2"),
        (torch.rand(0, 3), torch.zeros(0, dtype=torch.int64), "no voxel of class 0"),
        (torch.rand(10, 3), torch.arange(10) % 4, "not a class of 0 to 2"),
        (torch.rand(10, 3), torch.arange(9) % 3, r"shapes \(10, 3\) and \(9,\)"),
        (SEPARABLE, SEPARABLE.argmax(dim=1), "separate the classes"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits: Tensor, label: Tensor, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        VectorScaling.fit(logits, label)
