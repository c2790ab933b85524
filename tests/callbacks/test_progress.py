"""The time left of a training is that of all its steps, its validations and the observation of features."""

from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.trainer.states import TrainerFn

from medmtl.callbacks.progress import CommandProgress
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.ood.detectors import Spectral

STEP, VALIDATION = 2.0, 30.0  # seconds


def trainer(**others: Any) -> Any:
    data = SimpleNamespace(
        trained=["Liver"], calibration_part="val", splits={"Liver": {"train": [""] * 7, "val": [""] * 3, "test": [""]}}
    )
    given = {
        "estimated_stepping_batches": 100,
        "global_step": 0,
        "num_training_batches": 25,
        "val_check_batch": 25,
        "check_val_every_n_epoch": 1,
        "accumulate_grad_batches": 1,
        "num_val_batches": [3],
        "progress_bar_metrics": {"v_num": 3, "train/loss": 0.25},
        "callbacks": [SpectralCallback(["layer"], detector=Spectral())],
        "datamodule": data,
        "state": SimpleNamespace(fn=TrainerFn.FITTING),
        "is_global_zero": True,
    }
    return SimpleNamespace(**{**given, **others})


def run(shown: Any, steps: int, now: list[float]) -> CommandProgress:
    callback = CommandProgress(lambda: now[0])
    callback.on_train_start(shown, None)
    for _ in range(steps):
        now[0] += STEP
        shown.global_step += 1
        callback.on_train_batch_end(shown, None, None, None, 0)
        if shown.global_step % 25 == 0:
            callback.on_validation_start(shown, None)
            now[0] += VALIDATION
            callback.on_validation_end(shown, None)
    return callback


def test_steps_validations_and_features_are_in_the_time_left() -> None:
    shown = trainer()
    callback = run(shown, 50, [0.0])
    images = 2 * (7 + 3) / 3  # two passes of ten images, in validations of three
    assert callback.seconds_left(shown) == pytest.approx(50 * STEP + 2 * VALIDATION + images * VALIDATION)
    plain = trainer(callbacks=[], global_step=50)
    assert callback.seconds_left(plain) == pytest.approx(50 * STEP + 2 * VALIDATION)


def test_a_resumed_training_counts_what_is_left_of_it() -> None:
    shown = trainer(global_step=90, callbacks=[])
    assert run(shown, 5, [0.0]).seconds_left(shown) == pytest.approx(5 * STEP)


def test_a_training_without_an_end_names_no_time() -> None:
    shown = trainer(estimated_stepping_batches=float("inf"))
    assert run(shown, 3, [0.0]).seconds_left(shown) is None


def test_the_line_has_loss_and_dice_and_no_number_of_a_version(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "medmtl")
    run(trainer(progress_bar_metrics={"v_num": 3, "train/loss": 0.25, "val/mean/dice": 0.5}), 31, [0.0])
    expected = "training: 26 of 100 steps, loss 0.250, validation Dice 0.500, about 7 min left"  # after 82 s
    assert caplog.messages == [expected]
