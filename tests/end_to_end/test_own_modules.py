"""A loss in a module of the current folder: trained with, and not needed to test and predict."""

import sys
from pathlib import Path

import pytest

from medmtl import load
from medmtl.cli import main


def test_a_network_trained_with_a_loss_of_one_s_own_is_used_without_it(
    tiny: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As the console script starts, and not as `python -m medmtl` does.
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(workplace))])
    module = workplace / "ownloss.py"
    module.write_text("from monai.losses import DiceLoss\n\nclass Own(DiceLoss):\n    pass\n")
    flags = ["--model.loss", "ownloss.Own", "--model.loss.init_args.sigmoid=true", "--trainer.max_steps=3"]
    main(["fit", "--config", str(tiny), "--run", "runs/own", *flags])
    module.unlink()
    monkeypatch.delitem(sys.modules, "ownloss")
    main(["test", "--ckpt-path", "runs/own/checkpoints/best.ckpt", "--wandb.mode=disabled"])
    assert Path("runs/own/report/report.json").is_file()
    assert load("runs/own", device="cpu").tasks
    with pytest.raises(SystemExit):
        main(["fit", "--run", "runs/own", "--resume"])
    assert "model.loss to 'ownloss.Own'" in capsys.readouterr().err
