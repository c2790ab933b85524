"""Request: the configuration, run folder and checkpoint of a command line, before LightningCLI parses it.

Precedence is defaults < checkpoint < configuration < flags: LightningCLI gets the checkpoint's configuration as its
first `--config`, and later values win.
"""

import argparse
import inspect
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Trainer

from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.commands.flags import flags_of
from medmtl.data.datamodule import MultiTaskData
from medmtl.distributed import is_first, launched_from_outside
from medmtl.errors import ConfigError, RunError
from medmtl.files import parse_yaml, read_text, resolved
from medmtl.models.segmenter import Segmenter
from medmtl.renamed import with_new_names
from medmtl.runs.checkpoint import config_within, read_checkpoint
from medmtl.runs.folder import RUNS, RunFolder
from medmtl.runs.lock import only_writer
from medmtl.runs.places import flags_with_places, with_places
from medmtl.runs.replace import settle
from medmtl.runs.wandb import Wandb
from medmtl.training.config_files import find_config, read_yaml
from medmtl.training.merging import merged_by_name
from medmtl.training.outputs import with_open_channels
from medmtl.training.trust import TO_TRAIN, Checker, use_current_folder

logger = logging.getLogger(__name__)

# Environment variable with the run folder, for the processes that Lightning starts with the same command line.
RUN_VARIABLE = "MEDMTL_RUN"
SECTIONS: dict[str, type] = {
    "data": MultiTaskData,
    "model": Segmenter,
    "calibration": CalibrationCallback,
    "spectral": SpectralCallback,
    "scaling": ScalingCallback,
}
# What is read of a configuration in a checkpoint or a run folder. W&B changes no figure of a run, so that it is not
# among the sections that experiments compare.
STORED: dict[str, type] = {**SECTIONS, "wandb": Wandb}
# Parts of a configuration that only a training needs.
FOR_TRAINING = {"model": ("loss", "optimizer", "scheduler", "finetune"), "data": ("splits",)}


@dataclass(frozen=True)
class Request:
    """Command, run folder, checkpoint and arguments, before LightningCLI parses them.

    Attributes:
        command: `fit`, `test` or `calibrate`.
        run: the run folder.
        checkpoint: the checkpoint to test, calibrate or resume from.
        argv: the command line for LightningCLI.
        replaces: whether the training replaces the run that the folder holds.
        resumes: whether it goes on with that run.
    """

    command: str
    run: RunFolder
    checkpoint: Path | None
    argv: list[str]
    replaces: bool = False
    resumes: bool = False


def parse_request(argv: list[str], held: ExitStack | None = None) -> Request:
    """Find configuration, run folder and checkpoint, and put them in the order of precedence.

    Args:
        argv: the command, `fit`, `test` or `calibrate`, and its options.
        held: keeps other processes from writing into the run folder until it is closed; None: nothing is written.

    Raises:
        ConfigError: options that exclude each other, or nothing to do.
        RunError: the run folder is taken, holds no checkpoint, or another process writes into it.
    """
    options, flags = flags_of(argv[0]).parse_known_args(argv[1:])
    configs = [find_config(name) for name in options.config]
    if any(flag.partition("=")[0].endswith(".help") for flag in flags):
        return Request(argv[0], RunFolder(RUNS), None, [argv[0], *flags])
    name = _name(configs)
    if argv[0] == "fit":
        run, checkpoint, base = _to_fit(options, configs, name, held)
    else:
        run, checkpoint, base = _to_use(options, name, argv[0])
        _hold(run, held)
    use_current_folder(None if argv[0] == "fit" or options.trust else _given(configs, flags))
    texts = [*base, *map(renamed_config, configs)]
    merged = [with_places(each, run, argv[0]) for each in merged_by_name([parse_yaml(text) for text in texts])]
    given = [f"--config={yaml.safe_dump(config, sort_keys=False)}" for config in merged]
    # Also without a checkpoint: on a cluster Lightning loads `hpc_ckpt_1.ckpt` of the run folder by itself.
    resumed = ["--weights_only=true", *([f"--ckpt_path={checkpoint}"] if checkpoint else [])]
    quiet = [] if argv[0] == "fit" else ["--verbose=false"]
    arguments = [argv[0], *given, *quiet, *flags_with_places(flags, run, argv[0]), f"--run={run.path}", *resumed]
    return Request(argv[0], run, checkpoint, arguments, options.overwrite and run.exists, options.resume)


