"""Segmenter: it learns, its schedule has the length of the training, and its Dice is that of the image's own grid."""

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from torch.utils.data import DataLoader

from medmtl.accuracy import surface_distances
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.task import Task
from medmtl.data.working_space import to_native
from medmtl.errors import ConfigError
from medmtl.losses.masked import UNKNOWN
from medmtl.models.extract import Observer
from medmtl.models.scored import ScoredScan
from medmtl.models.segmenter import Segmenter
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.evidence.evidence import Evidence

FINE, COARSE = Preprocessing((1.0, 1.0, 1.0), None), Preprocessing((2.0, 2.0, 2.0), None)
LEARNING_RATE = 1e-2

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("have no `val_dataloader`", "treespec, LeafSpec", "trying to `self.log", "many workers")
]


class Threshold(nn.Module):
    """Foreground where the image is above 0; has a parameter, so that it can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.sharpness


def segmenter(network: nn.Module, **options: Any) -> Segmenter:
    optimizer = partial(torch.optim.AdamW, lr=LEARNING_RATE)
    return Segmenter(network, (8, 8, 8), DiceCELoss(sigmoid=True), optimizer, **options)


def batch() -> dict[str, torch.Tensor]:
    image = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"image": image, "label": (image > 0.5).to(torch.uint8)}


def trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


def loader(items: list[dict[str, Any]]) -> DataLoader[dict[str, Any]]:
    return DataLoader(items, batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]


def volume(seed: int, shape: tuple[int, int, int] = (10, 9, 8)) -> MetaTensor:
    values = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=torch.eye(4, dtype=torch.float64))


def scan(seed: int, dataset: str, label: torch.Tensor | None, own: Preprocessing | None = FINE) -> dict[str, Any]:
    """A volume that is already in the working space of `FINE`."""
    native = volume(seed)
    return {
        "images": {FINE: native},
        "native": native,
        "known": None,
        "missing": frozenset(),
        "label": None if label is None else MetaTensor(label.to(torch.uint8), affine=native.affine),
        "case": f"case{seed}",
        "patient": f"case{seed}",
        "dataset": dataset,
        "own": own,
    }


def brute_dice(predicted: Any, label: Any) -> float:
    predicted, label = np.asarray(predicted, dtype=bool), np.asarray(label, dtype=bool)
    return 2 * (predicted & label).sum() / (predicted.sum() + label.sum())


def test_training_steps_lower_the_loss_of_a_fixed_batch(small_unet: Callable[[], UNet]) -> None:
    model = segmenter(small_unet().train())
    losses: list[float] = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

    trainer(max_steps=12, callbacks=[Keep()]).fit(model, loader([batch()] * 12))
    assert len(losses) == 12
    assert losses[1] < losses[0]
    assert losses[-1] < 0.8 * losses[0]
    assert "train/loss" in model.trainer.callback_metrics


def test_the_loss_is_that_of_logits_and_label(small_unet: Callable[[], UNet]) -> None:
    network, sample = small_unet(), batch()
    expected = DiceCELoss(sigmoid=True)(network(sample["image"]), sample["label"].float())
    torch.testing.assert_close(segmenter(network).training_step(sample, 0), expected)


@pytest.mark.parametrize(
    ("scheduler", "total"),
    [
        (partial(OneCycleLR, max_lr=LEARNING_RATE), 6),
        (partial(OneCycleLR, max_lr=LEARNING_RATE, total_steps=None), 6),
        (partial(OneCycleLR, max_lr=LEARNING_RATE, total_steps=40), 40),
    ],
)
def test_the_length_of_the_schedule_is_filled_in_only_where_it_is_open(scheduler: Any, total: int) -> None:
    model = segmenter(Threshold(), scheduler=scheduler)
    fitted = trainer(max_steps=6)
    fitted.fit(model, loader([batch()] * 3))
    (config,) = fitted.lr_scheduler_configs
    assert config.scheduler.total_steps == total
    # Stepped every batch.
    assert config.scheduler.last_epoch == 6


def test_a_schedule_without_a_length_is_left_alone() -> None:
    model = segmenter(Threshold(), scheduler=partial(StepLR, step_size=2, gamma=0.5))
    trainer(max_steps=5).fit(model, loader([batch()] * 5))
    assert model.optimizers().param_groups[0]["lr"] == pytest.approx(LEARNING_RATE / 4)


def test_without_a_schedule_the_learning_rate_stays() -> None:
    model = segmenter(Threshold())
    fitted = trainer(max_steps=2)
    fitted.fit(model, loader([batch()] * 2))
    assert fitted.lr_scheduler_configs == []
    assert fitted.optimizers[0].param_groups[0]["lr"] == LEARNING_RATE


@pytest.mark.parametrize("stage", ["val", "test"])
def test_dice_is_averaged_by_task_over_the_cases_that_have_foreground(stage: str) -> None:
    labels = [torch.rand(1, 10, 9, 8, generator=torch.Generator().manual_seed(seed)) > 0.6 for seed in range(5)]
    labels[1] = torch.zeros_like(labels[1])
    scans = [scan(seed, "Liver" if seed < 3 else "Kidney", label) for seed, label in enumerate(labels)]
    scans += [scan(5, "Empty", torch.zeros(1, 10, 9, 8)), scan(6, "Other", None, own=None)]
    model = segmenter(Threshold())
    run = trainer()
    outputs: list[ScoredScan] = []

    class Keep(pl.Callback):
        def on_validation_batch_end(self, trainer: Any, module: Any, output: Any, *_: Any) -> None:
            outputs.append(output)

        on_test_batch_end = on_validation_batch_end

    run.callbacks.append(Keep())
    evaluate = run.validate if stage == "val" else run.test
    evaluate(model, loader(scans[3:]), verbose=False)
    # A second pass does not remember the first.
    outputs.clear()
    evaluate(model, loader(scans), verbose=False)
    brute = [brute_dice(item["native"] > 0, label) for item, label in zip(scans, labels, strict=False)]
    metrics = {key: float(value) for key, value in run.callback_metrics.items()}
    logged = ["dice"] if stage == "val" else ["dice", "hd95_mm", "asd_mm"]
    names = ("Liver", "Kidney", "Empty", "mean")
    assert set(metrics) == {f"{stage}/{name}/{metric}" for name in names for metric in logged}
    liver, kidney = metrics[f"{stage}/Liver/dice"], metrics[f"{stage}/Kidney/dice"]
    assert liver == pytest.approx((brute[0] + brute[2]) / 2)
    assert kidney == pytest.approx((brute[3] + brute[4]) / 2)
    assert math.isnan(metrics[f"{stage}/Empty/dice"])
    assert metrics[f"{stage}/mean/dice"] == pytest.approx((liver + kidney) / 2)
    measured = [output.segmentation.accuracy["dice"] for output in outputs[:5]]  # type: ignore[union-attr]
    assert measured == pytest.approx([brute[0], math.nan, *brute[2:]], nan_ok=True)
    assert outputs[6].segmentation is None
    # A test without feature statistics has nothing to compare preprocessings with.
    assert list(outputs[6].probabilities) == ([FINE] if stage == "val" else [])


def test_dice_is_measured_on_the_image_s_own_grid_under_its_own_preprocessing() -> None:
    model = segmenter(Threshold())
    native, label = volume(0, (12, 12, 12)), torch.zeros(1, 12, 12, 12)
    label[:, 2:9, 3:10, 4:11] = 1
    doubled = torch.eye(4, dtype=torch.float64) * 2
    doubled[3, 3] = 1
    working = MetaTensor(label[:, ::2, ::2, ::2] * 2 - 1, affine=doubled)
    item = scan(0, "Liver", None, own=COARSE) | {
        "native": native,
        "known": None,
        "missing": frozenset(),
        "label": MetaTensor(label.to(torch.uint8), affine=native.affine),
        "images": {FINE: volume(1), COARSE: working},
    }
    with torch.no_grad():
        output = model.validation_step(item, 0)
    expected = to_native(VolumePredictor(Threshold(), (8, 8, 8), 0.25, 4)(working), native)
    found = output.segmentation
    torch.testing.assert_close(found.probability, expected)
    assert found.probability.shape == (12, 12, 12)
    assert found.accuracy["dice"] == pytest.approx(brute_dice(expected >= 0.5, label[0]))
    assert 0.7 < found.accuracy["dice"] < 1


def test_volumes_are_segmented_in_32_bit_where_the_trainer_computes_in_16() -> None:
    """The detector was fitted so, and validation and test are to agree."""
    torch.manual_seed(0)
    model = segmenter(nn.Conv3d(1, 1, 3, padding=1)).eval()
    item = scan(0, "Liver", torch.ones(1, 10, 9, 8))
    with torch.no_grad():
        expected = [step(item, 0).segmentation.probability for step in (model.validation_step, model.test_step)]
        with torch.autocast("cpu", torch.bfloat16):
            found = [step(item, 0).segmentation.probability for step in (model.validation_step, model.test_step)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_surface_distances_are_those_of_the_image_s_own_spacing_and_are_averaged_by_task() -> None:
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    native = MetaTensor(torch.full((1, 8, 8, 8), -1.0), affine=affine)
    native[0, 2:5, 2:5, 2:5] = 1
    scans = []
    for seed, (dataset, shift) in enumerate([("Liver", (1, 0, 0)), ("Liver", (0, 0, 1)), ("Kidney", (0, 1, 0))]):
        label = (torch.roll(native.as_tensor(), shift, (1, 2, 3)) > 0).to(torch.uint8)
        item = scan(seed, dataset, None) | {"native": native, "images": {FINE: native}}
        scans.append(item | {"label": MetaTensor(label, affine=affine)})
    model, run = segmenter(Threshold()), trainer()
    with torch.no_grad():
        outputs = [model.test_step(item, 0).segmentation.accuracy for item in scans]
        assert list(model.validation_step(scans[0], 0).segmentation.accuracy) == ["dice"]
    # A cube of three voxels a side against itself, moved by one: no surface voxel is farther than that step.
    assert [output["hd95_mm"] for output in outputs] == pytest.approx([1, 3, 2])
    assert all(0 < output["asd_mm"] < output["hd95_mm"] for output in outputs)
    run.test(segmenter(Threshold()), loader(scans), verbose=False)
    metrics = {key: float(value) for key, value in run.callback_metrics.items()}
    assert metrics["test/Liver/hd95_mm"] == pytest.approx(2)
    assert metrics["test/Kidney/asd_mm"] == pytest.approx(outputs[2]["asd_mm"])
    assert metrics["test/mean/hd95_mm"] == pytest.approx(2)


def test_a_test_covers_every_preprocessing_and_gives_a_verdict_only_with_an_ood_detector(
    small_unet: Callable[[], UNet],
) -> None:
    model = segmenter(small_unet()).eval()
    item = scan(0, "Liver", torch.ones(1, 10, 9, 8))
    item["images"] = {FINE: item["images"][FINE], COARSE: volume(1, (6, 5, 9))}
    seen: list[Evidence] = []

    verdict = SimpleNamespace(task="Liver")

    def ood_detector(evidence: Evidence) -> SimpleNamespace:
        seen.append(evidence)
        return verdict

    with torch.no_grad():
        alone = model.test_step(item, 0)
        assert (list(alone.probabilities), alone.verdict) == ([FINE], None)
        model.observer, model.ood_detector = Observer(model.predictor, ["model.0"]), ood_detector  # type: ignore[assignment]
        outputs = model.test_step(item, 0)
        assert model.validation_step(item, 0).verdict is None
    assert (list(outputs.probabilities), outputs.verdict) == ([FINE, COARSE], verdict)
    assert torch.equal(outputs.probabilities[FINE], alone.probabilities[FINE])
    (evidence,) = seen
    assert [view.preprocessing for view in evidence.views] == [str(FINE), str(COARSE)]


def test_weights_are_those_of_the_network_and_nothing_else(small_unet: Callable[[], UNet]) -> None:
    network = small_unet()
    expected = {f"network.{name}": value.clone() for name, value in network.state_dict().items()}
    state = segmenter(network).state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_unknown_voxels_change_neither_the_loss_nor_the_figures() -> None:
    model = segmenter(Threshold())
    sample = batch()
    unknown = torch.rand(sample["label"].shape, generator=torch.Generator().manual_seed(1)) < 0.3
    hidden = sample | {"label": sample["label"].masked_fill(unknown, UNKNOWN)}
    changed = hidden | {"image": torch.where(unknown, -sample["image"], sample["image"])}
    assert model.training_step(hidden, 0).item() == model.training_step(changed, 0).item()
    native = volume(3)
    known = torch.ones_like(native.as_tensor(), dtype=torch.bool)
    known[:, 6:] = False
    label = ((volume(4) > 0) & known).as_tensor()
    item = scan(3, "Liver", label) | {"known": known}
    accuracy = model.test_step(item, 0).segmentation.accuracy  # type: ignore[union-attr]
    predicted = (native.as_tensor() > 0) & known
    assert accuracy["dice"] == pytest.approx(brute_dice(predicted, label))
    expected = surface_distances(predicted[0], label[0], [1.0, 1.0, 1.0])
    assert (accuracy["hd95_mm"], accuracy["asd_mm"]) == pytest.approx(expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_takes_as_many_channels_as_the_tasks_stack(channels: int) -> None:
    model = segmenter(UNet(3, channels, 1, channels=(4, 8), strides=(2,)))
    task = Task("somewhere", "MR", (1, 1, 1), [1], channel=[0, 1, 2])
    data = MultiTaskData({"T": task}, (8, 8, 8))
    if channels == 3:
        model.read_outputs(data)
    else:
        with pytest.raises(ConfigError, match="takes 1 channels and the tasks stack 3"):
            model.read_outputs(data)
