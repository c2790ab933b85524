"""`medmtl fit`, `test` and `calibrate`: LightningCLI with one run folder, in which flags override all else."""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import wandb
import yaml
from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from rich.table import Table

from medmtl.accuracy import FOREGROUND
from medmtl.building import building
from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.checkpoints import MONITOR, RunCheckpoint
from medmtl.callbacks.last_validation import LastValidation
from medmtl.callbacks.record import RunRecord
from medmtl.callbacks.report import ReportCallback
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.data.datamodule import MultiTaskData
from medmtl.distributed import is_first, part
from medmtl.errors import ConfigError
from medmtl.files import read_json, read_table
from medmtl.models.finetune import load_weights
from medmtl.models.segmenter import Segmenter
from medmtl.report.test.sentences import headline, routing_sentence
from medmtl.runs.checkpoint import CHECKPOINT_KEY, read_checkpoint, write_checkpoint
from medmtl.runs.wandb import RunWandbLogger, Wandb
from medmtl.terminal import terminal
from medmtl.training.outputs import resolve_outputs
from medmtl.training.request import RUN_VARIABLE, Request, parse_request

logger = logging.getLogger(__name__)

MOST_SEED = 2**32 - 1  # of numpy

DESCRIPTIONS = {
    "fit": "Train one network on several tasks. Without --run the next free folder is used (runs/NAME, runs/NAME-2, "
    "...; NAME is `run` of the configuration, or the name of its file). --run FOLDER trains into that folder, which "
    "is refused if it holds a run, unless --resume (continue from last.ckpt) or --overwrite is given. --resume without "
    "--config builds only networks, losses, optimizers and schedulers of torch, MONAI and medmtl, unless --trust is "
    "given.",
    "test": "Accuracy, calibration and out-of-distribution (OOD) report of the best checkpoint of a run, named with "
    "--run FOLDER or --ckpt-path FILE, or the newest of the configuration's name. Values of the checkpoint are "
    "overridden by --config, and those by flags. Of the checkpoint only classes of medmtl, monai.networks and torch.nn "
    "are built, unless --trust is given.",
    "calibrate": "Re-estimate post-hoc scaling and the OOD threshold of a trained run on its validation cases, with "
    "the signature bank and the OOD detector, and write them into its best checkpoint. The run is named as for "
    "`medmtl test`.",
}


