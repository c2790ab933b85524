"""The base configuration of an experiment: read, checked in full, and without what the experiment decides."""

from typing import Any

from medmtl.errors import ConfigError
from medmtl.experiment.plan.fingerprint import resolve
from medmtl.experiment.plan.protocol import Protocol
from medmtl.experiment.plan.setting import with_overrides
from medmtl.renamed import with_new_names
from medmtl.training.request import find_config, read_yaml

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
    path = find_config(protocol.base)
    content = with_new_names(read_yaml(path), str(path))
    base = with_overrides({key: value for key, value in content.items() if key != "run"}, protocol.overrides)
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
