"""The members of an ensemble, read from their checkpoints and checked for the same network, tasks and split."""

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch

from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.data.task import Task
from medmtl.errors import ConfigError, RunError
from medmtl.models.ensemble import Ensemble, Members, dropout_layers
from medmtl.models.finetune import HEADS, PREFIX, load_weights
from medmtl.models.sliding_window import VolumePredictor
from medmtl.runs.checkpoint import config_within, read_checkpoint

Part = Literal["test", "val", "calibration"]

# Keys of a checkpoint under which Lightning keeps the split and the scaling: names of their classes.
DATA, SCALING = "MultiTaskData", "ScalingCallback"
# Use of a patient that a member must not have made, by part: its figures, or its scaling, would be too good.
SEEN = {
    "test": {"train": "trained on", "val": "chosen by", "calibration": "calibrated by"},
    "val": {"train": "trained on"},
    "calibration": {"train": "trained on", "val": "chosen by"},
}
WORDS = {"test": "a test patient", "val": "a validation patient", "calibration": "a calibration patient"}


def read_members(
    options: Ensemble, own: VolumePredictor, checkpoint: Path, tasks: Mapping[str, Task], parts: Sequence[Part]
) -> Members:
    """Read the networks of an ensemble.

    Args:
        options: its checkpoints, dropout passes and pooling.
        own: of the run's own network, with the weights of `checkpoint`.
        checkpoint: that of the run.
        tasks: tasks of the run's training, by name.
        parts: cases that the ensemble is run on: test cases, or to fit a scaling validation cases, or both.

    Raises:
        ConfigError: dropout is wanted of a network that has none, or less than 0 times, or a network is named twice.
        RunError: a checkpoint is missing, or that of another network, or was trained on other tasks or on the patients
            of a part, or holds no scaling of its own though the run does and members are to be scaled.
    """
    if options.dropout_passes < 0:
        raise ConfigError(f"dropout_passes={options.dropout_passes}", fix="use 0 or more")
    if options.dropout_passes and not dropout_layers(own.network):
        raise ConfigError(
            f"dropout_passes: {type(own.network).__name__} has no dropout layer",
            fix="train it with dropout, or name checkpoints",
        )
    kept = read_checkpoint(checkpoint)
    names, predictors, states = {weights_digest(kept): checkpoint}, [own], [_scaling(kept)]
    for path in (Path(name).expanduser() for name in options.checkpoints):
        other = read_checkpoint(path)
        network = deepcopy(own.network)
        load_weights(network, path)
        _check_tasks(path, other, tasks)
        for part in parts:
            _check_patients(path, other, kept, part)
        twin = names.setdefault(weights_digest(other), path)
        if len(names) == len(predictors):
            raise ConfigError(f"ensemble checkpoints: {path} holds the network of {twin}", fix="leave one out")
        predictors.append(VolumePredictor(network.eval(), own.patch_size, own.overlap, own.window_batch))
        if own.heads is not None:
            predictors[-1].heads = heads = deepcopy(own.heads)
            load_weights(heads, path, HEADS)
        states.append(_scaling(other))
    if "test" in parts and options.scale == "members":
        own_scalings = zip(names.values(), states, strict=True) if states[0] else ()
        return Members(options, predictors, [_scalings(path, state) for path, state in own_scalings])
    return Members(options, predictors, scaled_as=_identity(options, sorted(names)))


def weights_digest(checkpoint: Mapping[str, Any]) -> str:
    """A short name of the weights in a checkpoint, the same wherever the file lies: 8 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in checkpoint["state_dict"].items():
        if name.startswith((PREFIX, HEADS)) and not name.endswith("_extra_state"):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:8]


def _check_tasks(path: Path, checkpoint: Mapping[str, Any], tasks: Mapping[str, Task]) -> None:
    data = config_within(path, checkpoint)["data"]
    held_out = data.get("held_out") or []
    theirs = {name: Task(**entry) for name, entry in data["tasks"].items() if name not in held_out}
    for name in dict.fromkeys([*tasks, *theirs]):
        there, here = (_described(known.get(name)) for known in (theirs, tasks))
        if there != here:
            raise RunError(
                f"{path} was trained on other tasks: {name} is {there} there and {here} here",
                fix="name checkpoints of the same tasks",
            )


def _described(task: Task | None) -> str:
    """What decides a task for a network; the place of its data does not."""
    if task is None:
        return "absent"
    what = f"classes {task.classes}" if task.organ is None else f"organ {sorted(task.organ, key=str)}"
    return f"{what} of channel {task.channel} at {task.preprocessing.image}"


def _check_patients(path: Path, checkpoint: Mapping[str, Any], own: Mapping[str, Any], part: Part) -> None:
    """Compare the splits: a patient has one name in all tasks, see `data.splits`."""
    there, here = (kept[DATA]["patients"] for kept in (checkpoint, own))
    for patient, place in here.items():
        if place == part and there.get(patient) in SEEN[part]:
            raise RunError(
                f"{path} was {SEEN[part][there[patient]]} {patient}, {WORDS[part]} here",
                fix="name checkpoints of the same split: train with data.splits",
            )


def _identity(options: Ensemble, networks: Sequence[str]) -> str:
    """Identifier of a pool; empty for a pool of one network without dropout."""
    if len(networks) == 1 and not options.dropout_passes:
        return ""
    dropout = f" with {options.dropout_passes} dropout passes" if options.dropout_passes else ""
    return f"the averaged {options.average} of {', '.join(networks)}{dropout}"


def _scaling(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scaling of the network by itself; empty if there is none."""
    state: Mapping[str, Any] = checkpoint.get("callbacks", {}).get(SCALING, {})
    return state if "single" in state else {}


def _scalings(path: Path, state: Mapping[str, Any]) -> TaskScalings:
    if not state:
        raise RunError(
            f"{path} holds no scaling of its own",
            fix="fit one with `medmtl calibrate`, or set model.ensemble.scale to pool",
        )
    scalings = TaskScalings.from_state_dict(state)
    scalings.warn_if_old(str(path))
    return scalings
