"""Fingerprint: changes with all that decides a run's figures, and with nothing else."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from medmtl.errors import ConfigError
from medmtl.experiment.plan.fingerprint import data_of, fingerprint, resolve

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "data": {
        "tasks": {"Liver": {"root": "phantom:LiverCT", "modality": "CT", "organ": [1], "spacing": [8, 8, 8]}},
        "ood": {"Other": {"root": "phantom:OtherPhantom"}},
        "patch_size": [16, 16, 16],
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
    "trainer": {"max_epochs": 2},
}
SPLIT = {"Liver": {"train": ["a", "b"], "val": ["c"], "test": ["d"]}}
FILES = {"Liver": {"a": "1", "b": "2", "c": "3", "d": "4"}, "Other": {"x": "5"}, "Unused": {"y": "6"}}


@pytest.fixture(scope="module")
def resolved() -> dict[str, Any]:
    return resolve(CONFIG)


def number(config: dict[str, Any], **options: Any) -> str:
    return fingerprint(config, **{"split": SPLIT, "files": FILES, "starts_from": None, "tested": True, **options})


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    result = deepcopy(config)
    place = result
    *levels, last = key.split(".")
    for level in levels:
        place = place[level]
    place[last] = value
    return result


def test_a_resolved_configuration_holds_every_default_and_resolves_to_itself(resolved: dict[str, Any]) -> None:
    assert resolved["data"]["batch_size"] == 4
    assert resolved["model"]["overlap"] == 0.25
    assert resolved["calibration"] == {"bins": 15, "regions": ["whole", "band"], "metrics": None}
    assert resolve(resolved) == resolved
    assert number(resolve(changed(CONFIG, "data.batch_size", 4))) == number(resolved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.batch_sise", 2),
        ("model.network.init_args.chanels", [1]),
        ("data.tasks.Liver.rot", "x"),
        ("trainer.precison", 16),
        ("tariner", {"max_epochs": 2}),
        ("wandb", {"mode": "onlin"}),
    ],
)
def test_a_typing_error_is_named_before_anything_runs(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.split(".")[-1]):
        resolve(changed(CONFIG, key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed_everything", 1),
        ("data.batch_size", 2),
        ("data.tasks.Liver.organ", [2]),
        ("data.ood", {}),
        ("model.optimizer.init_args.lr", 0.02),
        ("model.network.init_args.channels", [4, 16]),
        ("trainer.max_epochs", 3),
        ("spectral.layers", ["model.0"]),
        ("calibration.bins", 10),
    ],
)
def test_what_decides_the_figures_changes_it(resolved: dict[str, Any], key: str, value: Any) -> None:
    assert number(changed(resolved, key, value)) != number(resolved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.tasks.Liver.root", "/elsewhere/Liver"),
        ("data.tasks.Liver.layout", {"class_path": "medmtl.data.layouts.msd.MSD"}),
        ("data.tasks.Liver.fold", 2),
        ("data.splits", "elsewhere.json"),
        ("data.workers", 4),
        ("data.split_seed", 4),
        ("data.test", 0.4),
        ("trainer.enable_progress_bar", False),
        ("scaling", {"method": "platt"}),
        ("model.ensemble", {"dropout_passes": 5}),
        ("wandb", {"mode": "online"}),
        ("run", "another-name"),
    ],
)
def test_what_decides_no_figure_does_not(resolved: dict[str, Any], key: str, value: Any) -> None:
    assert number(changed(resolved, key, value)) == number(resolved)


def test_data_splits_and_the_start_of_finetuning_change_it(resolved: dict[str, Any]) -> None:
    before = number(resolved)
    assert number(resolved, files={**FILES, "Liver": {**FILES["Liver"], "b": "9"}}) != before
    assert number(resolved, files={**FILES, "Unused": {}}) == before
    assert number(resolved, split={"Liver": {**SPLIT["Liver"], "train": ["a"]}}) != before
    assert number(resolved, files={**FILES, "Liver": {**FILES["Liver"], "not listed": "9"}}) == before
    assert number(resolved, tested=False) != before
    assert number(resolved, tested=False) == number(changed(resolved, "data.ood", {}), tested=False)
    start = {"checkpoint": "one/best.ckpt", "layers": "all"}
    one, two = (changed(resolved, "model.finetune", start | {"checkpoint": path}) for path in ("one.ckpt", "two.ckpt"))
    assert number(one, starts_from="f") == number(two, starts_from="f")
    assert number(one, starts_from="f") != number(one, starts_from="g")
    assert number(one) != number(changed(one, "model.finetune.layers", "head"))


def test_a_run_of_an_earlier_version_keeps_its_fingerprint() -> None:
    """Made by the code whose names were `data.foreign` and `medmtl.ood.distances.KNN`."""
    config = {
        "data": {
            "tasks": {"Liver": {"root": "phantom:LiverCT", "organ": [1]}},
            "ood": {"Other": {"root": "phantom:OtherPhantom"}},
            "batch_size": 4,
        },
        "model": {"network": {"class_path": "monai.networks.nets.UNet"}, "finetune": None},
        "spectral": {
            "layers": ["model.0"],
            "detector": {"class_path": "medmtl.ood.detectors.KNN", "init_args": {"neighbour": 1}},
        },
        "calibration": {"bins": 15, "regions": ["whole", "band"], "metrics": []},
        "trainer": {"max_epochs": 2},
        "seed_everything": 0,
    }
    assert number(config) == "d07d8a45c0e97132fa1a2325ea815f30bbc53d8b7c246ce059475200aa9de5c0"


def test_the_data_of_a_resolved_configuration_are_those_of_the_run(resolved: dict[str, Any], phantoms: Path) -> None:
    data = data_of(resolved)
    data.setup("plan")
    assert list(data.tasks) == ["Liver"]
    assert len(data.listed("Liver")) == 3
