"""Calibration by class: what is binned, and the names under which it is logged; against torchmetrics."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet
from pytorch_lightning.trainer.states import TrainerFn
from scipy.ndimage import distance_transform_edt
from segmentation_sample import segmentation
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_calibration_error

from medmtl.accuracy import RECOGNISED
from medmtl.calibration.metrics.definitions import METRICS, summarise
from medmtl.calibration.scaling.parametric import Temperature
from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.report import _case_result
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.data.classes import Classes
from medmtl.data.preprocessing import Preprocessing
from medmtl.models.class_volumes import ClassVolumes
from medmtl.models.outputs import Outputs
from medmtl.models.scored import ScoredScan
from medmtl.models.segmenter import Segmenter
from medmtl.models.task_heads import TaskHeads

CLASSES = Classes({"head": frozenset({1}), "tail": frozenset({2})})
OWN = Preprocessing((1.0, 1.0, 1.0), None, "Liver")
SHAPE = (10, 9, 8)

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("have no `val_dataloader`", "treespec, LeafSpec", "trying to `self.log", "many workers")
]


def scan(seed: int, **given: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    affine = torch.eye(4, dtype=torch.float64)
    native = MetaTensor(torch.randn(1, *SHAPE, generator=generator), affine=affine)
    label = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    label[:, 2:4, 2:5, 2:4], label[:, 5:7, 2:5, 2:4] = 1, 2
    values = {"images": {OWN: native}, "native": native, "known": None, "missing": frozenset(), "own": OWN}
    values |= {"label": MetaTensor(label, affine=affine), "case": str(seed), "patient": str(seed), "dataset": "Liver"}
    return {**values, **given}


@pytest.fixture
def model() -> Segmenter:
    torch.manual_seed(0)
    network = UNet(3, 1, 3, channels=(4, 8), strides=(2,))
    model = Segmenter(network, (8, 8, 8)).eval()
    model.heads = model.predictor.heads = TaskHeads(3, Outputs.per_task({"Liver": CLASSES})).eval()
    model.tasks = ("Liver",)
    return model


def softmax_of(model: Segmenter, item: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return torch.softmax(model.predictor.logits(item["images"][OWN], head="Liver").as_tensor(), 0)


def band_of(mask: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(distance_transform_edt(~mask.numpy()) <= 5)


def test_a_test_logs_each_class_against_all_else_pooled_and_per_case(model: Segmenter) -> None:
    known = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(9)) < 0.7
    scans = [scan(0), scan(1, known=known), scan(2, missing=frozenset({"tail"}))]
    callback = CalibrationCallback(regions=["whole", "shell", "band"])
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    run = pl.Trainer(accelerator="cpu", enable_model_summary=False, callbacks=[callback], **quiet)  # type: ignore[arg-type]
    items = DataLoader(scans, batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]
    run.test(model, items, verbose=False)
    logged = {key: float(value) for key, value in run.callback_metrics.items()}
    by_class = {key for key in logged if key.startswith(("test/Liver/head/", "test/Liver/tail/"))}
    measured = {
        f"{metric}_{region}{kind}" for metric in METRICS for region in ("whole", "band") for kind in ("", "_per_case")
    }
    measured |= {"dice", "hd95_mm", "asd_mm"}
    assert by_class == {f"test/Liver/{name}/{key}" for name in CLASSES.names for key in measured}
    for part, name in enumerate(CLASSES.names, 1):
        pools: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"whole": [], "band": []}
        for item in (item for item in scans if name not in item["missing"]):
            truth = item["label"][0].as_tensor() == part
            voxels = torch.ones_like(truth) if item["known"] is None else item["known"][0]
            for region, inside in (("whole", voxels), ("band", voxels & band_of(truth))):
                pools[region].append((softmax_of(model, item)[part][inside], truth[inside]))
        for region, cases in pools.items():
            together = [torch.cat(volumes) for volumes in zip(*cases, strict=True)]
            expected = float(binary_calibration_error(together[0], together[1].int(), n_bins=15))
            assert logged[f"test/Liver/{name}/ece_{region}"] == pytest.approx(expected, abs=1e-5)
            errors = [float(binary_calibration_error(p, y.int(), n_bins=15)) for p, y in cases]
            assert logged[f"test/Liver/{name}/ece_{region}_per_case"] == pytest.approx(np.mean(errors), abs=1e-5)
            brier = float((together[0].double() - together[1].double()).square().mean())
            assert logged[f"test/Liver/{name}/brier_{region}"] == pytest.approx(brier, abs=1e-6)


def scalings(shares: VectorScaling | None) -> Any:
    own = SimpleNamespace(scaling=shares)
    return TaskScalings(SimpleNamespace(scaling=Temperature(3.0)), {}, {"Liver": own})  # type: ignore[arg-type]


def test_a_test_bins_each_class_after_scaling_too_and_a_validation_does_not(model: Segmenter) -> None:
    weight, offset = torch.tensor([0.5, 0.7]).double(), torch.tensor([0.6, -0.6]).double()
    model.scaling = scalings(VectorScaling(weight, offset))
    item, callback = scan(0), CalibrationCallback()
    with torch.no_grad():
        found = model.test_step(item, 0)
    callback.on_test_batch_end(None, None, found, item, 0)  # type: ignore[arg-type]
    callback.on_validation_batch_end(None, None, found, item, 1)  # type: ignore[arg-type]
    softmax = softmax_of(model, item).double()
    foreground = torch.sigmoid(torch.logit(1 - softmax[0]) / 3)
    by_axis = (slice(None), None, None, None)
    shares = torch.softmax(weight[by_axis] * (softmax[1:] / softmax[1:].sum(0)).log() + offset[by_axis], 0)
    for part, name in enumerate(CLASSES.names, 1):
        truth = item["label"][0].as_tensor() == part
        for region, inside in (("whole", torch.ones_like(truth)), ("band", band_of(truth))):
            p, y = (shares[part - 1] * foreground)[inside], truth[inside]
            measured = summarise(callback.measured[0].classes_scaled[name][region])
            expected = float(binary_calibration_error(p.float(), y.int(), n_bins=15))
            assert measured["ece"] == pytest.approx(expected, abs=1e-5)
            assert measured["nll"] == pytest.approx(
                float(torch.nn.functional.binary_cross_entropy(p, y.double())), abs=1e-5
            )
    assert callback.measured[1].classes_scaled == {}


def test_scaling_fits_to_the_classes_of_cases_whose_labels_mark_all(model: Segmenter) -> None:
    trainer: Any = SimpleNamespace(
        datamodule=SimpleNamespace(trained=["Liver"]), state=SimpleNamespace(fn=TrainerFn.FITTING)
    )
    callback = ScalingCallback()
    callback.on_validation_start(trainer, model)
    for index in range(5):
        item = scan(index, missing=frozenset({"tail"} if index == 4 else ()))
        with torch.no_grad():
            callback.on_validation_batch_end(trainer, model, model.validation_step(item, index), item, index)
    callback.on_validation_epoch_end(trainer, model)
    assert callback.scalings is not None
    fitted = callback.scalings.shares["Liver"]
    # Of four cases with 2 x 3 x 2 voxels a class.
    assert (fitted.cases, fitted.voxels) == (4, 96)
    assert "class head has 48 voxels, and 50 are needed" in fitted.refused


def test_the_foreground_of_the_task_is_all_of_its_classes(model: Segmenter) -> None:
    item = scan(0)
    with torch.no_grad():
        found = model.test_step(item, 0)
    callback = CalibrationCallback()
    callback.on_test_batch_end(None, None, found, item, 0)  # type: ignore[arg-type]
    measured = callback.measured[0]
    truth = item["label"][0].as_tensor() > 0
    foreground = 1 - softmax_of(model, item)[0]
    expected = float(binary_calibration_error(foreground.flatten(), truth.flatten().int(), n_bins=15))
    assert summarise(measured.calibration["whole"])["ece"] == pytest.approx(expected, abs=1e-5)
    shares = [table["whole"].probability.sum() for table in measured.classes.values()]
    assert float(sum(shares)) == pytest.approx(float(measured.calibration["whole"].probability.sum()), rel=1e-5)


def test_a_validation_and_a_task_with_one_class_bin_no_classes(model: Segmenter) -> None:
    item = scan(0)
    with torch.no_grad():
        found = model.validation_step(item, 0)
    callback = CalibrationCallback()
    callback.on_validation_batch_end(None, None, found, item, 0)  # type: ignore[arg-type]
    callback.on_test_batch_end(None, None, ScoredScan({}, segmentation(), None), item, 1)  # type: ignore[arg-type]
    assert [case.classes for case in callback.measured.values()] == [{}, {}]


def test_the_result_of_a_case_has_its_classes_and_the_dice_of_the_recognised_task() -> None:
    accuracy = {"dice": 0.6, "hd95_mm": 3.0, "asd_mm": 1.0, "foreground/dice": 0.8, RECOGNISED: 0.5}
    by_class = {"left/head": {"dice": 0.7, "hd95_mm": 2.0, "asd_mm": 0.5}, "tail": {"dice": 0.5}}
    accuracy |= {f"{name}/{key}": value for name, own in by_class.items() for key, value in own.items()}
    item = scan(0)
    result = _case_result(item, ScoredScan({}, segmentation(accuracy=accuracy), None))
    assert result.classes == by_class
    assert (result.dice, result.foreground_dice, result.dice_recognised) == (0.6, 0.8, 0.5)
    plain = _case_result(item, ScoredScan({}, segmentation(), None))
    assert (plain.classes, plain.foreground_dice, plain.dice_recognised) == ({}, None, None)


def test_a_case_that_does_not_mark_every_class_is_not_judged_on_all_as_one_and_is_on_those_that_it_marks(
    model: Segmenter,
) -> None:
    calibration, scaling = CalibrationCallback(), ScalingCallback()
    trainer: Any = SimpleNamespace(
        datamodule=SimpleNamespace(trained=["Liver"]), state=SimpleNamespace(fn=TrainerFn.FITTING)
    )
    scaling.on_validation_start(trainer, model)
    items = [scan(0), scan(1, missing=frozenset({"tail"})), scan(1)]
    with torch.no_grad():
        found = [model.test_step(item, index) for index, item in enumerate(items)]
    for index, (item, scored) in enumerate(zip(items, found, strict=True)):
        calibration.on_test_batch_end(None, None, scored, item, index)  # type: ignore[arg-type]
        scaling.on_validation_batch_end(trainer, model, scored, item, index)
    scaling.on_validation_epoch_end(trainer, model)
    _, partial, complete = (scored.segmentation.accuracy for scored in found if scored and scored.segmentation)
    assert "foreground/dice" in complete
    assert not {"foreground/dice", "tail/dice"} & set(partial)
    assert partial["head/dice"] == partial["dice"] == complete["head/dice"]
    voxels = [case.calibration["whole"].voxels for case in calibration.measured.values()]
    assert voxels == [items[0]["label"].numel(), 0, items[2]["label"].numel()]
    by_class = [case.classes["head"]["whole"] for case in calibration.measured.values()]
    assert by_class[1].to_dict() == by_class[2].to_dict()
    assert scaling.scalings is not None
    assert (scaling.scalings.single.cases, scaling.scalings.single.voxels) == (2, sum(voxels))


def test_class_volumes_are_of_the_known_truth_alone_though_the_prediction_hides_more(model: Segmenter) -> None:
    """A voxel predicted as a class that the label does not mark is no error of the foreground, but is not a head."""
    with torch.no_grad():
        found = model.test_step(scan(2, missing=frozenset({"tail"})), 0)
    assert found is not None
    assert found.segmentation is not None
    volumes = found.segmentation.classes
    assert isinstance(volumes, ClassVolumes)
    assert [(volume.name, volume.known) for volume in volumes] == [("head", None)]
