"""Loggers that are named and no more: they write into the run folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from medmtl.errors import ConfigError
from medmtl.extras import how_to_install
from medmtl.runs.folder import RunFolder

LOGGERS = "pytorch_lightning.loggers"
FLAG = "--trainer.logger"


def _tensorboard(run: RunFolder, command: str) -> dict[str, Any]:
    return {"save_dir": str(run.path), "name": "tensorboard", "version": command}


def _mlflow(run: RunFolder, command: str) -> dict[str, Any]:
    if "MLFLOW_TRACKING_URI" not in os.environ:  # MLflow writes into a folder only when it is told that this is meant
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return {"save_dir": str(run.path / "mlruns"), "experiment_name": run.path.name, "run_name": command}


def _csv(run: RunFolder, command: str) -> dict[str, Any]:
    return {"save_dir": str(run.path), "name": "csv", "version": command}


# Name of a logger of Lightning -> its arguments, where none is given.
PLACES: Mapping[str, Callable[[RunFolder, str], dict[str, Any]]] = {
    "TensorBoardLogger": _tensorboard,
    "MLFlowLogger": _mlflow,
    "CSVLogger": _csv,
}
LIBRARIES = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow"}  # and the extras that bring them


def with_places(config: Mapping[str, Any], run: RunFolder, command: str) -> dict[str, Any]:
    """A configuration whose loggers write into the run folder where it does not say where.

    Args:
        config: as YAML gives it.
        run: the run folder.
        command: `fit` or `test`.

    Raises:
        ConfigError: the library of a logger is not installed.
    """
    trainer = config.get("trainer")
    if not isinstance(trainer, Mapping) or "logger" not in trainer:
        return dict(config)
    given = trainer["logger"]
    several = [_placed(each, run, command) for each in given] if isinstance(given, list) else None
    return {**config, "trainer": {**trainer, "logger": several or _placed(given, run, command)}}


def flags_with_places(flags: Sequence[str], run: RunFolder, command: str) -> list[str]:
    """Flags in which `--trainer.logger NAME` is followed by its arguments; those that are given come later and win.

    Args:
        flags: as on the command line.
        run: the run folder.
        command: `fit` or `test`.
    """
    found: list[str] = []
    for number, flag in enumerate(flags):
        name, sign, value = flag.partition("=")
        given = value if sign else flag
        found.append(flag)
        if (name == FLAG and sign) or (number and flags[number - 1] == FLAG):
            placed = _placed(given, run, command)
            if isinstance(placed, Mapping):
                start = [f"{FLAG}={placed['class_path']}"] if sign else [str(placed["class_path"])]
                found[-1:] = start + [f"{FLAG}.{key}={value}" for key, value in placed["init_args"].items()]
    return found


def _placed(value: Any, run: RunFolder, command: str) -> Any:
    """A logger with its arguments, where it is named by its name or its class path alone.

    Raises:
        ConfigError: its library is not installed.
    """
    path = value.get("class_path") if isinstance(value, Mapping) else value
    name = path.rpartition(".")[2] if isinstance(path, str) else ""
    if name not in PLACES or path not in (name, f"{LOGGERS}.{name}"):
        return value
    library = LIBRARIES.get(name)
    if library is not None and find_spec(library) is None:
        raise ConfigError(f"{name} needs {library}, which is not installed", fix=how_to_install(library))
    given = (value.get("init_args") or {}) if isinstance(value, Mapping) else {}
    return {"class_path": f"{LOGGERS}.{name}", "init_args": {**PLACES[name](run, command), **given}}