def _to_fit(
    options: argparse.Namespace, configs: list[Path], name: str | None, held: ExitStack | None
) -> tuple[RunFolder, Path | None, list[str]]:
    if options.resume and options.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", fix="give one of them")
    if options.run is None and (options.resume or options.overwrite):
        raise ConfigError("--resume and --overwrite need the folder", fix="add --run FOLDER")
    if not options.run and not name:
        raise ConfigError("nothing to train", fix="add --config, for example --config multitask.yaml")
    if not (configs or options.resume):
        raise ConfigError("nothing to train", fix="add --config, for example --config multitask.yaml")
    if not options.run:
        return _new_run(str(name), held), Path(options.ckpt_path) if options.ckpt_path else None, []
    run = RunFolder(Path(options.run))
    _hold(run, held)
    if options.resume:
        return run, _checkpoint_to_resume(run), [] if configs else [resumed_config(run, options.trust)]
    if run.exists and is_first() and not options.overwrite:  # the other processes find files of the first
        raise RunError(f"{run.path} already holds a run", fix="add --resume or --overwrite, or name another folder")
    return run, Path(options.ckpt_path) if options.ckpt_path else None, []


def _hold(run: RunFolder, held: ExitStack | None) -> None:
    """Keep other commands from writing into a run folder; the processes of this one share it."""
    if held is not None and is_first():
        held.enter_context(only_writer(run.path))
        settle(run)


def _checkpoint_to_resume(run: RunFolder) -> Path | None:
    """The newest checkpoint that can be read; None for a training that was stopped before its first.

    Raises:
        RunError: there is no training to resume, or no checkpoint can be read.
    """
    damaged: RunError | None = None
    for path in (run.last, run.best):
        if not path.is_file():
            continue
        try:
            read_checkpoint(path)
        except RunError as error:
            damaged = error
            continue
        if damaged is not None:
            logger.warning("%s: the training goes on from %s instead", damaged.what, path.name)
        return path
    if damaged is not None:
        raise damaged
    if not run.config.is_file():
        raise RunError(f"{run.path} holds no checkpoint to resume from", fix="leave out --resume")
    logger.warning("%s was stopped before its first checkpoint: the training begins again", run.path)
    return None


def _new_run(name: str, held: ExitStack | None) -> RunFolder:
    """The next free folder, chosen by the first process and passed to the others in `RUN_VARIABLE`."""
    if RUN_VARIABLE in os.environ and not is_first():
        return RunFolder(Path(os.environ[RUN_VARIABLE]))
    if launched_from_outside():
        raise ConfigError("several processes must train into one folder", fix="add --run FOLDER")
    while True:
        run = RunFolder.next_free(name)
        if held is None:
            return run
        try:
            held.enter_context(only_writer(run.path, new=True))
        except FileExistsError:  # another process has taken it meanwhile
            continue
        return run


def _to_use(options: argparse.Namespace, name: str | None, command: str) -> tuple[RunFolder, Path, list[str]]:
    if options.resume or options.overwrite:
        raise ConfigError("--resume and --overwrite belong to `medmtl fit`", fix="leave them out")
    if options.ckpt_path or options.run:
        run, checkpoint = run_and_checkpoint(options.run, options.ckpt_path)
    elif name:
        run = RunFolder.newest(name)
        checkpoint = run.checkpoint()
    else:
        raise ConfigError(f"nothing to {command}", fix="add --run FOLDER, --ckpt-path FILE or --config FILE")
    config = known_config(checkpoint, options.trust)
    logged = config.get("wandb", {})
    if logged.get("mode") == "online" and not options.trust:
        logger.warning("W&B stays offline: add --wandb.mode online, or --trust to log as %s says", checkpoint)
        config["wandb"] = {**logged, "mode": "offline"}
    return run, checkpoint, [yaml.safe_dump(config, sort_keys=False)]


