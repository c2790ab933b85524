"""`medmtl fit`, `test` and `calibrate`: LightningCLI with one run folder, in which flags override all else."""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import wandb
import yaml
from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
    SIGTERMException,
)
from rich.table import Table

from medmtl.accuracy import FOREGROUND
from medmtl.building import building
from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.checkpoints import MONITOR, RunCheckpoint, RunCheckpointIO
from medmtl.callbacks.divergence import DivergenceCallback
from medmtl.callbacks.last_validation import LastValidation
from medmtl.callbacks.record import RunRecord
from medmtl.callbacks.report import ReportCallback
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.data.datamodule import MultiTaskData
from medmtl.distributed import is_first, part
from medmtl.errors import AGAIN, ConfigError, MedMTLError, RunError, Stopped
from medmtl.files import read_json
from medmtl.models.finetune import load_weights
from medmtl.models.segmenter import Segmenter
from medmtl.report.test.sentences import headline, routing_sentence
from medmtl.runs.checkpoint import CHECKPOINT_KEY, read_checkpoint, write_checkpoint
from medmtl.runs.folder import RunFolder
from medmtl.runs.metrics import MetricsLogger, read_metrics
from medmtl.runs.replace import set_aside, settle
from medmtl.runs.wandb import RunWandbLogger, Wandb, check_login
from medmtl.terminal import terminal
from medmtl.training.config_files import read_yaml
from medmtl.training.outputs import resolve_outputs
from medmtl.training.request import RUN_VARIABLE, STORED, Request, parse_request

logger = logging.getLogger(__name__)

MOST_SEED = 2**32 - 1  # of numpy
# In what torch says of processes that draw patches.
WORKERS = ("DataLoader worker", "with the workers is no longer possible")

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


