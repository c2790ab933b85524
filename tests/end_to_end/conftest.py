from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from empty_figures import leave_figures_empty
from forked_process import FORKING
from matplotlib.figure import Figure

from medmtl.cli import main
from medmtl.experiment.run import launchers

LAYERS = ["model.0", "model.1.submodule"]


@pytest.fixture(scope="session")
def tiny(phantom_store: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A configuration of two phantom tasks and a network that trains in a second."""
    phantoms = phantom_store / "phantoms-v1"
    config = {
        "data": {
            "tasks": {
                "LiverCT": {"root": str(phantoms / "LiverCT"), "modality": "CT", "organ": [1], "spacing": [8, 8, 8]},
                "KidneyT2": {
                    "root": str(phantoms / "KidneyT2"),
                    "modality": "MR",
                    "organ": [1, 2],
                    "spacing": [8, 8, 8],
                },
            },
            "ood": {"OtherPhantom": {"root": str(phantoms / "OtherPhantom")}},
            "patch_size": [16, 16, 16],
            "batch_size": 2,
            "batches": 3,
        },
        "model": {
            "network": {
                "class_path": "monai.networks.nets.UNet",
                "init_args": {
                    "spatial_dims": 3,
                    "in_channels": 1,
                    "out_channels": 1,
                    "channels": [4, 8],
                    "strides": [2],
                    "norm": "instance",
                    "dropout": 0.05,
                },
            },
            "loss": {"class_path": "monai.losses.DiceCELoss", "init_args": {"sigmoid": True}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "scheduler": {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.01}},
        },
        "spectral": {"layers": LAYERS, "alpha": 0.5},
        "trainer": {"accelerator": "cpu", "max_steps": 6, "enable_progress_bar": False},
        "wandb": {"mode": "disabled"},
    }

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    return made_once("tiny", write) / "tiny.yaml"


@pytest.fixture(scope="session")
def trained(tiny: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A run folder in which `fit` and `test` ran to the end; tests copy what they change."""

    def train(folder: Path) -> None:
        main(["fit", "--config", str(tiny), "--run", str(folder / "runs" / "tiny")])
        main(["test", "--run", str(folder / "runs" / "tiny")])

    return made_once("trained", train) / "runs" / "tiny"


@pytest.fixture(scope="module")
def forked(blank: bytes) -> Iterator[None]:
    """Let experiments start forks instead of processes, and let none of their figures be drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launchers, "subprocess", FORKING)
        patch.setattr(Figure, "savefig", lambda self, stream, **_: stream.write(blank))
        leave_figures_empty(patch)
        yield


@pytest.fixture
def laid_out() -> None:
    """Let figures of trainings and tests be laid out, for what `trained` does not show: they come out blank still."""


@pytest.fixture(autouse=True)
def _undrawn(undrawn: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test draws, for nobody looks at its figures; what fixtures of a session or module draw is real, as a rule.

    Nor are the figures of trainings and tests laid out, but where a test uses `laid_out`.
    """
    if "laid_out" not in request.fixturenames:
        leave_figures_empty(monkeypatch)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
