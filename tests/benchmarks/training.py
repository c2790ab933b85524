"""What `medmtl fit` adds to a bare PyTorch loop on ready patches; `make bench` runs it.

A training with a shipped configuration. After every ten steps of it ten bare steps follow: the same network, precision,
loss, optimizer and clipping of gradients, on patches that are in memory. So a busy machine slows both alike, and each
such pair gives one ratio. Ten more in single precision say what the training gains where it computes in bfloat16. What
was found is added to `bench.json`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from scipy.stats import bootstrap

from medmtl.cli import main as medmtl

TARGETS = {"bare_over_fit": 0.97, "waiting": 0.03, "mixed_over_single": None}
BLOCK = 10  # steps of each kind in a pair
FOUND: dict[str, list[float]] = {"bare_over_fit": [], "waiting": [], "mixed_over_single": []}


class Interleaved(pl.Callback):
    """Times the steps of a training, and bare steps between them."""

    def __init__(self) -> None:
        self.network: torch.nn.Module | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.batch: dict[str, Any] = {}
        self.start = self.end = self.waited = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Count the time in which the batch was drawn."""
        if self.network is None:
            self.network = deepcopy(module.network)
            self.optimizer = module.optimizer(self.network.parameters())
            self.batch = {key: value.clone() for key, value in batch.items() if isinstance(value, torch.Tensor)}
        elif index % BLOCK:
            self.waited += time.perf_counter() - self.end

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """After a block of steps, take as many bare ones."""
        self.end = time.perf_counter()
        if (index + 1) % BLOCK:
            return
        taken = self.end - self.start
        mixed = self._bare(module, trainer, trainer.precision_plugin.forward_context)
        single = self._bare(module, trainer, nullcontext)
        if index >= BLOCK:  # the first block warms up
            FOUND["waiting"].append(self.waited / taken)
            FOUND["bare_over_fit"].append(mixed / taken)
            FOUND["mixed_over_single"].append(mixed / single)
        self.waited, self.start = 0.0, time.perf_counter()

    def _bare(
        self, module: pl.LightningModule, trainer: pl.Trainer, precision: Callable[[], AbstractContextManager[object]]
    ) -> float:
        """Seconds of a block of steps on ready patches."""
        assert self.network is not None
        assert self.optimizer is not None
        begun = time.perf_counter()
        for _ in range(BLOCK):
            self.optimizer.zero_grad()
            with precision():
                logits = self.network(self.batch["image"])
            module.loss(logits.float(), self.batch["label"].float()).backward()
            if trainer.gradient_clip_val:
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), trainer.gradient_clip_val)
            self.optimizer.step()
        return time.perf_counter() - begun


def summary(values: list[float]) -> dict[str, Any]:
    """Mean with its 95 % bootstrap interval."""
    found = np.array(values)
    ends = bootstrap((found,), np.mean, random_state=0).confidence_interval
    return {"mean": float(found.mean()), "low": float(ends.low), "high": float(ends.high), "pairs": len(found)}


def main() -> None:
    """Measure, print and add to `bench.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="multitask.yaml", help="of the training; one with one output for all tasks")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw patches")
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        medmtl(
            [
                "fit",
                f"--config={options.config}",
                f"--run={folder}/run",
                "--wandb.mode=disabled",
                "--trainer.accelerator=cpu",
                "--trainer.max_epochs=1",
                f"--data.batches={(options.pairs + 1) * BLOCK}",
                f"--data.workers={options.workers}",
                f"--trainer.callbacks+={json.dumps({'class_path': f'{__name__}.Interleaved'})}",
            ]
        )
    found = {name: summary(values) for name, values in FOUND.items()}
    for name, each in found.items():
        interval = f"{each['mean']:.3f} [{each['low']:.3f}, {each['high']:.3f}]"
        target = "" if TARGETS[name] is None else f" (target {TARGETS[name]})"
        print(f"{name}: {interval} over {each['pairs']} pairs{target}")
    kept = json.loads(options.output.read_text()) if options.output.is_file() else {}
    kept["training"] = {"threads": options.threads, "workers": options.workers, **found}
    options.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
