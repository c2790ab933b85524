"""TaskClassifier: uncertainty of a small classifier of the task; what the journal version compares with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medmtl.errors import DataError
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.layers import require
from medmtl.ood.evidence.evidence import Evidence

SIDE = 32
PERCENTILES = (0.5, 99.5)

CHANNELS = (16, 32)
BLOCK = 4  # voxels a side that the first layer takes as one: a stride of 2 took six times as long
EPOCHS = 40
BATCH = 16
LEARNING_RATE = 3e-3


def thumbnail(image: Tensor) -> Tensor:
    """An image downsampled for a small classifier.

    Args:
        image: `(1, H, W, D)` or `(H, W, D)`, with its axes in one orientation for all images.

    Returns:
        `(32, 32, 32)` float32 in [0, 1]: clipped to percentiles 0.5 and 99.5, scaled, averaged over blocks. A constant
        image becomes 0.
    """
    volume = image.detach().as_subclass(Tensor).float().cpu()
    low, high = (float(value) for value in np.percentile(volume.numpy(), PERCENTILES))
    if low == high:
        return torch.zeros(SIDE, SIDE, SIDE)
    scaled = (volume.clamp(low, high) - low) / (high - low)
    return functional.adaptive_avg_pool3d(scaled.reshape(1, *volume.shape[-3:]), SIDE)[0]


class TaskClassifier(Detector):
    """1 - the largest class probability of a classifier of the task.

    A small network on thumbnails, trained when the detector is fitted. The journal version of Karimi & Gholipour
    compares with a classifier that is not described; this one is ours.

    Args:
        name: its key in tables and files.
        seed: of the weights, the order of the images and their augmentation.
    """

    label = "Task classifier"
    meaning = "1 \N{MINUS SIGN} largest probability of a task"
    reference = "Hendrycks & Gimpel, arXiv 1610.02136, on a classifier of tasks"
    needs_thumbnail = True

    def __init__(self, name: str = "task_classifier", seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self.tasks: list[str] = []
        self.network: nn.Module | None = None

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`.

        Raises:
            DataError: there is only one task, or no image.
        """
        require(self, cases)
        self.tasks = sorted({case.dataset for case in cases})
        if len(self.tasks) < 2:
            raise DataError(f"detector {self.name}: needs images of two tasks", fix="leave it out")
        images = torch.stack([_thumbnail(case) for case in cases])[:, None]
        labels = torch.tensor([self.tasks.index(case.dataset) for case in cases])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = _train(images, labels, len(self.tasks))

    @torch.no_grad()
    def score(self, image: Evidence) -> float:
        """See `Detector.score`: 0 to 1 - 1 / tasks."""
        assert self.network is not None, "fit or load the detector first"
        logits = self.network(_thumbnail(image)[None, None].float())
        return float(1 - logits.double().softmax(dim=1).max())

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        return "thumbnail" if image.thumbnail is None else ""

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {"tasks": self.tasks, "network": {} if self.network is None else dict(self.network.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.tasks = list(state["tasks"])
        self.network = None
        if state["network"]:
            self.network = _network(len(self.tasks)).eval()
            self.network.load_state_dict(state["network"])


def _thumbnail(image: Evidence) -> Tensor:
    """The thumbnail; `missing` has checked that there is one."""
    assert image.thumbnail is not None
    return image.thumbnail


def _network(tasks: int) -> nn.Module:
    """`(B, 1, 32, 32, 32)` to logits `(B, tasks)`."""
    few, many = CHANNELS
    return nn.Sequential(
        nn.Conv3d(1, few, BLOCK, stride=BLOCK),
        nn.GroupNorm(4, few),
        nn.ReLU(),
        nn.Conv3d(few, many, 3, stride=2, padding=1),
        nn.GroupNorm(4, many),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(many, tasks),
    )


def _train(images: Tensor, labels: Tensor, tasks: int) -> nn.Module:
    network = _network(tasks)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    balance = len(labels) / torch.bincount(labels).float()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = functional.cross_entropy(network(_augment(images[batch])), labels[batch], balance)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def _augment(images: Tensor) -> Tensor:
    """Move by up to two voxels, bend the grey scale and add a little noise; `(B, 1, 32, 32, 32)` in [0, 1]."""
    moved = torch.roll(images, torch.randint(-2, 3, (3,)).tolist(), dims=(2, 3, 4))
    gamma = torch.empty(len(images), 1, 1, 1, 1).uniform_(0.8, 1.25)
    return moved.clamp(0, 1) ** gamma + 0.02 * torch.randn_like(moved)
