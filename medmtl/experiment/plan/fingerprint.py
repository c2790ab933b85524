"""Fingerprint of a training run: one number of its resolved configuration, its data and what it starts from."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser

from medmtl.building import building
from medmtl.data.datamodule import MultiTaskData
from medmtl.errors import ConfigError
from medmtl.files import parse_yaml
from medmtl.renamed import with_first_names
from medmtl.runs.wandb import Wandb
from medmtl.training.request import SECTIONS

# What is fitted after the training and changes no figure that is compared.
AFTERWARDS = ("scaling",)
# Where data lie and are kept, how a split was made (it counts itself), which processes draw the patches, what logs the
# figures, and what a training refuses.
WITHOUT_EFFECT = {
    "data": ("splits", "val", "test", "calibration", "split_seed", "workers", "seed", "cache"),
    "model": ("ensemble",),
    "trainer": ("enable_progress_bar", "logger"),
}

# How files are found, and which split of theirs is used: the files, what they mean and the split count themselves.
FOUND_AS = ("layout", "fold")
# Keys that came after the first fingerprints, and the values at which a run is what it was before: left out then.
ADDED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "calibration": {"metrics": (None, [])},
    "model": {"outputs": (None,)},
}
ADDED_TO_TASKS = ("classes", "missing", "mirror")  # None in a run of one organ a task


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a configuration, and fill in the defaults of its data, model, calibration and signatures.

    Args:
        config: as in a configuration file.

    Returns:
        The same sections with every value, the others as they are.

    Raises:
        ConfigError: a key or value is wrong.
    """
    parser = _parser()
    with building(ConfigError):
        parsed = parser.parse_object(deepcopy(dict(config)))  # the parser changes it
        filled = parse_yaml(parser.dump(parsed, skip_none=False, skip_validation=True))  # it was just parsed
    return {**config, **{section: filled[section] for section in SECTIONS}}


def data_of(config: Mapping[str, Any]) -> MultiTaskData:
    """The data that a configuration names.

    Args:
        config: what `resolve` gave.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(MultiTaskData, "data")
    given = {**deepcopy(config["data"]), "outputs": config["model"]["outputs"]}  # as the command line links them
    with building(ConfigError):
        data: MultiTaskData = parser.instantiate_classes(parser.parse_object({"data": given})).data
    return data


def fingerprint(
    config: Mapping[str, Any],
    split: Mapping[str, Mapping[str, Iterable[str]]],
    files: Mapping[str, Mapping[str, str]],
    starts_from: str | None,
    tested: bool,
) -> str:
    """SHA-256 of all that decides a run's figures.

    It is made over the names that keys and classes had first: runs of earlier versions are found by it.

    Args:
        config: the resolved configuration.
        split: task -> part -> case ids, of the run's tasks.
        files: task or OOD folder -> case id -> digest of its image and label.
        starts_from: fingerprint of the run whose checkpoint it starts from.
        tested: whether it is tested after the training.

    Returns:
        64 hexadecimal digits.
    """
    kept: dict[str, Any] = {
        key: config.get(key) for key in (*SECTIONS, "trainer", "seed_everything") if key not in AFTERWARDS
    }
    for section, keys in WITHOUT_EFFECT.items():
        kept[section] = {key: value for key, value in (kept[section] or {}).items() if key not in keys}
    for section, added in ADDED.items():
        kept[section] = {key: value for key, value in (kept[section] or {}).items() if value not in added.get(key, ())}
    finetune = kept["model"].get("finetune")
    if finetune:
        kept["model"] = kept["model"] | {"finetune": finetune | {"checkpoint": None}}
    if not tested:
        kept["data"]["ood"] = {}
    named = {key: kept["data"].get(key) or {} for key in ("tasks", "ood")}
    used = {task: sorted(case for cases in split[task].values() for case in cases) for task in named["tasks"]}
    for key, entries in named.items():
        kept["data"][key] = {
            name: {
                key: None if key == "root" else value
                for key, value in entry.items()
                if key not in FOUND_AS and not (key in ADDED_TO_TASKS and value is None)
            }
            for name, entry in entries.items()
        }
    facts = {
        "config": with_first_names(kept),
        "order": list(named["tasks"]),
        "split": {task: split[task] for task in named["tasks"]},
        "files": {task: [files[task][case] for case in used[task]] for task in used},
        "foreign": {name: files[name] for name in named["ood"]},
        "starts_from": starts_from,
        "tested": tested,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@cache
def _parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    for section, owner in SECTIONS.items():
        parser.add_lightning_class_args(owner, section)
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_class_arguments(Wandb, "wandb")
    parser.link_arguments("data.patch_size", "model.patch_size")
    parser.link_arguments("model.outputs", "data.outputs")
    return parser
