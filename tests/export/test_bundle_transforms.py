"""What a bundle runs in MONAI takes the same channels as `medmtl predict`, and refuses what that refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exported_sample import export
from monai.data import MetaTensor
from predict_sample import ALPHA

import medmtl
from medmtl.data.task import Task
from medmtl.errors import ConfigError, DataError
from medmtl.export.bundle_transforms import SegmentWithVerdict
from medmtl.export.write import Source
from medmtl.models.parts import Parts
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.detectors import ByTask

NETWORK = {"class_path": "torch.nn.Conv3d", "init_args": {"in_channels": 2, "out_channels": 1, "kernel_size": 1}}


@pytest.fixture
def network() -> torch.nn.Module:
    """Organ is where the first of two channels is brighter."""
    network = torch.nn.Conv3d(2, 1, 1)
    with torch.no_grad():
        network.weight[0, :, 0, 0, 0], network.bias[:] = torch.tensor([10.0, -10.0]), 0
    return network.eval()


@pytest.fixture
def bundle(network: torch.nn.Module, tmp_path: Path) -> Path:
    """Of two tasks that stack the same channels in another order."""
    tasks = {
        name: Task(root="", modality="CT", spacing=(2, 2, 2), organ=[1], channel=list(channels)).known
        for name, channels in {"One": (0, 1), "Other": (1, 0)}.items()
    }
    predictor = VolumePredictor(network, (8, 8, 8), 0.25, 4)
    parts = Parts(tasks, predictor, [], ALPHA, ByTask(), None, None, None)
    return export(tmp_path / "bundle", Source(parts, "stacked", "0" * 64, NETWORK, {"medmtl": "0"}), "bundle")


def image(channels: int) -> MetaTensor:
    voxels = np.random.default_rng(0).normal(0, 60, (channels, 8, 9, 10)).astype(np.float32)
    return MetaTensor(torch.from_numpy(voxels), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))


@pytest.mark.parametrize("task", ["One", "Other"])
def test_channels_are_stacked_in_the_order_of_the_task(network: torch.nn.Module, bundle: Path, task: str) -> None:
    given = image(2)
    mask = SegmentWithVerdict(str(bundle), task=task)(given[None], network)[0, 0].numpy()
    own = medmtl.load(bundle, device="cpu").predict(given.numpy(), given.affine.numpy(), task=task).mask
    np.testing.assert_array_equal(mask, own)
    first, second = given.numpy() if task == "One" else given.numpy()[::-1]
    np.testing.assert_array_equal(mask == 1, np.clip(first, -160, 240) > np.clip(second, -160, 240))


def test_an_order_that_the_task_decides_is_not_guessed(network: torch.nn.Module, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="stack different channels: name the task"):
        SegmentWithVerdict(str(bundle))(image(2)[None], network)
    with pytest.raises(DataError, match="the image has 1 channels, and the network takes channel 1"):
        SegmentWithVerdict(str(bundle), task="One")(image(1)[None], network)


@pytest.mark.parametrize("alpha", [0, 1.5])
def test_alpha_is_a_share(network: torch.nn.Module, bundle: Path, alpha: float) -> None:
    with pytest.raises(ConfigError, match=f"alpha={alpha}: use a share between 0 and 1"):
        SegmentWithVerdict(str(bundle), task="One", alpha=alpha)(image(2)[None], network)
