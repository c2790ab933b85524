"""Each loss trains by its `class_path`, and its checkpoint alone is enough to test."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from medmtl.cli import main

LOSSES = {
    "all-of-medmtl": """
        class_path: medmtl.losses.WeightedSum
        init_args:
          losses:
            - {class_path: monai.losses.DiceCELoss, init_args: {sigmoid: true}}
            - {class_path: medmtl.losses.ML1ACE, init_args: {bins: 15, soft: false}}
            - {class_path: medmtl.losses.SVLS, init_args: {sigma: 1}}
            - {class_path: medmtl.losses.NACL, init_args: {alpha: 0.1}}
          weights: [1, 0.3, 1, 1]
        """,
    "one-of-monai": "{class_path: monai.losses.FocalLoss, init_args: {gamma: 2}}",
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_trains_by_its_name(name: str, tiny: Path, workplace: Path) -> None:
    config = yaml.safe_load(tiny.read_text())
    config["model"]["loss"] = yaml.safe_load(LOSSES[name])
    config["spectral"] = {"layers": []}
    Path("loss.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "loss.yaml", "--trainer.max_steps=2", "--data.batches=2"])
    checkpoint = Path("runs/loss/checkpoints/best.ckpt")
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["global_step"] == 2
    assert yaml.safe_load(kept["config"])["model"]["loss"]["class_path"] == config["model"]["loss"]["class_path"]
    main(["test", "--ckpt_path", str(checkpoint.rename("alone.ckpt"))])
    report = json.loads(Path("alone/report/report.json").read_text())
    assert 0 <= report["tasks"]["LiverCT"]["calibration"]["band"]["ace"] <= 1


def test_a_loss_can_be_named_by_flags(tiny: Path, workplace: Path) -> None:
    flags = ["--model.loss=medmtl.losses.SVLS", "--model.loss.init_args.sigma=0.5"]
    main(["fit", "--config", str(tiny), "--trainer.max_steps=1", "--data.batches=1", *flags])
    resolved = yaml.safe_load(Path("runs/tiny/config.yaml").read_text())["model"]["loss"]
    assert resolved == {"class_path": "medmtl.losses.SVLS", "init_args": {"sigma": 0.5}}


def test_a_value_that_the_loss_cannot_use_is_named_in_one_line(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(tiny), "--model.loss=medmtl.losses.ML1ACE", "--model.loss.init_args.bins=0"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("medmtl: error: bins=0: calibration needs")
    assert not Path("runs").exists()
