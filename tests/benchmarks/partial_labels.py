"""What declaring a class as missing gains, where some training labels do not mark it; `MEDMTL_DATA` names the corpora.

A network for the hippocampus alone is trained three times for 500 steps: with the posterior class taken out of every
second training label, declared as `missing` or not, and with all labels. Each is tested on whole labels.

    MEDMTL_DATA=/path/to/corpora python tests/benchmarks/partial_labels.py --output FOLDER
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

from medmtl.cli import main as medmtl
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.task import Task
from medmtl.training.config_files import find_config

TASK, CLASS = "HippocampusMR", "posterior"
STEPS, VALIDATIONS = 500, 5


def take_out(source: Path, target: Path, cases: set[str], value: int) -> None:
    """Copy a dataset of the Decathlon, with a label value taken out of some cases; images are links."""
    (target / "labelsTr").mkdir(parents=True, exist_ok=True)
    if not (target / "imagesTr").exists():
        (target / "imagesTr").symlink_to((source / "imagesTr").resolve())
    content = json.loads((source / "dataset.json").read_text())
    for entry in content["training"]:
        label = nib.load(source / entry["label"])
        voxels = np.asarray(label.dataobj).astype(np.uint8)
        if Path(entry["label"]).name.split(".")[0] in cases:
            voxels[voxels == value] = 0
        nib.save(nib.Nifti1Image(voxels, label.affine), target / entry["label"])
    (target / "dataset.json").write_text(json.dumps({**content, "test": []}))


def main() -> None:
    """Train and test the three, and print the Dice of the class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    folder: Path = parser.parse_args().output.resolve()
    config: dict[str, Any] = yaml.safe_load(find_config("multitask-classes.yaml").read_text())
    task = config["data"]["tasks"][TASK]
    data = MultiTaskData({TASK: Task(**task)}, (48, 48, 48))
    data.setup("fit")
    removed = set(sorted(data.splits[TASK]["train"])[::2])
    source = Path(os.environ["MEDMTL_DATA"]) / TASK
    take_out(source, folder / TASK, removed, task["classes"][CLASS])
    (folder / "splits.json").write_text(json.dumps({TASK: data.splits[TASK]}))
    changes: dict[str, dict[str, Any]] = {
        "declared": {"root": str(folder / TASK), "missing": {CLASS: f"^({'|'.join(sorted(removed))})$"}},
        "background": {"root": str(folder / TASK)},
        "all labels": {},
    }
    for name, change in changes.items():
        own = {"tasks": {TASK: {**task, **change}}, "ood": {}, "splits": str(folder / "splits.json")}
        run, path = folder / name.replace(" ", "-"), folder / "config.yaml"
        own["batches"] = STEPS // VALIDATIONS
        trainer = {**config["trainer"], "max_epochs": VALIDATIONS, "accelerator": "cpu"}
        path.write_text(yaml.safe_dump({**config, "data": {**config["data"], **own}, "trainer": trainer}))
        medmtl(["fit", "--config", str(path), "--run", str(run), "--overwrite", "--wandb.mode", "disabled"])
        whole = ["--data.tasks.HippocampusMR.root", str(source)]
        medmtl(["test", "--run", str(run), "--wandb.mode", "disabled", *whole])
        report = json.loads((run / "report" / "report.json").read_text())
        print(f"{name}: Dice of {CLASS} {report['tasks'][TASK]['classes'][CLASS]['dice']['mean']:.3f}")


if __name__ == "__main__":
    main()
