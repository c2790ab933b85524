"""What detection adds to the time of sliding-window inference; `make bench` runs it.

The network of `multitask-open.yaml`, untrained, on a volume of noise. Runs without and with detection are interleaved,
so that a busy machine slows both alike, and each pair gives one ratio. A bound is exceeded only where the bootstrap
interval of the mean ratio lies above it. What was found is added to `bench.json`.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.data import MetaTensor
from monai.networks.nets import UNet
from scipy.stats import bootstrap

from medmtl.models.extract import coarsest
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.distances import FRODO, KNN, Contrast, MDPool, PCAMahalanobis, ViM
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View
from medmtl.ood.evidence.features import FeatureTap
from medmtl.ood.evidence.flip import flip_disagreement
from medmtl.ood.evidence.shape import describe_mask
from medmtl.training.config_files import find_config

SHAPE = (160, 192, 160)
TRAINING = 24  # images that the detectors are fitted to, of two tasks
TARGETS = {"spectral": 0.03, "all_feature_detectors": 0.10, "verdict": 0.05, "mask_verdict": 1.05}
RADIUS = 30  # voxels, of the ball that stands in for a predicted mask


def volume(shape: tuple[int, int, int], seed: int) -> MetaTensor:
    """Noise, `(1, h, w, d)`."""
    return MetaTensor(torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)))


def evidence(layers: dict[str, LayerEvidence], number: int) -> Evidence:
    """What detectors see of an image."""
    view = View("one", layers, {"max_logit": 0.0, "energy": 0.0}, torch.full((150,), 1 / 150, dtype=torch.float64))
    return Evidence(f"task {number % 2}", f"case {number}", f"patient {number}", (view,), torch.zeros(32, 32, 32))


def detecting(
    predictor: VolumePredictor, layers: list[str], detectors: list[Detector], pooled: list[str]
) -> Callable[[MetaTensor], None]:
    """Inference and the scores of some detectors, which are fitted first."""
    tap = FeatureTap(predictor.network, layers, pooled)

    def observed(image: MetaTensor, number: int) -> Evidence:
        tap.reset()
        predictor(image, tap)
        return evidence(tap.evidence(), number)

    training = [observed(volume((48, 48, 48), seed), seed) for seed in range(TRAINING)]
    for detector in detectors:
        detector.fit(training)

    def run(image: MetaTensor) -> None:
        found = observed(image, 0)
        for detector in detectors:
            detector.score(found)

    return run


def ball() -> torch.Tensor:
    """A probability that is 1 in a ball in the middle, `(h, w, d)`."""
    grids = torch.meshgrid(*(torch.arange(side) - side / 2 for side in SHAPE), indexing="ij")
    return (sum(grid.square() for grid in grids) < RADIUS**2).float()


def with_verdict(predictor: VolumePredictor, layers: list[str]) -> Callable[[MetaTensor], None]:
    """Inference with what the default verdict takes of features and mask, and its scores but those of intensities."""
    features, probability = detecting(predictor, layers, [Spectral(), KNN(), Contrast()], []), ball()

    def run(image: MetaTensor) -> None:
        features(image)
        describe_mask(probability, image.as_tensor()[0], (1, 1, 1))

    return run


def with_mask_verdict(predictor: VolumePredictor) -> Callable[[MetaTensor], None]:
    """Inference with the additional pass over the mirrored image."""

    def run(image: MetaTensor) -> None:
        flip_disagreement(image, predictor(image)[0].as_subclass(torch.Tensor) >= 0.5, predictor)

    return run


def compare(pairs: int) -> dict[str, Any]:
    """Interleaved runs without detection, with the signature alone, all detectors of features, and the verdicts."""
    torch.manual_seed(0)
    config = yaml.safe_load(find_config("multitask-open.yaml").read_text())
    layers: list[str] = config["spectral"]["layers"]
    network = UNet(**config["model"]["network"]["init_args"]).eval()
    predictor = VolumePredictor(network, config["data"]["patch_size"], overlap=0.25, window_batch=4)
    every: list[Detector] = [Spectral(), FRODO(), MDPool(), PCAMahalanobis(), KNN(), ViM(), Contrast()]
    runs: dict[str, Callable[[MetaTensor], object]] = {
        "inference": predictor,
        "spectral": detecting(predictor, layers, [Spectral()], []),
        "all_feature_detectors": detecting(predictor, layers, every, [coarsest(predictor, layers)]),
        "verdict": with_verdict(predictor, layers),
        "mask_verdict": with_mask_verdict(predictor),
    }
    image = volume(SHAPE, 0)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(pairs + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(image)
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    added = {}
    for name, bound in TARGETS.items():
        ratios = np.array(seconds[name]) / np.array(seconds["inference"]) - 1
        ends = bootstrap((ratios,), np.mean, random_state=0).confidence_interval
        added[name] = {
            "mean": float(ratios.mean()),
            "median": float(np.median(ratios)),
            "interval": [float(ends.low), float(ends.high)],
            "at_most": bound,
            "exceeded": bool(ends.low > bound),
            "ratios": ratios.tolist(),
        }
    return {
        "shape": SHAPE,
        "layers": layers,
        "detectors": [detector.name for detector in every],
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "added": added,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--pairs", type=int, default=15)
    given = parser.parse_args()
    with torch.inference_mode():
        found = compare(given.pairs)
    rows = json.loads(given.out.read_text()) if given.out.is_file() else {}
    given.out.write_text(json.dumps({**rows, "detection": found}, indent=1) + "\n")
    for name, added in found["added"].items():
        low, high = added["interval"]
        print(
            f"{name}: adds {added['mean']:.1%} to inference, 95 % interval {low:.1%} to {high:.1%} "
            f"(at most {added['at_most']:.0%})"
        )


if __name__ == "__main__":
    main()