class CommandTrainer(Trainer):
    """Lightning's trainer with a method for each command."""

    def calibrate(
        self,
        model: Segmenter,
        datamodule: MultiTaskData,
        ckpt_path: str | None = None,
        verbose: bool = True,
        weights_only: bool | None = None,
    ) -> None:
        """Fit scaling and OOD detector of a checkpoint: a validation, after which their callbacks write them.

        Args:
            model: the network.
            datamodule: its data.
            ckpt_path: the checkpoint.
            verbose: print the figures of the validation.
            weights_only: load without running code from the checkpoint.
        """
        self.validate(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=verbose, weights_only=weights_only)


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
            trainer_class=CommandTrainer,
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 25,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
            },
            seed_everything_default=0,
            parser_kwargs={**parser, request.command: {**parser, "description": DESCRIPTIONS[request.command]}},
            args=request.argv,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning calls it on the instance
        """The command that was called (a parser takes time to make), and which of its arguments are no options."""
        known = LightningCLI.subcommands() | {"calibrate": {"model", "datamodule"}}
        return {self.request.command: known[self.request.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, the callbacks that always run, and links between options."""
        parser.add_argument("--run", type=str | None, default=None, help="run folder, or in a configuration its name")
        parser.add_lightning_class_args(CalibrationCallback, "calibration")
        parser.add_lightning_class_args(SpectralCallback, "spectral")
        parser.add_lightning_class_args(ScalingCallback, "scaling")
        parser.add_class_arguments(Wandb, "wandb")
        parser.link_arguments("data.patch_size", "model.patch_size")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("model.outputs", "data.outputs")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line.

        Raises:
            ConfigError: a key, a value or the seed cannot be used.
        """
        with building(ConfigError):
            super().parse_arguments(parser, args)
        config = self.config[str(self.config.subcommand)]
        if not isinstance(config.trainer, Namespace):
            raise ConfigError(f"trainer={config.trainer}", fix="give it options of Lightning's trainer")
        seed = config.seed_everything
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed <= MOST_SEED:
            raise ConfigError(f"seed_everything={seed}", fix=f"use 0 to {MOST_SEED}")

    def instantiate_classes(self) -> None:
        """Build what the configuration names, and then the trainer.

        Raises:
            ConfigError: a class refuses its arguments.
        """
        with building(partial(ConfigError, fix="correct its arguments")):
            self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule, self.model = (self._get(self.config_init, name) for name in ("data", "model"))
        self.trainer = self.instantiate_trainer()

    def before_instantiate_classes(self) -> None:
        """Write what the data declare of their classes into the configuration, and the channels that follow from it."""
        config = self.config[str(self.subcommand)]
        with building(ConfigError):
            resolve_outputs(config)
        if self.subcommand == "fit":
            logger.info("tasks: %s", ", ".join(config.data.tasks))

    def _parse_ckpt_path(self) -> None:
        """Take nothing from a checkpoint but what `request` has checked; Lightning would build its hyperparameters."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with loggers, checkpoints and report of the run folder."""
        self.datamodule.setup(self.subcommand)  # bad input ends here, before anything is written
        self.model.read_outputs(self.datamodule)
        if self.subcommand == "fit":
            self.model.check_trainable()
        if self.request.checkpoint is not None:
            load_weights(self.model.network, self.request.checkpoint)  # and so does a checkpoint of another network,
        elif self.subcommand == "fit":
            self.model.load_source()  # also one to fine-tune
        self.model.load_members(self.request.checkpoint, self.datamodule, str(self.subcommand))
        run, given = self.request.run, self._get(self.config_init, "trainer")
        kwargs = {
            **kwargs,
            "default_root_dir": str(run.path),
            # A calibration must not add to what the training logged.
            "logger": [] if self.subcommand == "calibrate" else [*self._loggers(), *_listed(given.logger)],
            "use_distributed_sampler": False,  # Lightning's would repeat cases; `MultiTaskData` shares them out
        }
        extra: list[Callback] = []
        if self.subcommand == "fit":
            extra = [RunCheckpoint(run.checkpoints), LastValidation()]
        elif self.subcommand == "test":
            assert self.request.checkpoint is not None
            calibration, spectral, scaling = (
                self._get(self.config_init, name) for name in ("calibration", "spectral", "scaling")
            )
            self.report = ReportCallback(run, self.request.checkpoint, calibration, spectral, scaling)
            extra = [self.report]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": extra}
        with building(partial(ConfigError, fix="correct the section `trainer`")):
            trainer = super().instantiate_trainer(**kwargs)
        if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
            # The others split the network, so that each window needs all processes; volumes differ in their windows.
            kind = type(trainer.strategy).__name__
            raise ConfigError(f"trainer.strategy: {kind} splits the network between devices", fix="use ddp")
        return trainer

    def _loggers(self) -> list[Logger]:
        run = self.request.run
        local = CSVLogger(save_dir=run.path.parent, name=run.path.name, version="")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            if is_first():
                earlier = _read_metrics(run.metrics)  # before the logger's `experiment`, which deletes them
                local.experiment.metrics = earlier
        options: Wandb = self._get(self.config_init, "wandb")
        if options.mode == "disabled":
            return [local]
        return [local, RunWandbLogger(options, run, str(self.subcommand), self.request.checkpoint, self.resolved())]

    def resolved(self) -> dict[str, Any]:
        """The configuration with all defaults, as plain data."""
        command = str(self.subcommand)
        config: dict[str, Any] = yaml.safe_load(self._parser(command).dump(self.config[command], skip_none=False))
        return config


def run_command(argv: Sequence[str]) -> None:
    """Run `fit`, `test` or `calibrate`.

    Args:
        argv: the command and its options.

    Raises:
        MedMTLError: for everything that the user can correct.
    """
    _quiet()
    request = parse_request(list(argv))
    os.environ[RUN_VARIABLE] = str(request.run.path)
    try:
        cli = MedCLI(request)
    except MisconfigurationException as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except ValueError as error:
        if "specified number of total steps" not in str(error):
            raise
        fix = "train longer from the beginning, without --resume"
        raise ConfigError("the schedule of the learning rate has ended", fix=fix) from None
    except SystemExit:
        if request.command == "fit" and request.run.last.is_file():
            logger.warning("interrupted; continue with: medmtl fit --run %s --resume", request.run.path)
        raise
    finally:
        os.environ.pop(RUN_VARIABLE, None)
        if wandb.run is not None:
            wandb.finish()
    part()
    if not is_first():
        return
    if request.command == "calibrate":
        _keep_detector(cli)
    if request.command == "fit":
        _print_trained(cli)
    elif request.command == "test":
        _print_tested(cli)
    else:
        terminal().print(f"calibrated: {request.checkpoint}", soft_wrap=True)


def _keep_detector(cli: MedCLI) -> None:
    """Write the detector and the layers that `medmtl calibrate` fitted into the checkpoint's configuration."""
    path = cli.request.checkpoint
    assert path is not None
    checkpoint = read_checkpoint(path)
    config, fitted = yaml.safe_load(checkpoint[CHECKPOINT_KEY]), cli.resolved()["spectral"]
    config["spectral"] = {**config["spectral"], "layers": fitted["layers"], "detector": fitted["detector"]}
    checkpoint[CHECKPOINT_KEY] = yaml.safe_dump(config, sort_keys=False)
    write_checkpoint(path, checkpoint)


def _listed(value: Any) -> list[Any]:
    return [] if value in (None, True, False) else value if isinstance(value, list) else [value]


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier part of the run, which CSVLogger would delete."""
    if not path.is_file():
        return []
    return [{key: value for key, value in row.items() if value != ""} for row in read_table(path)]


def _quiet() -> None:
    """Silence the libraries' advice to developers, and all processes but the first."""
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
        ".*could not find the monitored key.*",  # a training without a validation, see `_print_trained`
        ".*in eval mode at the start of training.*",  # frozen layers are
        r".*recommended to use `self\.log\(.*sync_dist.*",  # our figures are the same in all processes
        "Grad strides do not match bucket view strides",  # of a network with one input channel: they are the same
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    if not is_first():
        for name in ("medmtl", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.simplefilter("ignore")


def _print_trained(cli: MedCLI) -> None:
    run = cli.request.run
    console = terminal()
    validated = [row for row in _read_metrics(run.metrics) if MONITOR in row]
    if validated:
        best = max(validated, key=lambda row: float(row[MONITOR]))
        table = Table("task", f"validation Dice, step {best['step']}")
        for name in [*cli.datamodule.trained, "mean"]:
            table.add_row(name, f"{float(best[f'val/{name}/dice']):.3f}")
            for key in (key for key in best if re.fullmatch(rf"val/{re.escape(name)}/[^/]+/dice", key)):
                each = key.split("/")[-2]
                if each != FOREGROUND:
                    table.add_row(f"  {each}", f"{float(best[key]):.3f}")
        console.print(table)
    else:
        console.print("nothing was validated, so that there is no best checkpoint, no table and no verdict")
    console.print(f"trained: {run.best if run.best.is_file() else run.path}", soft_wrap=True)


def _print_tested(cli: MedCLI) -> None:
    metrics = cli.trainer.callback_metrics
    report = read_json(cli.request.run.report / "report.json")
    table = Table("task", "Dice", "HD95 mm", "ECE whole", "ACE band")
    for task in [*cli.datamodule.trained, "mean"]:
        classes = report["tasks"].get(task, {}).get("classes", {})
        for name, shown in {task: task, **{f"{task}/{each}": f"  {each}" for each in classes}}.items():
            row = {key: metrics.get(f"test/{name}/{key}") for key in ("dice", "hd95_mm", "ece_whole", "ace_band")}
            digits = {"hd95_mm": 1}
            cells = ("-" if value is None else f"{float(value):.{digits.get(key, 3)}f}" for key, value in row.items())
            table.add_row(shown, *cells)
    console = terminal()
    console.print(table)
    console.print(headline(report), soft_wrap=True)
    if routing_sentence(report):
        console.print(routing_sentence(report), soft_wrap=True)
    console.print(f"report: {cli.report.page}", soft_wrap=True)
