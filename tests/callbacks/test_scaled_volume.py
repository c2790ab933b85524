"""What is fitted on validation patients holds for the whole volume of others, and not only around the true organ."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn
from segmentation_sample import segmentation
from torch import Tensor

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import ece, nll
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.models.scored import ScoredScan, Segmentation

SHAPE, SPACING, BACKGROUND = (64, 48, 32), [1.0, 1.5, 2.0], 0.001
TRAINER: Any = SimpleNamespace(
    datamodule=SimpleNamespace(trained=["Liver"]), state=SimpleNamespace(fn=TrainerFn.FITTING), is_global_zero=True
)
MODULE: Any = SimpleNamespace(members=None, scaling=None)


def patient(seed: int) -> Segmentation:
    """An organ with a network that is four times too sure near it, and says 0.001 of all that is far from it.

    Far away lies a small tumour, which the network misses: of the voxels far away 0.0012 are foreground.
    """
    draw = torch.Generator().manual_seed(seed)
    grid = torch.meshgrid(*(torch.arange(n) * step for n, step in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    distance = (sum((axis - middle).square() for axis, middle in zip(grid, (20, 36, 32), strict=True))).sqrt() - 12
    true_logit = -distance / 1.5
    label = (torch.rand(SHAPE, generator=draw) < true_logit.sigmoid()) & (distance < 8)
    label[54:58, 20:25, 10:15] = True
    probability = torch.sigmoid(4 * true_logit).where(distance < 8, torch.tensor(BACKGROUND))
    affine = torch.diag(torch.tensor([*SPACING, 1.0]))
    working = WorkingVolume.of(torch.zeros(SHAPE), probability, affine, affine)
    return segmentation(probability=probability, label=label, spacing_mm=SPACING, working=working)


def scaled(own: Segmentation, **options: Any) -> Tensor:
    """Probabilities of one patient after scaling that was fitted on six others."""
    callback = ScalingCallback(**options)
    callback.on_validation_start(TRAINER, MODULE)
    for index in range(6):
        batch = {"dataset": "Liver", "patient": str(index)}
        callback.on_validation_batch_end(TRAINER, MODULE, ScoredScan({}, patient(index), None), batch, index)
    callback.on_validation_epoch_end(TRAINER, MODULE)
    assert callback.scalings is not None
    return callback.scalings.choose("Liver")(own.probability, own.working, own.spacing_mm)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_scaling_is_right_for_the_whole_volume_of_another_patient(method: Any) -> None:
    own = patient(99)
    after = scaled(own, method=method)
    for region in (None, own.region("band")):
        tables = [bin_volume(probability, own.label, region) for probability in (own.probability, after)]
        assert nll(tables[1]) < nll(tables[0])
        assert ece(tables[1]) < ece(tables[0])
    assert float(after.sum() / own.label.sum()) == pytest.approx(1, abs=0.15)
    assert torch.equal(after >= 0.5, own.probability >= 0.5)
