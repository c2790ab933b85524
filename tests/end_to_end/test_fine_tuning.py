"""Fine-tuning through the ordinary command line: from a checkpoint, one part of the network, and then on its own."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from medmtl.cli import main

HEAD = {"network.model.2.conv.weight", "network.model.2.conv.bias"}


@pytest.fixture
def source(trained: Path, workplace: Path) -> Path:
    return Path(shutil.copy(trained / "checkpoints" / "best.ckpt", workplace / "source.ckpt"))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def different(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def test_the_head_alone_is_tuned_and_the_result_stands_on_its_own(
    source: Path, trained: Path, tiny: Path, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = yaml.safe_load(tiny.read_text())
    config["model"]["finetune"] = {"checkpoint": str(source), "layers": "head"}
    config["data"]["splits"] = str(shutil.copy(trained / "splits.json", "splits.json"))
    Path("tuned.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    main(["fit", "--config", "tuned.yaml"])
    tuned = Path("runs/tuned")
    # 12 x 27 + 1 of them, after 4 x 27 + 4 + 1 and 4 x 8 x 27 + 8 + 1.
    assert "fine-tuning head: 325 of 1,311 parameters train" in caplog.text
    assert different(weights(source), weights(tuned / "checkpoints" / "best.ckpt")) == HEAD
    assert yaml.safe_load((tuned / "config.yaml").read_text())["model"]["finetune"]["layers"] == "head"

    kept = yaml.safe_load(torch.load(tuned / "checkpoints" / "best.ckpt", weights_only=True)["config"])
    assert "finetune" not in kept["model"]
    assert "splits" not in kept["data"]
    for gone in (source, Path("splits.json"), Path("tuned.yaml")):
        gone.unlink()
    main(["test", "--run", str(tuned)])
    assert (tuned / "report" / "report.html").is_file()


def test_flags_name_checkpoint_and_layers_and_a_resumed_run_needs_no_source(source: Path, tiny: Path) -> None:
    whole = ["--model.scheduler.init_args.total_steps=6"]
    flags = ["--model.finetune.checkpoint", str(source), "--model.finetune.layers", "decoder"]
    main(["fit", "--config", str(tiny), "--run", "r", "--trainer.max_steps=3", *whole, *flags])
    first = weights(Path("r/checkpoints/last.ckpt"))
    before = weights(source)
    assert different(before, first) == HEAD
    source.unlink()
    main(["fit", "--run", "r", "--resume", "--trainer.max_steps=6"])
    last = torch.load("r/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 6
    assert different(before, last["state_dict"]) == different(first, last["state_dict"]) == HEAD


@pytest.mark.parametrize("wrong", ["another network", "no file"])
def test_a_wrong_checkpoint_is_one_line_and_starts_no_run(
    source: Path, tiny: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    flags = [f"--model.finetune.checkpoint={source}"]
    if wrong == "no file":
        source.unlink()
        expected = "source.ckpt does not exist"
    else:
        flags += ["--model.network.init_args.channels=[6,8]"]
        expected = "model.0.conv.weight is (4, 1, 3, 3, 3) there and (6, 1, 3, 3, 3) here"
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", str(tiny), "--run", "r", *flags])
    assert exit_.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert expected in line
    assert not Path("r").exists()


def test_help_explains_fine_tuning(capsys: pytest.CaptureFixture[str]) -> None:
    for option, words in (
        ("--help.model", "--model.finetune FINETUNE"),
        ("--model.finetune.help", "coarsest feature map"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["fit", option])
        assert exit_.value.code == 0
        assert words in " ".join(capsys.readouterr().out.split())