def run_and_checkpoint(folder: str | None, checkpoint: str | None) -> tuple[RunFolder, Path]:
    """The run and the checkpoint that `--run` and `--ckpt-path` name, at least one of which is given.

    Args:
        folder: the run folder; that of the checkpoint if None.
        checkpoint: the checkpoint; that of the run folder if None.

    Raises:
        RunError: the run folder holds no checkpoint.
    """
    if checkpoint is None:
        run = RunFolder(Path(str(folder)))
        return run, run.checkpoint()
    path = Path(checkpoint)
    parent = resolved(path).parent
    home = parent.parent if parent.name == "checkpoints" else parent / path.stem
    return RunFolder(Path(folder) if folder else _relative(home)), path


def _name(configs: Sequence[Path]) -> str | None:
    """Name of the run: `run` of the configuration, or the name of its file."""
    name = None
    for config in configs:
        content = read_yaml(config)
        name = Path(content.get("run") or name or config.stem).name
    return name


def renamed_config(path: Path) -> str:
    """The text of a configuration as `--config` takes it, with the names of today.

    And where it leaves the output channels of the network to the tasks, see `with_open_channels`.
    """
    renamed = with_open_channels(with_new_names(read_yaml(path), str(path)))
    return yaml.safe_dump(renamed, sort_keys=False)


def known_config(checkpoint: Path, trust: bool = False, sections: Collection[str] = tuple(STORED)) -> dict[str, Any]:
    """The configuration kept in a checkpoint, less what only a training needs and options that no longer exist.

    What only a training needs is not built, but a file that names other classes there than a training may be resumed
    with is not used either: its weights are then of unknown origin, too.

    Args:
        checkpoint: the file.
        trust: accept any class that it names, see `medmtl.training.trust`.
        sections: those that are needed.

    Raises:
        RunError: the checkpoint is missing, is none, holds no configuration, or names a class that is not accepted.
    """
    config = {
        section: values
        for section, values in config_within(checkpoint, read_checkpoint(checkpoint)).items()
        if section in sections or section == "seed_everything"
    }
    where = Checker(str(checkpoint))
    training: dict[str, Any] = {}
    for section, owner in STORED.items():
        if not isinstance(config.get(section) or {}, dict):
            where.refuse(config[section], section)
        values = config.get(section) or {}
        training[section] = {key: values.pop(key) for key in FOR_TRAINING.get(section, ()) if key in values}
        known = inspect.signature(owner).parameters
        for key in sorted(set(values) - set(known)):
            logger.warning("the checkpoint sets %s.%s, which no longer exists: left out", section, key)
            del values[key]
    if trust:
        return config
    checked(training, Checker(str(checkpoint), TO_TRAIN))
    return checked(config, where)


def resumed_config(run: RunFolder, trust: bool = False) -> str:
    """The configuration of a run folder to go on with, as YAML text.

    Args:
        run: the folder.
        trust: accept any class that it names; else networks, losses, optimizers and schedulers of torch, MONAI and
            medmtl alone, and no callbacks or loggers.

    Raises:
        RunError: it names a class that is not accepted.
    """
    content = with_new_names(read_yaml(run.config), str(run.config))
    config = {key: value for key, value in content.items() if key in (*STORED, "trainer", "seed_everything")}
    return yaml.safe_dump(config if trust else checked(config, Checker(str(run.config), TO_TRAIN)), sort_keys=False)


def checked(config: Mapping[str, Any], checker: Checker) -> dict[str, Any]:
    """A configuration from a file of unknown origin, as it may be built.

    Raises:
        RunError: it names a class that is not accepted.
    """
    owners = {**STORED, "trainer": Trainer}
    model = config.get("model")
    if isinstance(model, Mapping) and model.get("ensemble") is not None:  # `fit` writes none: it names files to read
        checker.refuse(model["ensemble"], "model.ensemble")
    return {
        key: checker.section(key, values, owners[key]) if key in owners else checker.value(values, int, key)
        for key, values in config.items()
        if values is not None
    }


def _given(configs: Sequence[Path], flags: Sequence[str]) -> list[str]:
    """What the user wrote, where modules may be named."""
    return [*map(read_text, configs), *flags]


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
