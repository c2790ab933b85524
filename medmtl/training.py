"""`medmtl fit` and `medmtl test`: LightningCLI with one run folder and flags that win over everything."""

import csv
import json
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb
from jsonargparse import ArgumentError
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from rich.console import Console
from rich.table import Table

from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.checkpoints import MONITOR, RunCheckpoint
from medmtl.callbacks.record import RunRecord
from medmtl.callbacks.report import ReportCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.data.datamodule import MultiTaskData
from medmtl.errors import ConfigError
from medmtl.models.segmenter import Segmenter
from medmtl.report.html import headline
from medmtl.request import Request, parse_request

logger = logging.getLogger(__name__)

DESCRIPTIONS = {
    "fit": "Train one model on several tasks. Without --run the next free folder is started (runs/NAME, runs/NAME-2, "
    "...; NAME is `run` of the configuration, or the name of its file). --run FOLDER trains into that folder, which "
    "is refused if it holds a run, unless --resume (go on from last.ckpt) or --overwrite is given.",
    "test": "Accuracy, calibration and out-of-distribution report of the best checkpoint of a run, named with "
    "--run FOLDER or --ckpt_path FILE, or the newest of the configuration's name. Values come from the checkpoint, "
    "over them --config, over that flags.",
}


@dataclass
class Wandb:
    """Weights & Biases mirrors the local files.

    Args:
        mode: offline (files in the run folder, no account needed), online, or disabled.
        project: name of the project there.
    """

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "medmtl"


class MedCLI(LightningCLI):
    """LightningCLI whose output all goes to one run folder.

    Args:
        request: run folder, checkpoint and arguments.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        parser = {"exit_on_error": False}
        super().__init__(
            Segmenter,
            MultiTaskData,
            save_config_callback=RunRecord,
            trainer_defaults={"num_sanity_val_steps": 0, "log_every_n_steps": 25, "enable_model_summary": False},
            seed_everything_default=0,
            parser_kwargs={**parser, **{name: {**parser, "description": text} for name, text in DESCRIPTIONS.items()}},
            args=request.argv,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """`fit` and `test`."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in DESCRIPTIONS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, the callbacks that always run, and what is said only once."""
        parser.add_argument("--run", type=str | None, default=None, help="run folder, or in a configuration its name")
        parser.add_lightning_class_args(CalibrationCallback, "calibration")
        parser.add_lightning_class_args(SpectralCallback, "spectral")
        parser.add_class_arguments(Wandb, "wandb")
        parser.link_arguments("data.patch_size", "model.patch_size")
        parser.link_arguments("seed_everything", "data.seed")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with loggers, checkpoints and report of the run folder."""
        self.datamodule.setup(self.subcommand)  # bad input ends here, before anything is written
        run, given = self.request.run, self._get(self.config_init, "trainer")
        kwargs = {**kwargs, "default_root_dir": str(run.path), "logger": [*self._loggers(), *_listed(given.logger)]}
        if self.subcommand == "fit":
            extra: list[Callback] = [RunCheckpoint(run.checkpoints)]
        else:
            assert self.request.checkpoint is not None
            self.report = ReportCallback(run, self.request.checkpoint, self._get(self.config_init, "spectral"))
            extra = [self.report]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": extra}
        return super().instantiate_trainer(**kwargs)

    def _loggers(self) -> list[Logger]:
        run = self.request.run
        earlier = _read_metrics(run.metrics)
        local = CSVLogger(save_dir=run.path.parent, name=run.path.name, version="")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            local.experiment.metrics = earlier
        options: Wandb = self._get(self.config_init, "wandb")
        if options.mode == "disabled":
            return [local]
        os.environ.setdefault("WANDB_SILENT", "true")
        mirror = WandbLogger(
            name=run.path.name,
            save_dir=run.path,
            project=options.project,
            offline=options.mode == "offline",
            job_type=self.subcommand,
            config={"run": str(run.path), "resumed_from": str(self.request.checkpoint or "")},
        )
        return [local, mirror]


def run_command(argv: Sequence[str]) -> None:
    """Run `fit` or `test`.

    Args:
        argv: the command and its options.

    Raises:
        MedMTLError: for everything that the user can mend.
    """
    _quiet()
    request = parse_request(list(argv))
    try:
        cli = MedCLI(request)
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except MisconfigurationException as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except SystemExit:
        if request.command == "fit" and request.run.last.is_file():
            logger.warning("interrupted; go on with: medmtl fit --run %s --resume", request.run.path)
        raise
    finally:
        if wandb.run is not None:
            wandb.finish()
    if request.command == "fit":
        _say_trained(cli)
    else:
        _say_tested(cli)


def _listed(value: Any) -> list[Any]:
    return [] if value in (None, True, False) else value if isinstance(value, list) else [value]


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier part of the run, which CSVLogger would delete."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(stream)]


def _quiet() -> None:
    """Keep the libraries' advice to developers from the user's terminal."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in (
        ".*does not have many workers.*",
        ".*`tensorboardX` has been removed.*",
        "Checkpoint directory .* exists and is not empty",
        ".*smaller than the logging interval.*",
        ".*LightningCLI's args parameter.*",
        ".*Trying to infer the `batch_size`.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _say_trained(cli: MedCLI) -> None:
    run = cli.request.run
    console = Console()
    validated = [row for row in _read_metrics(run.metrics) if MONITOR in row]
    if validated:
        best = max(validated, key=lambda row: float(row[MONITOR]))
        table = Table("task", f"validation Dice, step {best['step']}")
        for name in [*cli.datamodule.trained, "mean"]:
            table.add_row(name, f"{float(best[f'val/{name}/dice']):.3f}")
        console.print(table)
    console.print(f"trained: {run.best if run.best.is_file() else run.path}", soft_wrap=True)


def _say_tested(cli: MedCLI) -> None:
    metrics = cli.trainer.callback_metrics
    table = Table("task", "Dice", "ECE whole", "ACE band")
    for name in [*cli.datamodule.trained, "mean"]:
        row = [metrics.get(f"test/{name}/{key}") for key in ("dice", "ece_whole", "ace_band")]
        table.add_row(name, *("-" if value is None else f"{float(value):.3f}" for value in row))
    console = Console()
    console.print(table)
    console.print(headline(json.loads((cli.request.run.report / "report.json").read_text())), soft_wrap=True)
    console.print(f"report: {cli.report.page}", soft_wrap=True)