class _FinishedError(Exception):
    """There is nothing left to train."""


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
        for section in (*STORED, "trainer"):  # the parser takes a number for any of them
            if not isinstance(config[section], Namespace):
                raise ConfigError(f"{section}={config[section]}", fix="give it options by name")
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
        if self.request.resumes:
            self._check_unfinished()
        config = self.config[str(self.subcommand)]
        if is_first():
            check_login(config.wandb)
        with building(ConfigError):
            resolve_outputs(config)
        if self.subcommand == "fit":
            logger.info("tasks: %s", ", ".join(config.data.tasks))

    def _parse_ckpt_path(self) -> None:
        """Take nothing from a checkpoint but what `request` has checked; Lightning would build its hyperparameters."""

    def _check_unfinished(self) -> None:
        """Stop at once, saying so, where the training to resume has come to its end.

        It has not, if the configuration is given more steps or epochs than the run's own has.
        """
        run, wanted = self.request.run, self.config[str(self.subcommand)].trainer
        facts = run.facts_of("fit")
        if facts.get("status") != "finished" or self.request.checkpoint is None or not run.config.is_file():
            return
        before = read_yaml(run.config).get("trainer") or {}
        same = all(getattr(wanted, key) == before.get(key) for key in ("max_steps", "max_epochs", "max_time"))
        steps = facts.get("steps")
        if same or (isinstance(steps, int) and 0 <= wanted.max_steps <= steps):
            if is_first():
                finished = f"{run.path} is finished: it was trained for {steps} steps"
                terminal().print(f"{finished}; to go on, give more with --trainer.max_steps", soft_wrap=True)
            raise _FinishedError

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with loggers, checkpoints and report of the run folder."""
        self.datamodule.setup(self.subcommand)  # bad input ends here, before anything is written
        training = self.subcommand == "fit"
        if training:
            self.model.check_trainable()
        self.model.read_outputs(self.datamodule, training)
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
            extra = [DivergenceCallback(), RunCheckpoint(run), LastValidation()]
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
        trainer.strategy.checkpoint_io = RunCheckpointIO()
        for option in ("max_steps", "max_epochs", "limit_train_batches"):
            if training and getattr(trainer, option) == 0:
                raise ConfigError(f"trainer.{option} is 0: there is nothing to train", fix="use 1 or more")
        if self.request.replaces and is_first():  # the new run has passed every check that needs no training
            self._set_former_aside()
        return trainer

    def _set_former_aside(self) -> None:
        """Move the run that is replaced out of the way, unless the new one starts from it."""
        run, finetune = self.request.run, self.model.finetune
        for start in (self.request.checkpoint, None if finetune is None else Path(finetune.checkpoint).expanduser()):
            if start is not None and start.resolve().is_relative_to(run.path.resolve()):
                raise ConfigError(
                    f"{start} belongs to the run that --overwrite replaces", fix="train into another folder"
                )
        set_aside(run)

    def _loggers(self) -> list[Logger]:
        run, checkpoint = self.request.run, self.request.checkpoint
        before = None
        if self.request.resumes and checkpoint is not None:
            before = int(read_checkpoint(checkpoint)["global_step"])
        local = MetricsLogger(run.metrics, before)
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
    with ExitStack() as held:
        request = parse_request(list(argv), held)
        os.environ[RUN_VARIABLE] = str(request.run.path)
        try:
            cli = _run(request)
        finally:
            os.environ.pop(RUN_VARIABLE, None)
            if wandb.run is not None:
                wandb.finish()
            if is_first() and request.command == "fit":
                settle(request.run)
        part()
        if cli is None or not is_first():
            return
        _check_not_empty(cli)
        if request.command == "calibrate":
            _keep_detector(cli)
        if request.command == "fit":
            _print_trained(cli)
        elif request.command == "test":
            _print_tested(cli)
        else:
            replaced = "its scaling and OOD threshold are new, its weights are as they were"
            terminal().print(f"calibrated: {request.checkpoint} ({replaced})", soft_wrap=True)


def _run(request: Request) -> MedCLI | None:
    """Parse the arguments with LightningCLI, and run its trainer; None for a training that is finished already."""
    try:
        return MedCLI(request)
    except _FinishedError:
        return None
    except MisconfigurationException as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except ValueError as error:
        if isinstance(error.__cause__, MedMTLError):  # jsonargparse wraps what an optional class raises
            raise error.__cause__ from None
        if "loaded state dict" in str(error):  # of the optimizer
            why = f"{request.checkpoint} holds the state of another optimizer ({' '.join(str(error).split())})"
            raise RunError(why, fix="resume with that one, and as many trained layers, or train anew") from None
        if "specified number of total steps" not in str(error):
            raise
        fix = "train longer from the beginning, without --resume"
        raise ConfigError("the schedule of the learning rate has ended", fix=fix) from None
    except (RuntimeError, OSError) as error:
        if not any(each in str(error) for each in WORKERS):
            raise
        raise _without_workers(str(error), request) from None
    except SystemExit as error:
        if isinstance(error, SIGTERMException):
            raise Stopped("terminated", _how_to_go_on(request)) from None
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning has ended the training and saved it
            raise Stopped("interrupted", _how_to_go_on(request)) from None
        raise
    except Stopped as stop:
        raise Stopped(stop.how, _how_to_go_on(request)) from None
    except KeyboardInterrupt:
        raise Stopped("interrupted", _how_to_go_on(request)) from None


def _check_not_empty(cli: MedCLI) -> None:
    """Check that a test or a calibration had cases; Lightning passes over one without.

    Raises:
        RunError: it had none.
    """
    command = cli.request.command
    batches = {"test": cli.trainer.num_test_batches, "calibrate": cli.trainer.num_val_batches}.get(command)
    if batches and not sum(batches):  # empty where other processes did it
        part_of_split = "test" if command == "test" else cli.datamodule.calibration_part
        raise RunError(f"there is no case to {command}", fix=f"train with data.{part_of_split} above 0")


def _how_to_go_on(request: Request) -> str:
    """What to do after an interruption; empty: what every command says."""
    if request.command != "fit":
        return ""
    return f"continue with: medmtl fit --run {request.run.path} --resume" if request.run.last.is_file() else AGAIN


def _without_workers(text: str, request: Request) -> RunError:
    """What is said where a process that draws patches has ended, of the many things that torch says then."""
    why = text.strip().splitlines()[-1]
    less = "where memory, shared memory (/dev/shm) or open files (ulimit -n) ran out, with a smaller data.workers"
    return RunError(f"a process that draws patches has ended ({why})", fix=f"{_how_to_go_on(request) or AGAIN}; {less}")


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
        ".*your dataloader is not resumable.*",  # `RunCheckpoint` does it
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
    run: RunFolder = cli.request.run
    console = terminal()
    validated = [row for row in read_metrics(run.metrics) if MONITOR in row]
    if validated:
        best = max(validated, key=lambda row: float(row[MONITOR]))
        table = Table("task", f"validation Dice, step {best['step']}")
        for name in [*cli.datamodule.trained, "mean"]:
            value = best.get(f"val/{name}/dice")  # a task that has joined a resumed training lacks it at first
            table.add_row(name, "-" if value is None else f"{float(value):.3f}")
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
