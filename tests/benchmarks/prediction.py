"""Time and memory of predicting large scans; `make bench` runs it.

A head of 240 x 240 x 155 voxels, a torso of 512 x 512 x 300 and a body of 512 x 512 x 600, of soft tissue in air, are
read from NIfTI, segmented with the task told, and written, each in a process of its own whose peak memory is what the
system says. Inference with the verdict's features is compared with a bare `sliding_window_inference` of the same
network on the same prepared volume, in interleaved pairs. What was found is added to `bench.json`.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from scipy.ndimage import zoom
from scipy.stats import bootstrap

from medmtl.cli import main as medmtl
from medmtl.data.working_space import prepare
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.io.writer import write_mask
from medmtl.predict.model import Model

# Shape, voxel size in mm, modality.
SCANS = {
    "head": ((240, 240, 155), (1.0, 1.0, 1.0), "MR"),
    "torso": ((512, 512, 300), (0.8, 0.8, 1.0), "CT"),
    "body": ((512, 512, 600), (0.8, 0.8, 1.0), "CT"),
}
AT_MOST = 1.05  # inference, of bare sliding windows
SECONDS = 60  # at least so long a volume is compared: a short inference needs more pairs for the same interval


def write_scan(path: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """A body of soft tissue in air, int16."""
    generator = np.random.default_rng(0)
    coarse = generator.normal(40, 60, (8, 8, 8))
    coarse[[0, -1]] = coarse[:, [0, -1]] = -1000
    body = zoom(coarse, np.array(shape) / 8, order=1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(body, np.diag([*spacing, 1.0])), path)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(run: Path, path: Path, modality: str, pairs: int, threads: int) -> dict[str, Any]:
    """Predict one scan, then compare inference."""
    torch.set_num_threads(threads)
    model = Model.load(run, device="cpu")
    kin = {name: task for name, task in model.tasks.items() if task.modality == modality}
    task = min(kin, key=lambda name: np.prod(kin[name].preprocessing.spacing))  # the finest, which takes longest
    idle = peak_bytes()
    reading, scan = timed(lambda: read(find_inputs(path)[0]))
    _, prediction = timed(lambda: model.predict_scan(scan, task))
    writing, _ = timed(lambda: write_mask(path.parent, scan, prediction.mask))
    peak = peak_bytes()
    image = prepare(scan.image, model.tasks[task].preprocessing)
    ratios = compare(model, image, pairs)
    ends = bootstrap((ratios,), np.mean, random_state=0).confidence_interval
    return {
        "shape": list(scan.image.shape[1:]),
        "task": task,
        "working_shape": list(image.shape[1:]),
        "seconds": {"reading": reading, **prediction.seconds, "writing": writing},
        "peak_gb": peak / 1e9,
        "idle_gb": idle / 1e9,
        "volume_gb": scan.image.numel() * 4 / 1e9,
        "inference_of_bare": {
            "mean": float(ratios.mean()),
            "pairs": len(ratios),
            "interval": [float(ends.low), float(ends.high)],
            "at_most": AT_MOST,
            "exceeded": bool(ends.low > AT_MOST),
        },
        "threads": threads,
    }


def compare(model: Model, image: MetaTensor, pairs: int) -> np.ndarray:
    """Seconds of inference that looks at features, of those of bare sliding windows, of at least so many pairs."""
    predictor, observer = model.predictor, model.observer
    assert observer is not None
    ratios: list[float] = []
    begun = time.perf_counter()
    with torch.inference_mode():
        for number in count():
            bare, _ = timed(
                lambda: sliding_window_inference(
                    image.as_tensor()[None],
                    predictor.patch_size,
                    predictor.window_batch,
                    predictor.network,
                    overlap=predictor.overlap,
                    mode="gaussian",
                )
            )
            observer.tap.reset()
            ours, _ = timed(lambda: predictor.logits(image, observer.tap))
            if number:  # the first warms up
                ratios.append(ours / bare)
            if len(ratios) >= pairs and time.perf_counter() - begun >= SECONDS:
                break
    return np.array(ratios)


def peak_bytes() -> int:
    """The most memory that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--run", type=Path, help="run to predict with; without it one is trained for a moment")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    found = {}
    with TemporaryDirectory() as folder:
        run = given.run or Path(folder, "run")
        if given.run is None:
            medmtl(["fit", "--config=multitask.yaml", f"--run={run}", "--trainer.max_epochs=1", "--data.batches=2"])
        for name, (shape, spacing, modality) in SCANS.items():
            path = Path(folder, f"{name}.nii.gz")
            write_scan(path, shape, spacing)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name] = pool.apply(measure, (run, path, modality, given.pairs, given.threads))
    rows = json.loads(given.out.read_text()) if given.out.is_file() else {}
    given.out.write_text(json.dumps({**rows, "prediction": found}, indent=1) + "\n")
    for name, row in found.items():
        parts = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in row["seconds"].items())
        compared = row["inference_of_bare"]
        low, high = compared["interval"]
        print(
            f"{name} {row['shape']} as {row['task']}: {parts}; peak {row['peak_gb']:.1f} GB, of which "
            f"{row['idle_gb']:.1f} before reading; inference {compared['mean']:.3f} of bare sliding "
            f"windows, {compared['pairs']} pairs, 95 % interval {low:.3f} to {high:.3f} (at most {AT_MOST})"
        )


if __name__ == "__main__":
    main()
