"""Time, working memory and state of calibration metrics beside torchmetrics, as ratios; `make bench` runs it.

Runs are interleaved, so that a busy machine slows all alike, and each pair gives one ratio: reported are the median and
the range of the middle half. Memory is measured in a process of its own. What was found is written to `bench.json`.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torchmetrics import Metric, __version__
from torchmetrics.classification import BinaryCalibrationError

from medmtl.calibration.metrics.definitions import brier, ece, nll
from medmtl.calibration.metrics.streaming import CalibrationBins

VOXELS = 10_000_000
TARGETS = {"ece_speed": 5.0, "working_memory_mb": 64.0, "state_bytes": 2**20}
MEMORY_VOXELS = (1_000_000, 10_000_000, 50_000_000)


def voxels(count: int) -> tuple[Tensor, Tensor]:
    """Probability float32 and label int64, as segmentation gives them: most voxels are surely background."""
    generator = torch.Generator().manual_seed(0)
    probability = torch.empty(count)
    for piece in probability.split(100_000):  # so that making them needs no memory to speak of
        torch.sigmoid(torch.randn(len(piece), generator=generator).mul_(3).sub_(4), out=piece)
    label = torch.zeros(count, dtype=torch.int64)
    for y, p in zip(label.split(100_000), probability.split(100_000), strict=True):
        y.copy_(torch.rand(len(p), generator=generator) < p)
    return probability, label


def ece_alone(probability: Tensor, label: Tensor) -> Metric:
    """Ours: update and compute."""
    metric = CalibrationBins(scores=False)
    metric.update(probability, label)
    ece(metric.compute())
    return metric


def ece_brier_nll(probability: Tensor, label: Tensor) -> Metric:
    """Ours, three metrics at once: update and compute."""
    metric = CalibrationBins()
    metric.update(probability, label)
    table = metric.compute()
    ece(table), brier(table), nll(table)
    return metric


def torchmetrics_ece(probability: Tensor, label: Tensor) -> Metric:
    """torchmetrics' with its default arguments: update and compute."""
    metric = BinaryCalibrationError()
    metric.update(probability, label)
    metric.compute()
    return metric


RUNS: dict[str, Callable[[Tensor, Tensor], Metric]] = {
    "ece": ece_alone,
    "ece_brier_nll": ece_brier_nll,
    "torchmetrics": torchmetrics_ece,
}


def state_bytes(metric: Metric) -> int:
    """What a metric keeps after one update, in bytes."""
    states = [getattr(metric, name) for name in metric._defaults]
    tensors = [tensor for state in states for tensor in (state if isinstance(state, list) else [state])]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def working_memory_mb(name: str, count: int, answer: Connection) -> None:
    """Send how far a run lifts resident memory above what its arguments and the libraries need, MB."""
    process = psutil.Process()
    probability, label = voxels(count)
    RUNS[name](probability[:100_000], label[:100_000])  # what is loaded and made once
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.0005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    RUNS[name](probability, label)
    done.set()
    watcher.join()
    answer.send((peak - before) / 2**20)


def in_a_process(name: str, count: int) -> float:
    """`working_memory_mb` in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=working_memory_mb, args=(name, count, theirs))
    process.start()
    theirs.close()
    found: float = ours.recv()
    process.join()
    return found


def compare(pairs: int) -> dict[str, Any]:
    """Interleaved runs of all on the same voxels."""
    probability, label = voxels(VOXELS)
    seconds: dict[str, list[float]] = {name: [] for name in RUNS}
    state = {}
    for number in range(pairs + 1):
        for name, run in RUNS.items():
            start = time.perf_counter()
            metric = run(probability, label)
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
            state[name] = state_bytes(metric)
            del metric
    speed = {}
    for name in ("ece", "ece_brier_nll"):
        ratios = [theirs / ours for theirs, ours in zip(seconds["torchmetrics"], seconds[name], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        speed[name] = {"median": median, "middle_half": [low, high], "ratios": ratios}
    return {
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "times_as_fast_as_torchmetrics": speed,
        "state_bytes": state,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--pairs", type=int, default=9)
    given = parser.parse_args()
    found = compare(given.pairs)
    memory = {name: {str(n): in_a_process(name, n) for n in MEMORY_VOXELS} for name in RUNS}
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchmetrics": __version__,
    }
    row = {"voxels": VOXELS, **found, "working_memory_mb_at_voxels": memory, "machine": machine, "targets": TARGETS}
    given.out.write_text(json.dumps({"calibration": row}, indent=1) + "\n")
    for name, speed in found["times_as_fast_as_torchmetrics"].items():
        low, high = speed["middle_half"]
        print(f"{name}: {speed['median']:.1f} times as fast as torchmetrics, middle half {low:.1f} to {high:.1f}")
    for name, peaks in memory.items():
        peaks_mb = ", ".join(f"{peak:.0f} MB at {int(n) / 1e6:.0f} M voxels" for n, peak in peaks.items())
        print(f"{name}: state {found['state_bytes'][name]:,} bytes, working memory {peaks_mb}")


if __name__ == "__main__":
    main()
