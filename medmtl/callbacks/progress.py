"""CommandProgress: one line for a whole training or test, with the time that is left of all of it."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.trainer.states import TrainerFn

from medmtl.callbacks.spectral import SpectralCallback
from medmtl.progress import ProgressLine

OFTEN = 0.25  # seconds between two changes of the line: figures are read from the device for it
# Passes through the network of the images whose features are observed at the end, for each of a validation image:
# the image, and its mirror image.
OBSERVED = 2.0


class CommandProgress(ProgressBar):
    """Shows steps, loss, Dice and the time left: of all steps, all validations and what follows the training.

    Args:
        clock: gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._enabled = True
        self._line: ProgressLine | None = None
        self._changed = -math.inf
        self._mark = 0.0  # when the last step or validation ended
        self._steps, self._step_seconds = 0, 0.0
        self._validations, self._validation_seconds = 0, 0.0

    def enable(self) -> None:
        """Show it."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing, as all processes but the first do."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the steps that there are to do."""
        total = trainer.estimated_stepping_batches
        self._mark = self._clock()
        self._begin("training", int(total) if math.isfinite(total) else trainer.global_step, "steps")
        if self._line is not None:
            self._line.done = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        now = self._clock()
        self._step_seconds += now - self._mark
        self._mark, self._steps = now, self._steps + 1
        if self._line is None:
            return
        self._line.done = trainer.global_step
        if now - self._changed >= OFTEN:
            self._changed = now
            self._line.say(_figures(trainer), self.seconds_left(trainer))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure a validation, which is shown by itself where it is one of `medmtl calibrate`."""
        self._mark = self._clock()
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin("validating", _count(trainer.num_val_batches), "cases")

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count a case."""
        if trainer.state.fn == TrainerFn.VALIDATING and self._line is not None:
            self._line.advance()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep how long it took."""
        now = self._clock()
        self._validation_seconds += now - self._mark
        self._mark, self._validations = now, self._validations + 1

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the cases that there are to test."""
        self._begin("testing", _count(trainer.num_test_batches), "cases")

    def on_test_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count a case."""
        if self._line is not None:
            self._line.advance()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the line away."""
        self._end()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the line away."""
        self._end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the line away."""
        self._end()

    def seconds_left(self, trainer: pl.Trainer) -> float | None:
        """What the command will still take; None where a training has no end, or has only begun."""
        total = trainer.estimated_stepping_batches
        if not self._steps or not math.isfinite(total):
            return None
        left = int(total) - trainer.global_step
        seconds = left * self._step_seconds / self._steps
        if self._validations:
            each = self._validation_seconds / self._validations
            seconds += each * math.ceil(left / _steps_between_validations(trainer))
            seconds += each * _images_observed(trainer) / max(_count(trainer.num_val_batches), 1)
        return seconds

    def _begin(self, what: str, total: int, of: str) -> None:
        self._end()
        self._line = ProgressLine(what, max(total, 1), of, self._clock) if self._enabled else None

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _figures(trainer: pl.Trainer) -> str:
    """The last figures that the line shows."""
    shown = trainer.progress_bar_metrics
    names = {"train/loss": "loss", "val/mean/dice": "validation Dice"}
    return "".join(f", {name} {shown[key]:.3f}" for key, name in names.items() if key in shown)


def _steps_between_validations(trainer: pl.Trainer) -> float:
    batches = trainer.num_training_batches * (trainer.check_val_every_n_epoch or 1)
    return max(min(float(trainer.val_check_batch or math.inf), batches) / (trainer.accumulate_grad_batches or 1), 1.0)


def _images_observed(trainer: pl.Trainer) -> float:
    """Validation images whose time the observation of features takes after a training."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not any(isinstance(each, SpectralCallback) and each.layers for each in trainer.callbacks):  # type: ignore[attr-defined]
        return 0.0
    parts = ("train", data.calibration_part)
    return OBSERVED * sum(len(data.splits[task].get(part, ())) for task in data.trained for part in parts)


def _count(batches: Any) -> int:
    return int(sum(batches)) if isinstance(batches, list) else int(batches)
