"""Finished runs of an experiment as their files, written without any training."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

METRICS = ("dice", "hd95_mm", "asd_mm", "ece_band", "ace_band", "brier_band", "nll_band")

Values = Mapping[str, Mapping[str, float | Mapping[str, float]]]


def config_of(tasks: list[str], root: str = "/data") -> dict[str, Any]:
    task = {"modality": "CT", "organ": [1], "spacing": [2, 2, 2], "channel": 0, "patient": None, "window": None}
    return {
        "data": {
            "tasks": {name: {"root": f"{root}/{name}", **task} for name in tasks},
            "patch_size": [48, 48, 48],
            "batch_size": 4,
            "foreground": 0.5,
        },
        "model": {
            "network": {"class_path": "monai.networks.nets.UNet", "init_args": {"channels": [16, 32]}},
            "loss": {"class_path": "monai.losses.DiceCELoss"},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.004}},
            "overlap": 0.25,
        },
        "calibration": {"bins": 15},
    }


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a finished run into the test's folder: `write_run(arm, {task: {case: dice or {metric: value}}})`.

    Metrics that are not given are 0.5. The run is about its task where it has one and the arm is not `multitask`.
    """

    def write(
        arm: str,
        values: Values,
        seed: int = 0,
        fold: int | None = None,
        cases: int | None = None,
        *,
        name: str | None = None,
        patients: Mapping[str, str] | None = None,
        budget: Mapping[str, Any] | None = None,
        config: Callable[[dict[str, Any]], None] = lambda config: None,
        train: tuple[str, ...] = ("train_1", "train_2"),
        finished: bool = True,
        root: str = "/data",
        bins: Mapping[str, Any] | None = None,
    ) -> Path:
        task = None if arm == "multitask" else next(iter(values))
        kind = "-".join([arm, *([task] if task else []), f"seed{seed}", f"fold{fold}", f"cases{cases}"])
        folder = tmp_path / "runs" / (name or f"{kind}-0123abcd")
        (folder / "report").mkdir(parents=True)
        settings = config_of(list(values), root)
        config(settings)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        splits = {task: {"train": [*train], "val": ["val_1"], "test": [*found]} for task, found in values.items()}
        (folder / "splits.json").write_text(json.dumps(splits))
        given = {"notion": "steps", "steps": 600, "batch_size": 4, "validations": 5, **(budget or {})}
        cell = {"experiment": tmp_path.name, "arm": arm, "task": task, "seed": seed, "fold": fold, "cases": cases}
        record = {"fingerprint": folder.name, "finished": finished, "steps": 600, "cell": {**cell, "budget": given}}
        (folder / "run.json").write_text(json.dumps({"fit": {}, "experiment": record}))
        rows = [
            {"dataset": task, "case": case, "patient": (patients or {}).get(case, case), "expected": "in"}
            | dict.fromkeys(METRICS, 0.5)
            | (dict(value) if isinstance(value, Mapping) else {"dice": value})
            for task, found in values.items()
            for case, value in found.items()
        ]
        rows.append({"dataset": "OtherAnatomy", "case": "other", "patient": "other", "expected": "out"})
        with (folder / "report" / "cases.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        if bins is not None:
            (folder / "report" / "bins.json").write_text(json.dumps(bins))
        return folder

    return write
