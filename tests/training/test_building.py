"""Values of a configuration that no class takes: one line that says which class, whatever it raises."""

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medmtl.building import building
from medmtl.cli import main
from medmtl.errors import ConfigError, MedMTLError, RunError
from medmtl.runs.checkpoint import CHECKPOINT_KEY, read_checkpoint
from medmtl.training.trained import load_trained

OLD = Path(__file__).parents[1] / "fixtures" / "old-0.1" / "checkpoints" / "best.ckpt"
UNET = "monai.networks.nets.UNet"


@pytest.fixture
def config(write_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A configuration that trains for a step, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    image = np.arange(512, dtype=np.int16).reshape(8, 8, 8)
    label = (image > 300).astype(np.uint8)
    root = write_task({str(number): (image + number, label) for number in range(4)})
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": [2, 4], "strides": [2]}
    return {
        "data": {
            "tasks": {"Ball": {"root": str(root), "modality": "MR", "organ": [1], "spacing": [1.0, 1.0, 1.0]}},
            **{"patch_size": [8, 8, 8], "batch_size": 1, "batches": 1},
        },
        "model": {
            "network": {"class_path": UNET, "init_args": network},
            "loss": {"class_path": "monai.losses.DiceCELoss", "init_args": {"sigmoid": True}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        },
        "spectral": {"layers": ["model.0"]},
        "trainer": {"accelerator": "cpu", "max_steps": 1, "enable_progress_bar": False},
        "wandb": {"mode": "disabled"},
        "seed_everything": 0,
    }


def refused(config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that refuses a configuration."""
    Path("c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(SystemExit) as error:
        main(["fit", "--config", "c.yaml", "--run", "run"])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medmtl: error:")]
    assert error.value.code == 2
    assert len(said) == 1
    return said[0]


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("model.network.init_args.strides", [], "UNet"),
        ("model.network.init_args.channels", [], "UNet"),
        ("model.network.init_args.channels", [10**12, 4], "UNet"),
        ("model.network.init_args.kernel_size", 10**30, "UNet"),
        ("model.network", 7, "model.network"),
        ("model.network", [UNET], "model.network"),
        ("model.network.init_args", 0.5, "model.network"),
        ("model.optimizer.init_args.lr", -1.0, "AdamW"),
        ("model.optimizer.init_args.lr", "fast", "lr"),
        ("model.scheduler", {"class_path": "torch.optim.lr_scheduler.StepLR"}, "step_size"),
        (
            "model.scheduler",
            {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.1, "pct_start": 7.0}},
            "OneCycleLR",
        ),
        ("seed_everything", -1, "seed_everything=-1"),
        ("seed_everything", 2**40, "seed_everything="),
        ("data", [], "data"),
        ("data.tasks", ["Ball"], "tasks"),
        ("data.batch_size", "two", "batch_size"),
        ("data.patch_size", 10**400, "patch_size"),
        ("trainer.max_steps", "many", "max_steps"),
        ("trainer", 3, "trainer"),
    ],
)
def test_fit_refuses_it_in_one_line(
    place: str, value: object, named: str, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    *keys, last = place.split(".")
    holder = config
    for key in keys:
        holder = holder[key]
    holder[last] = value
    assert named in refused(config, capsys)


@pytest.mark.parametrize("seed", range(12))
def test_a_checkpoint_with_another_value_in_its_configuration_is_refused_or_loads(seed: int, tmp_path: Path) -> None:
    """A section, or an option of the data, the network or a task, which is something else."""
    draw = random.Random(seed)
    checkpoint = read_checkpoint(OLD)
    config = yaml.safe_load(checkpoint[CHECKPOINT_KEY])
    task = next(iter(config["data"]["tasks"].values()))
    holder = draw.choice([config, config["data"], config["model"], config["model"]["network"]["init_args"], task])
    holder[draw.choice(list(holder))] = draw.choice([7, -1, 10**400, 0.5, "x", "", [], [1], {}, {"x": 1}, [[]], True])
    path = shutil.copy(OLD, tmp_path / "best.ckpt")
    torch.save({**checkpoint, CHECKPOINT_KEY: yaml.safe_dump(config)}, path)
    with suppress(MedMTLError):
        load_trained(path)


def test_the_class_is_named_and_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(RunError, match=r"^torch\.nn\.modules\.container\.Sequential \(TypeError: "), building(RunError):
        torch.nn.Sequential(7)  # type: ignore[arg-type]
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = ConfigError("own")
    with pytest.raises(ConfigError, match="own"), building(RunError):
        raise wrapped
    with pytest.raises(OSError, match="disk"), building(RunError):
        raise OSError("disk")
