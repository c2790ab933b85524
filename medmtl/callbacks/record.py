"""RunRecord: resolved configuration, split, versions, device and durations of a run, as files."""

import logging
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.utilities.exceptions import SIGTERMException

from medmtl.callbacks.checkpoints import MONITOR
from medmtl.data.splits import write_splits
from medmtl.errors import Stopped
from medmtl.files import write_text
from medmtl.runs.checkpoint import CHECKPOINT_KEY
from medmtl.runs.folder import RunFolder, environment
from medmtl.runs.wandb import RunWandbLogger

# Sections of the configuration that a checkpoint keeps, so that it can be tested without a file.
CHECKPOINT_SECTIONS = ("seed_everything", "data", "model", "calibration", "spectral", "scaling", "wandb")
# Options that belong to one training: the checkpoint holds split and weights, and these files may no longer exist.
NOT_KEPT = (("data", "splits"), ("model", "finetune"))
LONGEST = 500  # characters of an error in `run.json`


class RunRecord(SaveConfigCallback):
    """Writes `config.yaml` (fit) or `config.test.yaml` (test, ...), `splits.json` and `run.json` into the run folder.

    Checkpoints get the part of the configuration that testing them needs, as YAML text.
    """

    _started: float | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the clock and write the configuration and the manifest."""
        self._started = time.monotonic()
        if not trainer.is_global_zero:
            logging.getLogger("medmtl").setLevel(logging.ERROR)  # only the first process logs
            return
        run, name = self._run(trainer), _name(stage)
        write_text(run.config if name == "fit" else run.config.with_suffix(f".{name}.yaml"), self._text)
        machine: dict[str, Any] = {"device": str(trainer.strategy.root_device), "processes": trainer.world_size}
        if name == "fit":
            machine["precision"] = str(trainer.precision)
        facts = {**environment(), **machine, "seed": self.config.seed_everything, "status": "running"}
        run.update_manifest(**{name: facts})
        for each in trainer.loggers:
            if isinstance(each, RunWandbLogger):
                each.record(run, name)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the split."""
        if trainer.is_global_zero:
            write_splits(self._run(trainer).splits, trainer.datamodule.splits)  # type: ignore[attr-defined]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the configuration into the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = self._kept

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write how the command ended, and why; what ended it may be a disk that is full."""
        facts = {"status": _how(exception)}
        if facts["status"] == "failed":
            facts["error"] = " ".join(str(exception).split())[:LONGEST]
        with suppress(OSError):
            self._record(trainer, **facts)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write duration and number of steps of a command that came to its end."""
        self._record(trainer, status="finished")

    def _record(self, trainer: pl.Trainer, **facts: Any) -> None:
        if self._started is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        facts |= {"seconds": round(time.monotonic() - self._started, 1), "steps": trainer.global_step}
        if MONITOR in trainer.callback_metrics:
            facts[MONITOR] = float(trainer.callback_metrics[MONITOR])
        run, name = self._run(trainer), _name(trainer.state.fn)
        run.update_manifest(**{name: run.facts_of(name) | facts})

    @cached_property
    def _text(self) -> str:
        """The resolved configuration as YAML."""
        text: str = self.parser.dump(self.config, skip_none=False, skip_validation=True)  # that was when it was parsed
        return text

    @cached_property
    def _kept(self) -> str:
        """What checkpoints keep of it, made once: it is written at every validation."""
        config = yaml.safe_load(self._text)
        kept = {section: config[section] for section in CHECKPOINT_SECTIONS}
        for section, key in NOT_KEPT:
            kept[section].pop(key, None)
        return yaml.safe_dump(kept, sort_keys=False)

    @staticmethod
    def _run(trainer: pl.Trainer) -> RunFolder:
        return RunFolder(Path(trainer.default_root_dir))


def _how(exception: BaseException) -> str:
    """How a command ended that did not come to its end."""
    if isinstance(exception, Stopped):
        return exception.how
    if isinstance(exception, SIGTERMException):
        return "terminated"
    return "interrupted" if isinstance(exception, KeyboardInterrupt) else "failed"


def _name(stage: Any) -> str:
    """The command: `fit`, `test` or `calibrate`; Lightning passes an enumeration whose text is another."""
    name = str(getattr(stage, "value", stage))
    return "calibrate" if name == "validate" else name
