"""The configuration for the Decathlon: its tasks can be downloaded, and it trains on folders of the same form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from monai.apps import DecathlonDataset

from medmtl.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "multitask-msd.yaml"
TASKS = yaml.safe_load(CONFIG.read_text())["data"]["tasks"]
FOLDERS = {name: task["root"].removeprefix("${MEDMTL_DATA}/") for name, task in TASKS.items()}
# The labels that dataset.json of each task declares.
LABELS = {
    "Task02_Heart": ("background", "left atrium"),
    "Task04_Hippocampus": ("background", "Anterior", "Posterior"),
    "Task05_Prostate": ("background", "PZ", "TZ"),
    "Task07_Pancreas": ("background", "pancreas", "cancer"),
    "Task09_Spleen": ("background", "spleen"),
}
CHANNELS = {"Task05_Prostate": 2}  # T2 and ADC


def test_its_tasks_are_those_that_its_head_downloads() -> None:
    (command,) = [line for line in CONFIG.read_text().splitlines() if "medmtl data download" in line]
    assert sorted(command.split("download ")[1].split()) == sorted(FOLDERS.values())
    assert set(FOLDERS.values()) <= set(DecathlonDataset.resource)


@pytest.mark.usefixtures("undrawn")
def test_it_trains(
    write_task: Callable[..., Path],
    coarse: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDMTL_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    for folder in FOLDERS.values():
        shape = (12, 12, 12, CHANNELS[folder]) if folder in CHANNELS else (12, 12, 12)
        label = rng.integers(0, len(LABELS[folder]), shape[:3]).astype(np.uint8)
        cases = {f"{folder}_{number}": (rng.normal(size=shape).astype(np.float32), label) for number in range(5)}
        write_task(cases, folder, labels=LABELS[folder], affine=np.diag([3, 3, 3, 1]))
    flags = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--wandb.mode=disabled")
    main(["fit", "--config", str(coarse(CONFIG)), "--data.batches=2", "--data.batch_size=1", *flags])
    assert list(Path("runs/multitask-msd/checkpoints").glob("*.ckpt"))
