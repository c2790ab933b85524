"""ScalingCallback: what it fits to does not depend on other callbacks, and the segmenter gets what was fitted."""

from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from segmentation_sample import segmentation

from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.calibration.scaling.zones import ZoneHistograms, zone_masks
from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.errors import ConfigError
from medmtl.models.scored import ScoredScan

TRAINER: Any = SimpleNamespace(
    datamodule=SimpleNamespace(trained=["Liver"]),
    state=SimpleNamespace(fn=TrainerFn.FITTING),
    is_global_zero=True,
    ckpt_path="best.ckpt",
)


def module() -> Any:
    return SimpleNamespace(members=None, scaling=None)


def fitted(scaling: ScalingCallback, callbacks: list[pl.Callback]) -> TaskScalings:
    """Validate three cases with the callbacks in this order."""
    scaling.on_validation_start(TRAINER, module())
    for index in range(3):
        found = ScoredScan({}, segmentation(seed=index), None)
        for callback in callbacks:
            batch = {"dataset": "Liver", "patient": str(index)}
            callback.on_validation_batch_end(TRAINER, module(), found, batch, index)  # type: ignore[arg-type]
    scaling.on_validation_epoch_end(TRAINER, module())
    assert scaling.scalings is not None
    return scaling.scalings


def test_the_fit_is_that_of_whole_volumes_by_zone_whatever_others_measure_before_or_after() -> None:
    expected = ZoneHistograms.empty()
    for index in range(3):
        own = segmentation(seed=index)
        expected += ZoneHistograms.of(own.probability, own.label, zone_masks(own.probability, own.spacing_mm))
    assert expected.voxels == 3 * own.label.numel()
    wanted = TaskScalings.fit({"Liver": expected}, "temperature", per_task=True)
    for turn in (1, -1):
        scaling = ScalingCallback()
        found = fitted(scaling, [CalibrationCallback(regions=["whole"]), scaling][::turn])
        assert found.state_dict() == wanted.state_dict()


def test_voxels_without_a_known_label_are_not_fitted_to() -> None:
    own, scaling = segmentation(), ScalingCallback()
    known = torch.rand(own.label.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    scaling.on_validation_start(TRAINER, module())
    batch = {"dataset": "Liver", "patient": "a"}
    scaling.on_validation_batch_end(TRAINER, module(), ScoredScan({}, segmentation(known=known), None), batch, 0)
    scaling.on_validation_epoch_end(TRAINER, module())
    assert scaling.scalings is not None
    assert scaling.scalings.single.voxels == int(known.sum())


def test_a_test_gives_the_segmenter_the_scaling_that_the_options_name() -> None:
    scaling, model = ScalingCallback(), module()
    found = fitted(scaling, [scaling])
    scaling.on_test_start(TRAINER, model)
    assert model.scaling is found
    other = ScalingCallback(method="platt")
    other.load_state_dict(scaling.state_dict())
    with pytest.raises(ConfigError, match=r"scaling\.method=platt, but the checkpoint was fitted with temperature"):
        other.on_test_start(TRAINER, model)


def test_without_a_scaling_the_segmenter_applies_none() -> None:
    for scaling in (ScalingCallback(), ScalingCallback(method="none")):
        model = module()
        scaling.on_test_start(TRAINER, model)
        assert model.scaling is scaling.summary() is None


def test_an_unlabelled_image_is_not_fitted_to() -> None:
    scaling = ScalingCallback()
    scaling.on_validation_start(TRAINER, module())
    for outputs in (None, ScoredScan({}, None, None)):
        scaling.on_validation_batch_end(TRAINER, module(), outputs, {"dataset": "Liver"}, 0)
    scaling.on_validation_epoch_end(TRAINER, module())
    assert scaling.scalings is not None
    scaled = scaling.scalings.choose("Liver")(torch.full((1, 1, 1), 0.3), spacing_mm=(1, 1, 1))
    assert float(scaled) == pytest.approx(0.3)
