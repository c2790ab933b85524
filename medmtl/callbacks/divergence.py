"""DivergenceCallback: a training ends at the first loss or gradient that is not finite."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.utils import get_total_norm

from medmtl.errors import RunError
from medmtl.models.segmenter import LOWER


class DivergenceCallback(pl.Callback):
    """Ends a training that diverges, before the step that would spoil the weights; the checkpoints so far stay.

    One number a step is read from the device. In 16-bit precision a gradient that is not finite is part of the method:
    its step is left out and the scale lowered, so that only the loss is looked at.
    """

    def __init__(self) -> None:
        self._batch: Mapping[str, Any] = {}
        self._losses: list[torch.Tensor] = []  # of the batches of a step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Mapping[str, Any], *_: Any
    ) -> None:
        """Keep the batch, to name its cases."""
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """Keep the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at loss and gradients.

        Raises:
            RunError: one is not finite; names step, task, case and learning rate.
        """
        loss = torch.stack(self._losses).sum().float()
        self._losses.clear()
        gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        norm = loss.new_zeros(()) if scaled or not gradients else get_total_norm(gradients).to(loss)
        if bool(torch.isfinite(torch.stack([loss, norm])).all()):
            return
        # It takes ten times as long as the norm, which is infinite for very large gradients, too.
        largest = float(get_total_norm(gradients, math.inf)) if gradients else 0.0
        if math.isfinite(float(loss)) and math.isfinite(largest):
            return
        rate = optimizer.param_groups[0]["lr"]
        found = f"the loss is {float(loss)}" if not math.isfinite(float(loss)) else f"a gradient is {largest}"
        where = f"for {self._cases(trainer, pl_module)}, at a learning rate of {rate:g}"
        raise RunError(f"step {trainer.global_step + 1}: {found} {where}", fix=LOWER)

    def _cases(self, trainer: pl.Trainer, segmenter: Any) -> str:
        """The cases of the batch whose loss alone is not finite; all of them where that is none."""
        tasks, batch = list(trainer.datamodule.trained), self._batch  # type: ignore[attr-defined]
        finite = [math.isfinite(loss) for loss in segmenter.losses(batch)]
        chosen = [number for number, each in enumerate(finite) if not each] or range(len(finite))
        names = (f"{tasks[batch['task'][number]]}, case {batch['case'][number]}" for number in chosen)
        return "; ".join(dict.fromkeys(names))
