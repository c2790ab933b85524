"""The base configuration of an experiment: read, checked in full, and without what the experiment decides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmtl.errors import ConfigError
from medmtl.experiment.plan.arms import ARMS, Arm
from medmtl.experiment.plan.fingerprint import resolve
from medmtl.experiment.plan.protocol import Protocol
from medmtl.experiment.plan.setting import with_overrides
from medmtl.renamed import with_new_names
from medmtl.training.config_files import find_config, read_yaml
from medmtl.training.outputs import with_open_channels
from medmtl.training.request import checked
from medmtl.training.trust import TO_TRAIN, Checker, hints_of

OVERRIDES = ("overrides", "finetune_overrides")
# What would make a training run longer or shorter than its budget, or validate it otherwise, and the values at which it
# does not. Epochs and batches are the experiment's.
WITHIN_BUDGET: dict[str, tuple[Any, ...]] = {
    "max_time": (None,),
    "limit_train_batches": (None, 1.0),
    "limit_val_batches": (None, 1.0),
    "accumulate_grad_batches": (1,),
    "overfit_batches": (0.0,),
    "fast_dev_run": (False,),
    "check_val_every_n_epoch": (1,),
    "val_check_interval": (None, 1.0),
}


def read_base(protocol: Protocol) -> dict[str, Any]:
    """The base configuration with the protocol's overrides, every value filled in.

    Tasks that it holds out are no part of the experiment. A training run is on one device unless it says otherwise,
    so that several runs of one machine do not each take all.

    Raises:
        ConfigError: it is missing, is no configuration of a training, or cannot be kept to a budget.
    """
    path, content = _content(protocol.base)
    base = with_overrides(content, protocol.overrides)
    if not isinstance(base.get("data"), dict) or not isinstance(base["data"].get("tasks"), dict):
        raise ConfigError(f"{path}: data.tasks is no mapping of names to tasks", fix="name a base with tasks")
    held_out = base["data"].pop("held_out", None) or []
    unknown = sorted(set(held_out) - set(base["data"]["tasks"]))
    if unknown:
        raise ConfigError(f"{path}: data.held_out names {unknown[0]}, which is no task", fix="correct it")
    base["data"]["tasks"] = {name: task for name, task in base["data"]["tasks"].items() if name not in held_out}
    base = resolve(base)
    if base["model"]["finetune"] is not None:
        raise ConfigError(f"{path} sets model.finetune", fix="leave it out: the arms say what starts from what")
    trainer = {"devices": 1, **(base.get("trainer") or {})}
    for key, values in WITHIN_BUDGET.items():
        if key in trainer and trainer[key] not in values:
            raise ConfigError(f"{path} sets trainer.{key}", fix="leave it out: runs would not keep to the budget")
    if base["model"]["scheduler"] is not None:  # as long as each run is, see `Segmenter`
        (base["model"]["scheduler"].get("init_args") or {}).pop("total_steps", None)
    return {**base, "trainer": trainer}


def check_saved(content: Mapping[str, Any], file: Path) -> None:
    """Check an experiment that was read from its folder, before anything that it names is imported or started.

    Args:
        content: of the file, as plain data.
        file: where it was read, for messages.

    Raises:
        RunError: it names an arm or a class that is not accepted, see `medmtl.training.trust`, or options of a cluster,
            some of which are commands.
        ConfigError: its base is missing, or an override leads nowhere.
    """
    checker, hints = Checker(str(file)), {**hints_of(Protocol), "run": str}
    given = {key: value for key, value in content.items() if value is not None}
    for key, value in given.items():
        if key not in hints:
            checker.refuse(key, "the experiment")
        elif key == "arms" and isinstance(value, list):
            for number, arm in enumerate(value):
                if not isinstance(arm, str) or arm not in ARMS:
                    checker.value(arm, Arm, f"arms.{number}")
        elif key == "cluster" and value != {}:
            checker.refuse(next(iter(value), None) if isinstance(value, Mapping) else value, key)
        elif key in OVERRIDES and not isinstance(value, Mapping):
            checker.refuse(value, key)
        elif key not in ("cluster", *OVERRIDES):
            checker.value(value, hints[key], key)
    path, config = _content(given.get("base", Protocol.base))
    training = Checker(f"{file} on {path}", TO_TRAIN)
    checked(config, training)
    for overrides in OVERRIDES:  # each by itself: a later one may hide an earlier one
        for key, value in given.get(overrides, {}).items():
            config = with_overrides(config, {str(key): value})
            checked(config, training)


def _content(base: str) -> tuple[Path, dict[str, Any]]:
    """File and content of a base."""
    path = find_config(base)
    content = with_open_channels(with_new_names(read_yaml(path), str(path)))
    return path, {key: value for key, value in content.items() if key != "run"}
