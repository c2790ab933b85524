"""A loss in a module of the current folder: trained with, and with `--trust` not needed to test and predict."""

import sys
from pathlib import Path

import pytest

from medmtl import load
from medmtl.cli import main


def test_a_network_trained_with_a_loss_of_one_s_own_is_used_without_it_with_trust(
    tiny: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As the console script starts, and not as `python -m medmtl` does.
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(workplace))])
    module = workplace / "ownloss.py"
    module.write_text("from monai.losses import DiceLoss\n\nclass Own(DiceLoss):\n    pass\n")
    flags = ["--model.loss", "ownloss.Own", "--model.loss.init_args.sigmoid=true", "--trainer.max_steps=3"]
    main(["fit", "--config", str(tiny), "--run", "runs/own", *flags])
    assert "next: medmtl test --run runs/own --trust" in capsys.readouterr().out
    module.unlink()
    monkeypatch.delitem(sys.modules, "ownloss")
    main(["test", "--ckpt-path", "runs/own/checkpoints/best.ckpt", "--wandb.mode=disabled", "--trust"])
    assert Path("runs/own/report/report.json").is_file()
    assert load("runs/own", device="cpu", trust=True).tasks
    for command in (["fit", "--resume"], ["test"]):
        with pytest.raises(SystemExit):
            main([*command, "--run", "runs/own"])
        assert "model.loss to 'ownloss.Own'" in capsys.readouterr().err
