"""What outputs per task cost beside one shared output: a training step, inference, and memory; `make bench` runs it.

The network of `multitask-open.yaml`, untrained, on noise, with five tasks of a background and three classes each: 20
output channels. Runs are interleaved, so that a busy machine slows both alike, and each pair gives one ratio. Memory is
that of processes of their own. What was found is added to `bench.json`.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from scipy.stats import bootstrap
from torch import nn

from medmtl.data.classes import Classes
from medmtl.losses.masked import leave_out_unknown
from medmtl.models.cpu_layers import speed_up
from medmtl.models.outputs import Outputs
from medmtl.models.sliding_window import VolumePredictor
from medmtl.models.task_heads import TaskHeads
from medmtl.training.config_files import find_config
from medmtl.training.outputs import features_of

TASKS, CLASSES, BATCH = 5, 3, 4
SHAPE = (128, 128, 96)
LARGE = (512, 512, 300)  # of 20 classes, in a test of memory
TARGETS = {"step": 1.25, "inference": 1.25, "large_volume_gb": 8.0}


def classes_of(tasks: int, classes: int) -> dict[str, Classes]:
    """Tasks with as many classes, none of which shares a channel."""
    return {
        f"task {task}": Classes({f"class {task}.{label}": frozenset({label}) for label in range(1, classes + 1)})
        for task in range(tasks)
    }


def predictor_of(tasks: dict[str, Classes] | None, small: bool = False) -> VolumePredictor:
    """The network, with heads or one shared output."""
    torch.manual_seed(0)
    config = yaml.safe_load(find_config("multitask-open.yaml").read_text())
    features = 1 if tasks is None else features_of(tasks.values())
    options = config["model"]["network"]["init_args"] | {"out_channels": features}
    if small:
        options |= {"channels": [4, 8], "strides": [2], "num_res_units": 0}
    network = UNet(**options)
    speed_up(network)
    predictor = VolumePredictor(network, config["data"]["patch_size"], overlap=0.25, window_batch=4)
    if tasks is not None:
        predictor.heads = TaskHeads(features, Outputs.per_task(tasks))
    return predictor


def stepping(predictor: VolumePredictor) -> Callable[[], None]:
    """A training step on ready patches."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(BATCH, 1, *predictor.patch_size, generator=generator)
    label = torch.randint(0, CLASSES + 1, (BATCH, 1, *predictor.patch_size), generator=generator, dtype=torch.uint8)
    loss, heads = DiceCELoss(sigmoid=True), predictor.heads
    parts: list[nn.Module] = [predictor.network, *([] if heads is None else [heads])]
    optimizer = torch.optim.AdamW([each for part in parts for each in part.parameters()])
    tasks: list[str | None] = [f"task {number}" for number in range(BATCH)]

    def step() -> None:
        optimizer.zero_grad()
        found = predictor.network(image)
        if heads is None:
            value = loss(*leave_out_unknown(found, (label > 0).float()))
        else:
            value = heads.loss(loss, found, label, tasks, [[True] * CLASSES] * BATCH)
        value.backward()
        optimizer.step()

    return step


def predicting(predictor: VolumePredictor) -> Callable[[], None]:
    """Inference of one head."""
    image = MetaTensor(torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)))
    head = None if predictor.heads is None else "task 0"

    def run() -> None:
        with torch.inference_mode():
            predictor(image, head=head)

    return run


def ratios(make: Callable[[VolumePredictor], Callable[[], None]], pairs: int) -> dict[str, Any]:
    """Time with 20 channels over that with one, of interleaved runs."""
    runs = [make(predictor_of(tasks)) for tasks in (None, classes_of(TASKS, CLASSES))]
    seconds: list[list[float]] = [[], []]
    for number in range(pairs + 1):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            if number:  # the first warms up
                taken.append(time.perf_counter() - start)
    found = np.array(seconds[1]) / np.array(seconds[0])
    ends = bootstrap((found,), np.mean, random_state=0).confidence_interval
    return {"mean": float(found.mean()), "low": float(ends.low), "high": float(ends.high), "pairs": pairs}


def _step_memory(tasks: dict[str, Classes] | None) -> None:
    step = stepping(predictor_of(tasks))
    for _ in range(2):
        step()


def _large_volume() -> None:
    predictor = predictor_of(classes_of(1, 20), small=True)
    assert predictor.heads is not None
    image = MetaTensor(torch.randn(1, *LARGE, generator=torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        logits = predictor.logits(image, head="task 0")
        foreground = predictor.probability(logits, "task 0")
        predictor.outputs.heads["task 0"].parts(logits, foreground[0].as_subclass(torch.Tensor), image)


def _peak(work: Callable[..., None], arguments: tuple[Any, ...], found: Any) -> None:
    torch.set_num_threads(1)
    work(*arguments)
    found.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def peak_gb(work: Callable[..., None], *arguments: Any) -> float:
    """Peak memory of a process that does some work, GB."""
    context = multiprocessing.get_context("spawn")
    found = context.Value("d", 0.0)
    process = context.Process(target=_peak, args=(work, arguments, found))
    process.start()
    process.join()
    return float(found.value)


def main() -> None:
    """Measure, print, and add the figures to `bench.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    shared, several = peak_gb(_step_memory, None), peak_gb(_step_memory, classes_of(TASKS, CLASSES))
    found: dict[str, Any] = {
        "step": ratios(stepping, options.pairs),
        "inference": ratios(predicting, options.pairs),
        "step_memory": several / shared,
        "large_volume_gb": peak_gb(_large_volume),
        "targets": TARGETS,
    }
    for name in ("step", "inference"):
        value = found[name]
        print(f"{name}: {value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}] times, target {TARGETS[name]}")
    print(f"memory of a step: {found['step_memory']:.2f} times ({several:.2f} and {shared:.2f} GB)")
    print(f"20 classes on {LARGE}: {found['large_volume_gb']:.1f} GB, target {TARGETS['large_volume_gb']:g}")
    earlier = json.loads(options.output.read_text()) if options.output.is_file() else {}
    options.output.write_text(json.dumps({**earlier, "outputs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
