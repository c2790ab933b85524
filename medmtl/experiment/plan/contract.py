"""Contract of an arm: what the planner, the runner and the comparison rely on, as a check for one's own tests."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from medmtl.contract import requirements
from medmtl.errors import ConfigError
from medmtl.experiment.plan.arms import Arm
from medmtl.experiment.plan.labels import describe_arms
from medmtl.experiment.plan.planning import hindrance
from medmtl.experiment.plan.protocol import Protocol
from medmtl.experiment.plan.setting import Planned, Setting

# What an arm may set, beside choosing tasks of the base: more, and its runs would differ from the others by more than
# the arm.
MAY_SET = (
    "seed_everything",
    *("data.splits", "data.batches", "data.balance", "trainer.max_epochs"),
    *("model.optimizer", "model.scheduler", "model.outputs", "wandb"),
)
BASE: Mapping[str, Any] = {
    "seed_everything": 9,
    "data": {
        "tasks": {
            name: {"root": f"phantom:{name}", "modality": modality, "organ": [1], "spacing": [8, 8, 8]}
            for name, modality in {"LiverCT": "CT", "KidneyT2": "MR", "HeartPET": "PET"}.items()
        },
        "patch_size": [16, 16, 16],
        "balance": 0.5,
    },
    "model": {
        "network": {
            "class_path": "monai.networks.nets.UNet",
            "init_args": {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": [4, 8], "strides": [2]},
        },
        "loss": {"class_path": "monai.losses.DiceCELoss", "init_args": {"sigmoid": True}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
    },
    "spectral": {"layers": []},
    "trainer": {"gradient_clip_val": 12},
}


def check_arm(arm: Arm) -> None:
    """Check that an arm keeps what its experiments rely on, by planning small ones; nothing is trained.

    Args:
        arm: an arm of one's own.

    Raises:
        AssertionError: names the requirement that is not met.
    """
    try:
        describe_arms([arm])
    except ConfigError as error:
        _require(arm, False, f"can be shown, but {error}")
    for budget in ("steps", "samples"):
        # A share of its own, so that the two parts of a budget cannot be confused.
        protocol = Protocol(steps=120, validations=3, finetune_share=0.25, budget=budget)
        names: set[str] = set()
        for number, (seed, fold, cases) in enumerate(((0, None, None), (1, None, None), (0, 1, None), (0, 1, 4))):
            setting = Setting("contract", protocol, _base(), "split.json", seed, fold, cases)
            runs = list(arm.plan(setting))
            if number == 0:  # resolving takes most of the time, and the others differ in seed, fold and size alone
                _check_complete(arm, runs)
            _check_runs(arm, setting, runs)
            _require(arm, not names & {planned.name for planned in runs}, "names runs by seed, fold and size")
            names |= {planned.name for planned in runs}


@cache
def _base() -> dict[str, Any]:
    from medmtl.experiment.plan.fingerprint import resolve  # when it is needed: it imports torch and Lightning

    return resolve(BASE)


def _check_complete(arm: Arm, runs: Sequence[Planned]) -> None:
    from medmtl.experiment.plan.fingerprint import resolve

    for run in runs:
        try:
            complete = resolve(run.config)
        except ConfigError as error:
            _require(arm, False, f"plans complete configurations, but that of {run.name} is wrong: {error}")
        _require(arm, complete == run.config, "plans complete configurations")


def _check_runs(arm: Arm, setting: Setting, runs: Sequence[Planned]) -> None:
    protocol = setting.protocol
    _require(arm, list(arm.plan(setting)) == runs, "plans the same twice")
    reason = hindrance(arm, setting, runs)
    _require(arm, reason is None, f"can be compared, but it {reason}")
    by_name = {planned.name: planned for planned in runs}
    _require(arm, len(by_name) == len(runs), "gives every run a name of its own")
    tested = [task for run in runs if run.cell for task in ([run.cell.task] if run.cell.task else setting.tasks)]
    _require(arm, sorted(tested) == sorted(setting.tasks), "tests every task once")
    batch_size = setting.base["data"]["batch_size"]
    for run in runs:
        config = run.config
        found, base = _flat(config), _flat(setting.base)
        changed = {key for key in found.keys() | base.keys() if found.get(key) != base.get(key)}
        changed -= {key for key in base if key.startswith("data.tasks.") and key not in found}
        allowed = tuple(f"{key}." for key in MAY_SET)
        others = sorted(key for key in changed if not f"{key}.".startswith(allowed))
        _require(arm, not others, f"leaves the base as it is, but it sets {', '.join(others)}")
        steps = config["data"]["batches"] * config["trainer"]["max_epochs"]
        _require(arm, steps == run.steps, "trains for the steps that it plans")
        _require(arm, config["trainer"]["max_epochs"] == protocol.validations, "validates as often as the protocol")
        _require(arm, (run.needs is None) == (run.layers is None), "names the layers of a fine-tuning")
        if run.cell is None:
            continue
        _require(arm, run.cell.budget == protocol.budget_of(batch_size), "states the budget of the protocol")
        chain = _chain(run, by_name)
        own = [run.cell.task] if run.cell.task is not None else setting.tasks
        _require(arm, set(own) <= set(config["data"]["tasks"]), "trains on the tasks that it tests")
        if protocol.budget == "steps":
            spent = sum(one.steps for one in chain)
            _require(arm, spent == protocol.steps, "keeps to the budget of steps, pre-training included")
            continue
        for task in own:
            trained = sum(one.steps / len(_tasks(one)) for one in chain if task in _tasks(one))
            _require(
                arm, math.isclose(trained, protocol.steps), "keeps to the budget of samples, pre-training included"
            )
        balanced = all(len(_tasks(one)) == 1 or one.config["data"]["balance"] == 0 for one in chain)
        _require(arm, balanced, "draws tasks equally often under the budget of samples")


def _chain(run: Planned, by_name: Mapping[str, Planned]) -> list[Planned]:
    """The run, and all that it starts from."""
    return [run, *(_chain(by_name[run.needs], by_name) if run.needs is not None else [])]


def _tasks(run: Planned) -> list[str]:
    return list(run.config["data"]["tasks"])


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Key with dots -> value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = _flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
        flat |= inner
    return flat


def _require(arm: Arm, met: object, words: str) -> None:
    requirements(arm, "an arm")(met, words)
