"""`medmtl fit` and `medmtl test`: LightningCLI with one run folder and flags that win over everything."""

import argparse
import csv
import inspect
import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb
import yaml
from jsonargparse import ArgumentError
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from rich.console import Console
from rich.table import Table

import medmtl
from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.checkpoints import RunCheckpoint, read_checkpoint
from medmtl.callbacks.record import CHECKPOINT_KEY, RunRecord
from medmtl.callbacks.report import ReportCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.data.datamodule import MultiTaskData
from medmtl.errors import ConfigError, RunError
from medmtl.models.segmenter import Segmenter
from medmtl.run import RUNS, RunFolder

logger = logging.getLogger(__name__)

SECTIONS: dict[str, type] = {
    "data": MultiTaskData,
    "model": Segmenter,
    "calibration": CalibrationCallback,
    "spectral": SpectralCallback,
}
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


@dataclass(frozen=True)
class Request:
    """What the command line asks for, before Lightning sees it.

    Attributes:
        command: `fit` or `test`.
        run: the run folder.
        checkpoint: what to test, or to resume from.
        argv: the command line that LightningCLI gets.
    """

    command: str
    run: RunFolder
    checkpoint: Path | None
    argv: list[str]


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
    request = _request(list(argv))
    try:
        cli = MedCLI(request)
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    finally:
        if wandb.run is not None:
            wandb.finish()
    if request.command == "fit":
        _say_trained(cli)
    else:
        _say_tested(cli)


def _request(argv: list[str]) -> Request:
    """Find configuration, run folder and checkpoint, and put them in the order of precedence."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("-c", "--config", action="append", default=[])
    own.add_argument("--run")
    own.add_argument("--ckpt_path")
    own.add_argument("--resume", action="store_true")
    own.add_argument("--overwrite", action="store_true")
    options, flags = own.parse_known_args(argv[1:])
    configs = [find_config(name) for name in options.config]
    if {"-h", "--help"} & set(flags) or any(flag.startswith("--help") for flag in flags):
        return Request(argv[0], RunFolder(RUNS), None, [argv[0], *flags])
    name = _name(configs)
    if argv[0] == "fit":
        run, checkpoint, base = _to_fit(options, configs, name)
    else:
        run, checkpoint, base = _to_test(options, name)
    given = [f"--config={config}" for config in (*base, *configs)]
    resumed = [f"--ckpt_path={checkpoint}", "--weights_only=true"] if checkpoint else []
    quiet = ["--verbose=false"] if argv[0] == "test" else []
    return Request(argv[0], run, checkpoint, [argv[0], *given, *quiet, *flags, f"--run={run.path}", *resumed])


def _to_fit(
    options: argparse.Namespace, configs: list[Path], name: str | None
) -> tuple[RunFolder, Path | None, list[str | Path]]:
    if options.resume and options.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", fix="give one of them")
    if options.run is None and (options.resume or options.overwrite):
        raise ConfigError("--resume and --overwrite need the folder", fix="add --run FOLDER")
    run = RunFolder(Path(options.run)) if options.run else RunFolder.next_free(name) if name else None
    if run is None:
        raise ConfigError("nothing to train", fix="add --config, for example --config multitask.yaml")
    if options.resume:
        if not run.last.is_file():
            raise RunError(f"{run.path} holds no checkpoint to resume from", fix="leave out --resume")
        return run, run.last, [] if configs else [run.config]
    if not configs:
        raise ConfigError("nothing to train", fix="add --config, for example --config multitask.yaml")
    if run.exists and not options.overwrite:
        raise RunError(f"{run.path} already holds a run", fix="add --resume or --overwrite, or name another folder")
    if run.exists:
        for path in (run.checkpoints, run.report, run.path / "figures", run.path / "wandb"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (run.config, run.splits, run.manifest, run.metrics):
            path.unlink(missing_ok=True)
    return run, Path(options.ckpt_path) if options.ckpt_path else None, []


def _to_test(options: argparse.Namespace, name: str | None) -> tuple[RunFolder, Path, list[str | Path]]:
    if options.resume or options.overwrite:
        raise ConfigError("--resume and --overwrite belong to `medmtl fit`", fix="leave them out")
    if options.ckpt_path:
        checkpoint = Path(options.ckpt_path)
        folder = checkpoint.resolve().parent
        home = folder.parent if folder.name == "checkpoints" else folder / checkpoint.stem
        run = RunFolder(Path(options.run) if options.run else _relative(home))
    elif options.run or name:
        run = RunFolder(Path(options.run)) if options.run else RunFolder.newest(str(name))
        checkpoint = run.checkpoint()
    else:
        raise ConfigError("nothing to test", fix="add --run FOLDER, --ckpt_path FILE or --config FILE")
    return run, checkpoint, [_config_within(checkpoint)]


def find_config(name: str) -> Path:
    """A configuration by path, or by bare name in the current folder, `configs/`, or the installed package.

    Raises:
        ConfigError: it is nowhere; lists where it was looked for.
    """
    package = Path(medmtl.__file__).parent
    places = [Path(), Path("configs"), package / "configs", package.parent / "configs"]
    for place in places if Path(name).name == name else places[:1]:
        if (place / name).is_file():
            return place / name
    shipped = sorted(path.name for place in places[1:] for path in place.glob("*.yaml"))
    raise ConfigError(f"there is no configuration {name}", fix=f"give a file, or one of: {', '.join(shipped)}")


def _name(configs: Sequence[Path]) -> str | None:
    """What the run is called: `run` of the configuration, or the name of its file."""
    name = None
    for config in configs:
        try:
            content = yaml.safe_load(config.read_text())
        except yaml.YAMLError as error:
            raise ConfigError(f"{config} is not YAML ({' '.join(str(error).split())})", fix="correct it") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{config} is not a YAML mapping", fix="correct it")
        name = Path(content.get("run") or name or config.stem).name
    return name


def _config_within(checkpoint: Path) -> str:
    """The configuration kept in a checkpoint, as YAML text, less the options that no longer exist."""
    text = read_checkpoint(checkpoint).get(CHECKPOINT_KEY)
    if not isinstance(text, str):
        raise RunError(f"{checkpoint} holds no configuration", fix="test a checkpoint that `medmtl fit` wrote")
    config = yaml.safe_load(text)
    for section, owner in SECTIONS.items():
        known = inspect.signature(owner).parameters
        for key in sorted(set(config.get(section, {})) - set(known)):
            logger.warning("the checkpoint sets %s.%s, which no longer exists: left out", section, key)
            del config[section][key]
    return yaml.safe_dump(config, sort_keys=False)


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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
    run, metrics = cli.request.run, cli.trainer.callback_metrics
    table = Table("task", "validation Dice")
    for name in [*cli.datamodule.trained, "mean"]:
        if (key := f"val/{name}/dice") in metrics:
            table.add_row(name, f"{float(metrics[key]):.3f}")
    console = Console()
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
    console.print(f"report: {cli.report.page}", soft_wrap=True)
