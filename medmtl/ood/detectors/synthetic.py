"""Synthetic evidence: each task has feature maps of its own, patients vary, and images can be shifted."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from medmtl.ood.detectors.classifier import thumbnail
from medmtl.ood.detectors.intensity import intensity_histogram
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View
from medmtl.ood.evidence.gram import GramMatrix
from medmtl.ood.evidence.output_scores import OUTPUT_SCORES
from medmtl.ood.evidence.shape import DESCRIPTORS

CHANNELS = {"shallow": 8, "middle": 16, "deep": 24}
TASKS = ("KidneyMR", "LiverCT", "LungPET")


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_of(features: torch.Tensor, windows: int = 4, streamed: bool = False) -> LayerEvidence:
    """The evidence of a feature map.

    Args:
        features: voxels by channels, float64.
        windows: that the voxels are divided among.
        streamed: accumulate it window by window in float32, as in a forward pass; otherwise from all voxels at once.
    """
    parts = features.chunk(windows)
    pooled = torch.stack([part.mean(0) for part in parts]).float()
    if not streamed:
        return LayerEvidence(features.T @ features / len(features), features.mean(0), len(features), pooled)
    sums = GramMatrix(features.shape[1], exact=False, device=features.device)
    for part in parts:
        sums.add(part.T[None, :, :, None, None].float(), torch.ones(1, len(part), 1, 1))
    return LayerEvidence(sums.gram / sums.voxels, sums.total / sums.voxels, sums.voxels, pooled)


@lru_cache(maxsize=256)
def draw_evidence(
    task: str, patient: int, noise: float = 0.0, gain: float = 1.0, doubt: float = 0.0, streamed: bool = False
) -> Evidence:
    """One image of a task.

    Args:
        task: any name; each has its own mean, and few directions in which its features vary.
        patient: patients differ in gain, offset and the mixture of directions.
        noise: added to the features and the intensities, in units of their spread.
        gain: factor of the features; the intensities take it as an exponent.
        doubt: how much less certain the output is.
        streamed: see `layer_of`.
    """
    key = sum(ord(letter) * (place + 1) for place, letter in enumerate(task))
    seed = 1000 * key + patient
    layers = {}
    for number, (name, channels) in enumerate(CHANNELS.items()):
        mixing = normal(6, channels, seed=key + number)
        mixture = (0.15 * normal(6, 1, seed=seed + 7)).exp()
        latent = normal(400, 6, seed=seed + number) @ (mixture * mixing)
        mean = normal(channels, seed=key + 50 + number) + 0.2 * normal(channels, seed=seed + 50 + number)
        raw = latent + 0.1 * normal(400, channels, seed=seed + 90 + number) + mean
        layers[name] = layer_of(gain * raw + noise * normal(400, channels, seed=seed + 130 + number), streamed=streamed)
    levels = normal(3, seed=key + 3)[:, None] * 2 + 0.5 * normal(3, 1, seed=key + 4).abs() * normal(3, 2000, seed=seed)
    tissue = (levels - levels.min()) / (levels.max() - levels.min())
    volume = (tissue**gain + 0.3 * noise * normal(3, 2000, seed=seed + 5)).reshape(1, 20, 20, 15)
    logits = normal(1000, seed=seed + 6) + 5 * normal(1000, seed=seed + 8).sign() / (1 + doubt)
    probability = logits.sigmoid().float()
    outputs = {
        **{key: score.of_probability(probability) for key, score in OUTPUT_SCORES.items() if score.of_probability},
        "volume_ml": 10 * (1 + key % 5) * float((0.2 * normal(1, seed=seed + 9)).exp()) / (1 + 30 * doubt),
        "mutual_information": 0.01 + 0.1 * doubt + 0.001 * patient / 100,
        "pairwise_dice_distance": 0.1 + 0.3 * doubt + 0.001 * patient / 100,
    }
    shape = {
        name: descriptor.unscaled(
            float(
                0.5 * normal(1, seed=key + 200 + row) + 0.1 * (1 + 3 * noise + doubt) * normal(1, seed=seed + 200 + row)
            )
        )
        for row, (name, descriptor) in enumerate(DESCRIPTORS.items())
    }
    view = View(f"preprocessing of {task}", layers, outputs, intensity_histogram(volume, window=False), shape)
    return Evidence(task, f"{task}_{patient}", f"{task}_{patient}", (view,), thumbnail(volume.float()))


def draw_training(tasks: Sequence[str] = TASKS, patients: int = 12) -> list[Evidence]:
    """Training images of some tasks."""
    return [draw_evidence(task, patient) for task in tasks for patient in range(patients)]


def without_layer(image: Evidence, layer: str) -> Evidence:
    """An image without the evidence of one layer, under every preprocessing."""
    views = tuple(
        replace(view, layers={name: kept for name, kept in view.layers.items() if name != layer})
        for view in image.views
    )
    return replace(image, views=views)
