"""A training that diverges, does nothing or cannot begin ends in one line; what it had learnt before stays."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.losses import DiceCELoss

from medmtl.callbacks.divergence import DivergenceCallback
from medmtl.cli import main
from medmtl.models.segmenter import Segmenter

BARE = ["--calibration.regions=[]", "--scaling.method=none", "--spectral.layers=[]"]


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code in (1, 2)
    captured = capsys.readouterr().err
    assert "Traceback" not in captured
    (line,) = [line for line in captured.splitlines() if line.startswith("medmtl: error: ")]
    return line


@pytest.fixture
def run(trained: Path, workplace: Path) -> Path:
    return shutil.copytree(trained, workplace / "r")


@pytest.mark.parametrize("flags", [[], BARE], ids=["usual", "bare"])
def test_a_learning_rate_that_is_much_too_high_is_named(
    flags: list[str], tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    high = ["--model.optimizer.init_args.lr=1e30", "--model.scheduler=null"]
    line = fails(capsys, "fit", "--config", str(tiny), "--run", "r", *high, *flags)
    assert "step 2: the loss is nan for " in line or "step 2: the loss is inf for " in line
    assert ", case phantom_" in line
    assert "at a learning rate of 1e+30: lower the learning rate" in line
    assert "r holds no checkpoint" in fails(capsys, "test", "--run", "r")


def _loss(value: float) -> Callable:
    def loss(self: DiceCELoss, *given: torch.Tensor) -> torch.Tensor:
        return given[0].mean() * value

    return loss


class _Steep(torch.autograd.Function):
    """A finite loss whose gradient is not."""

    @staticmethod
    def forward(_: object, found: torch.Tensor) -> torch.Tensor:
        return found.mean()

    @staticmethod
    def backward(_: object, given: torch.Tensor) -> torch.Tensor:
        return given * torch.full((2, 1, 16, 16, 16), float("inf"))


@pytest.mark.parametrize(
    ("loss", "word"),
    [
        (_loss(float("nan")), "the loss is nan"),
        (_loss(float("inf")), "the loss is"),
        (lambda self, found, label: _Steep.apply(found), "a gradient is"),
    ],
    ids=["nan", "infinite", "gradient"],
)
def test_the_first_number_that_is_not_finite_ends_a_training_and_the_checkpoints_stay(
    loss: Callable, word: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    monkeypatch.setattr(DiceCELoss, "forward", loss)
    line = fails(capsys, "fit", "--run", "r", "--resume", "--trainer.max_steps=9", "--model.scheduler=null", *BARE)
    assert f"step 7: {word}" in line
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


def test_finite_gradients_whose_norm_is_not_go_on() -> None:
    part = torch.nn.Linear(4, 1)
    for each in part.parameters():
        each.grad = torch.full_like(each, 2e19)
    callback, trainer = DivergenceCallback(), SimpleNamespace(precision_plugin=None)
    callback.on_before_backward(trainer, part, torch.tensor(1.0))
    callback.on_before_optimizer_step(trainer, part, torch.optim.SGD(part.parameters(), lr=1.0))


def test_weights_that_the_last_step_spoilt_are_not_kept(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    step = torch.optim.AdamW.step

    def spoil(self: torch.optim.AdamW, closure: Callable) -> object:
        done = step(self, closure)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("nan"))
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", spoil)
    flags = ["--trainer.max_steps=7", "--data.batches=1", "--trainer.limit_val_batches=0", "--model.scheduler=null"]
    line = fails(capsys, "fit", "--run", "r", "--resume", *flags)
    assert "step 7: network." in line
    assert "is not finite after it: lower the learning rate" in line
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


@pytest.mark.parametrize("command", ["test", "calibrate", "ood", "predict", "fit"])
def test_a_checkpoint_with_weights_that_are_not_finite_is_refused(
    command: str, run: Path, tiny: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(run / "checkpoints" / name, weights_only=True)
        next(iter(checkpoint["state_dict"].values())).view(-1)[0] = float("inf")
        torch.save(checkpoint, run / "checkpoints" / name)
    more = {
        "predict": ["--input", str(phantoms / "LiverCT"), "--output", "p"],
        "fit": ["--resume", "--trainer.max_steps=9"],
    }
    line = fails(capsys, command, "--run", "r", *more.get(command, []))
    assert ".ckpt: model.0.conv.weight is not finite, the training diverged" in line


@pytest.mark.parametrize(
    ("wrapper", "command"),
    [("_orig_mod.", "predict --run r --input IMAGE --output p"), ("module.", "calibrate --run r --spectral.layers=[]")],
)
def test_weights_saved_with_a_wrapper_around_the_network_are_read(
    wrapper: str, command: str, run: Path, phantoms: Path
) -> None:
    best = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    named = {
        name.replace("network.", f"network.{wrapper}", 1): value for name, value in checkpoint["state_dict"].items()
    }
    torch.save({**checkpoint, "state_dict": named}, best)
    image = str(next((phantoms / "LiverCT" / "imagesTs").iterdir()))
    main([image if word == "IMAGE" else word for word in command.split()])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fit --config TINY --trainer.max_steps=0", "trainer.max_steps is 0: there is nothing to train"),
        ("fit --config TINY --trainer.max_steps=-1 --trainer.max_epochs=0", "trainer.max_epochs is 0"),
        ("fit --config TINY --trainer.limit_train_batches=0", "trainer.limit_train_batches is 0"),
        ("calibrate --run r --trainer.limit_val_batches=0", "there is no case to calibrate"),
        ("test --run r --trainer.limit_test_batches=0", "there is no case to test"),
        ("fit --config TINY --data.patch_size=[15,17,19]", "model.network gives 16 x 18 x 20 voxels for a patch of"),
        ("fit --config TINY --model.network.init_args.spatial_dims=2", "model.network does not take a patch of"),
        ("fit --config TINY --model.network.init_args.out_channels=2", "model.network gives 2 channels"),
        ("fit --config TINY --data.patch_size=[1,1,1]", "model.network does not take a patch of 1 x 1 x 1 voxels"),
        ("fit --config TINY --model.loss=torch.nn.NLLLoss", "model.loss does not take what model.network gives"),
    ],
)
def test_what_cannot_be_done_or_would_do_nothing_is_refused(
    command: str,
    words: str,
    run: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Segmenter, "training_step", None)
    assert words in fails(capsys, *(str(tiny) if word == "TINY" else word for word in command.split()))
    assert not Path("runs").exists()


def test_a_resumed_training_with_another_optimizer_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["--model.optimizer=torch.optim.SGD", "--model.scheduler=null", "--trainer.max_steps=9"]
    line = fails(capsys, "fit", "--run", "r", "--resume", *other)
    assert "the training to resume had another optimizer than SGD: its state has no momentum" in line
