"""MedCLI: LightningCLI with one run folder, in which flags override all else."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy

from medmtl.building import building
from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.checkpoints import RunCheckpoint, RunCheckpointIO
from medmtl.callbacks.divergence import DivergenceCallback
from medmtl.callbacks.last_validation import LastValidation
from medmtl.callbacks.progress import CommandProgress
from medmtl.callbacks.record import RunRecord
from medmtl.callbacks.report import ReportCallback
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.commands.help import DESCRIPTIONS
from medmtl.commands.keys import LINKS
from medmtl.data.datamodule import MultiTaskData
from medmtl.distributed import is_first
from medmtl.errors import ConfigError
from medmtl.models.finetune import load_weights
from medmtl.models.segmenter import Segmenter
from medmtl.runs.checkpoint import read_checkpoint
from medmtl.runs.metrics import MetricsLogger
from medmtl.runs.replace import set_aside
from medmtl.runs.wandb import RunWandbLogger, Wandb, check_login
from medmtl.terminal import terminal
from medmtl.training.config_files import read_yaml
from medmtl.training.outputs import resolve_outputs
from medmtl.training.request import STORED, Request

logger = logging.getLogger(__name__)

MOST_SEED = 2**32 - 1  # of numpy
BFLOAT16 = (
    "bfloat16 on a CPU: torch 2.13 gives wrong gradients where a feature map of the network has two voxels a side, so "
    "that patches have to be at least three times as large as the product of its strides"
)

TRAINER_DEFAULTS = {
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 25,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


class FinishedError(Exception):
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
            trainer_defaults=dict(TRAINER_DEFAULTS),
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
        for source, target in LINKS:
            parser.link_arguments(source, target)

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
            raise FinishedError

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with loggers, checkpoints and report of the run folder."""
        self.datamodule.setup(self.subcommand)  # bad input ends here, before anything is written
        training = self.subcommand == "fit"
        if training:
            self.model.check_trainable()
        self.model.read_outputs(self.datamodule, training)
        if self.request.checkpoint is not None:
            load_weights(self.model.network, self.request.checkpoint)  # and so does a checkpoint of another network,
        elif training:
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
        if training:
            extra = [DivergenceCallback(), RunCheckpoint(run), LastValidation()]
        elif self.subcommand == "test":
            assert self.request.checkpoint is not None
            calibration, spectral, scaling = (
                self._get(self.config_init, name) for name in ("calibration", "spectral", "scaling")
            )
            self.report = ReportCallback(run, self.request.checkpoint, calibration, spectral, scaling)
            extra = [self.report]
        if given.enable_progress_bar is not False and not any(
            isinstance(each, ProgressBar) for each in _listed(given.callbacks)
        ):
            extra.append(CommandProgress())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": extra}
        with building(partial(ConfigError, fix="correct the section `trainer`")):
            trainer = super().instantiate_trainer(**kwargs)
        if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
            # The others split the network, so that each window needs all processes; volumes differ in their windows.
            kind = type(trainer.strategy).__name__
            raise ConfigError(f"trainer.strategy: {kind} splits the network between devices", fix="use ddp")
        if training and "bf16" in str(trainer.precision) and trainer.strategy.root_device.type == "cpu":
            logger.warning(BFLOAT16)
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


def _listed(value: Any) -> list[Any]:
    return [] if value in (None, True, False) else value if isinstance(value, list) else [value]
