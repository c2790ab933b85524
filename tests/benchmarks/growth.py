"""How time and memory of `fit`, `test` and the verdict grow; `make bench` runs it.

Volumes of noise with a ball as the organ, each with a content of its own, are trained on and tested with a small
network: 30 to 3,000 cases, with prepared volumes in memory and on disk; 1 to 50 tasks; volumes of 32 to 128 voxels a
side; verdicts by 30 to 3,000 training images; and 3,000 volumes that take as much as the memory that is allowed. Each
point is measured in a process of its own. Times are CPU time of all its threads and processes, so that a busy machine
does not count; memory is the peak of what the process itself holds, above what it held before (pages of files, which
the system takes back, apart). The slope is that of a line through the points of an axis, both logarithmic: 1 is linear,
2 quadratic. What was found is added to `bench.json`.
"""

import argparse
import json
import multiprocessing
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.networks.nets import UNet
from scipy.stats import bootstrap

from medmtl.cli import main as medmtl
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.layouts.folders import Folders
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.task import Task
from medmtl.models.extract import Observer
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.verdict import ConformalDetector

AXES = {
    "cases in memory": (30, 100, 300, 1000, 3000),
    "cases on disk": (30, 100, 300, 1000, 3000),
    "tasks": (1, 2, 5, 10, 20, 50),
    "voxels": (32**3, 48**3, 64**3, 96**3, 128**3),
    "bank": (30, 100, 300, 1000, 3000),
    "larger than memory": (30, 3000),
}
LIMIT = 4 * 10**9  # bytes that a training on volumes larger than memory may hold
QUICK = 3  # points of each axis with --quick
STEPS = 20
PAIRS = 20
AT_MOST = 1.1  # slope; noise of a few points is above 1
LAYERS = ["model.0", "model.1.submodule"]
NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": [4, 8], "strides": [2]}
# What is shown: key -> label, colour (of Okabe and Ito), marker.
LOOK = {
    "fit: checking and loading": ("#0072B2", "o"),
    "fit: a step": ("#E69F00", "s"),
    "fit: validation, calibration, signatures": ("#009E73", "^"),
    "test": ("#CC79A7", "D"),
    "fitting the detector": ("#56B4E9", "v"),
    "a verdict": ("#D55E00", "P"),
}
MARKS: dict[str, float] = {}


class Marks(pl.Callback):
    """Notes the CPU time at which the steps of a training begin and end."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Note the first step, and the second: the first warms up."""
        if index < 2:
            MARKS[f"step {index}"] = seconds()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Note the last step."""
        MARKS["end"] = seconds()


def seconds() -> float:
    """CPU time of this process and those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def own_bytes() -> int:
    """Memory of this process that is no page of a file."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


class Peak:
    """The most memory that the block holds, above what was held before."""

    def __enter__(self) -> "Peak":
        self.before = self.most = own_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.most = max(self.most, own_bytes())

    @property
    def megabytes(self) -> float:
        """In 10^6 bytes."""
        return (self.most - self.before) / 1e6


def write_cases(folder: Path, cases: int, side: int) -> None:
    """A folder of images and labels, none like another."""
    image = np.random.default_rng(0).normal(100, 20, (side,) * 3).astype(np.int16)
    grid = np.indices(image.shape) - side / 2
    label = ((grid**2).sum(0) < (side / 4) ** 2).astype(np.uint8)
    image[label > 0] += 60
    for number in range(cases):
        image[0, 0, 0], label[1, 1, 1] = number, number % 2
        for kind, voxels in (
            ("images", np.roll(image, number % side, 2)),
            ("labels", np.roll(label, number % side, 2)),
        ):
            path = folder / kind / f"case_{number:05d}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


def config(folder: Path, tasks: int, cases: int, side: int) -> dict[str, Any]:
    """A training on as many cases of each task."""
    named = {}
    for number in range(tasks):
        write_cases(folder / f"Task{number}", cases, side)
        layout = {"class_path": "Folders", "init_args": {"organs": {"organ": 1}}}
        named[f"Task{number}"] = {
            "root": str(folder / f"Task{number}"),
            "modality": "MR",
            "organ": [1],
            "spacing": [1, 1, 1],
            "layout": layout,
        }
    return {
        "data": {"tasks": named, "patch_size": [16, 16, 16], "batch_size": 2, "batches": STEPS},
        "model": {
            "network": {"class_path": "monai.networks.nets.UNet", "init_args": {**NETWORK, "norm": "instance"}},
            "loss": {"class_path": "monai.losses.DiceCELoss", "init_args": {"sigmoid": True}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "outputs": "shared",
        },
        "spectral": {"layers": LAYERS},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "num_sanity_val_steps": 0,
            "callbacks": [{"class_path": f"{__name__}.Marks"}],
        },
        "wandb": {"mode": "disabled"},
    }


def commands(tasks: int, cases: int, side: int, cache: str) -> dict[str, dict[str, float]]:
    """Time and memory of `fit` and `test`."""
    with TemporaryDirectory() as folder:
        os.environ["MEDMTL_CACHE"] = f"{folder}/cache"
        path, run = Path(folder, "growth.json"), f"{folder}/run"
        path.write_text(json.dumps(config(Path(folder), tasks, cases, side)))
        start = seconds()
        with Peak() as fit:
            medmtl(["fit", f"--config={path}", f"--run={run}", f"--data.cache={cache}"])
        end = seconds()
        with Peak() as test:
            medmtl(["test", f"--run={run}"])
        return {
            "seconds": {
                "fit: checking and loading": MARKS["step 0"] - start,
                "fit: a step": (MARKS["end"] - MARKS["step 1"]) / (STEPS - 1),
                "fit: validation, calibration, signatures": end - MARKS["end"],
                "test": seconds() - end,
            },
            "megabytes": {"fit": fit.megabytes, "test": test.megabytes},
        }


def verdicts(images: int) -> dict[str, dict[str, float]]:
    """Time and memory of fitting the default detector to images of five tasks, and of a verdict."""
    torch.manual_seed(0)
    predictor = VolumePredictor(UNet(**NETWORK).eval(), (16, 16, 16), overlap=0.25, window_batch=4)  # type: ignore[arg-type]
    observer, preprocessing = Observer.serving(ByTask(), predictor, LAYERS), Preprocessing((1, 1, 1), None)

    def observed(number: int) -> Evidence:
        image = MetaTensor(torch.randn(1, 20, 20, 20, generator=torch.Generator().manual_seed(number)))
        task = f"task {number % 5}"
        return observer({preprocessing: image}, image, task, f"case {number}", f"patient {number}")[0]

    with torch.inference_mode():
        training = [observed(number) for number in range(images)]
        held_out = [observed(images + number) for number in range(images // 3)]
        new = [observed(2 * images + number) for number in range(10)]
        with Peak() as peak:
            start = seconds()
            detector = ConformalDetector.fit(ByTask(), training, held_out, 0.05)
            detector.above_threshold()
            assert isinstance(detector.detector, ByTask)
            fitted = seconds()
            for image in new:
                detector(image)
            end = seconds()
    found = {"fitting the detector": fitted - start, "a verdict": (end - fitted) / len(new)}
    return {"seconds": found, "megabytes": {"fitting": peak.megabytes}}


def larger(cases: int) -> dict[str, dict[str, float]]:
    """Time and memory of steps on volumes of 64 voxels a side, of which 3,000 take 4 GB, within 4 GB."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    with TemporaryDirectory() as folder:
        os.environ["MEDMTL_CACHE"] = f"{folder}/cache"
        path, start = Path(folder, "growth.json"), seconds()
        chosen = config(Path(folder), 1, cases, 64)
        path.write_text(json.dumps(chosen | {"spectral": {"layers": []}}))
        with Peak() as fit:
            options = ["--data.cache=disk", "--data.val=0", "--data.test=0"]
            medmtl(["fit", f"--config={path}", f"--run={folder}/run", *options])
        kept = sum(each.stat().st_size for each in Path(folder, "cache").rglob("*.safetensors")) / 1e6
        step = (MARKS["end"] - MARKS["step 1"]) / (STEPS - 1)
        times = {"fit: checking and loading": MARKS["step 0"] - start, "fit: a step": step}
        return {"seconds": times, "megabytes": {"fit": fit.megabytes, "on disk": kept}}


def drawing(pairs: int) -> dict[str, float]:
    """CPU time of batches of patches drawn from memory, of those from disk; interleaved, with its 95 % interval."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        os.environ["MEDMTL_CACHE"] = f"{folder}/cache"
        write_cases(Path(folder, "T"), 20, 96)
        task = Task(f"{folder}/T", "MR", (1, 1, 1), ["organ"], layout=Folders(organs={"organ": 1}))
        loaders = []
        for cache in ("memory", "disk"):
            data = MultiTaskData({"T": task}, (48, 48, 48), batches=5, cache=cache)  # type: ignore[arg-type]
            data.setup("fit")
            loaders.append(data.train_dataloader())
        ratios = []
        for number in range(pairs + 1):
            taken = []
            for loader in loaders:
                loader.sampler.set_epoch(number)  # type: ignore[union-attr]
                start = seconds()
                list(loader)
                taken.append(seconds() - start)
            if number:  # the first warms up
                ratios.append(taken[0] / taken[1])
    ends = bootstrap((ratios,), np.mean, random_state=0).confidence_interval
    return {"mean": float(np.mean(ratios)), "low": float(ends.low), "high": float(ends.high), "pairs": pairs}


MEASURES: dict[str, Callable[[int], dict[str, dict[str, float]]]] = {
    "cases in memory": lambda cases: commands(1, cases, 24, "memory"),
    "cases on disk": lambda cases: commands(1, cases, 24, "disk"),
    "tasks": lambda tasks: commands(tasks, 10, 24, "memory"),
    "voxels": lambda voxels: commands(1, 10, round(voxels ** (1 / 3)), "memory"),
    "bank": verdicts,
    "larger than memory": larger,
}


def measure(axis: str, size: int) -> dict[str, dict[str, float]]:
    """One point, in this process."""
    torch.set_num_threads(1)
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return MEASURES[axis](size)
    except BaseException:
        print(said.getvalue())
        raise


def slope(sizes: Iterable[int], values: Iterable[float]) -> float:
    """Of a line through the logarithms."""
    return float(np.polyfit(np.log(list(sizes)), np.log(np.maximum(list(values), 1e-9)), 1)[0])


def with_slopes(points: dict[int, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """The points of an axis, and the slope of each quantity, over all and over the upper half of the points."""
    sizes, found = list(points), {}
    for unit in ("seconds", "megabytes"):
        for name in next(iter(points.values()))[unit]:
            values = [points[size][unit][name] for size in sizes]
            upper = min(len(sizes) // 2, len(sizes) - 2)
            found[f"{name} ({unit})"] = {
                "values": values,
                "slope": slope(sizes, values),
                "slope_at_the_end": slope(sizes[upper:], values[upper:]),
            }
    return {"sizes": sizes, "found": found}


def draw(rows: dict[str, Any], path: Path) -> None:
    """One figure: CPU time against each size."""
    names = {
        "cases on disk": "cases",
        "tasks": "tasks of 10 cases",
        "voxels": "voxels of a volume",
        "bank": "images of the bank",
    }
    names = {key: label for key, label in names.items() if key in rows}
    figure = Figure((10, 3.2), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True)
    for axis, (key, label) in zip(axes, names.items(), strict=True):
        for name, each in rows[key]["found"].items():
            plain, _, unit = name.rpartition(" (")
            if unit == "seconds)":
                colour, marker = LOOK[plain]
                axis.loglog(rows[key]["sizes"], each["values"], color=colour, marker=marker, ms=4, lw=1.2, label=plain)
        low, high = rows[key]["sizes"][0], rows[key]["sizes"][-1]
        axis.loglog([low, high], [0.02, 0.02 * high / low], color="0.6", lw=0.8, ls=":", label="linear")
        shown = [f"{round(size ** (1 / 3))}³" if key == "voxels" else f"{size:,}" for size in rows[key]["sizes"]]
        axis.set_xticks(rows[key]["sizes"], shown, fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, lw=0.5)
    axes[0].set_ylabel("CPU time (s)")
    handles = {text: line for axis in axes for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="measure these alone")
    parser.add_argument("--quick", action="store_true", help="the smallest points alone")
    parser.add_argument("--figure", type=Path, help="draw the times into this file")
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.is_file() else {}
    found = rows.get("growth", {})
    if not given.quick:
        found["drawing"] = each = drawing(PAIRS)
        interval = f"{each['mean']:.3f} [{each['low']:.3f}, {each['high']:.3f}]"
        print(f"drawing patches from memory, of the time from disk: {interval} over {PAIRS} pairs")
    for axis in given.axes:
        points = {}
        for size in AXES[axis][: QUICK if given.quick else None]:
            with multiprocessing.get_context("fork").Pool(1) as pool:
                points[size] = pool.apply(measure, (axis, size))
            print(f"{axis}, {size:,}: {json.dumps(points[size])}", file=sys.stderr, flush=True)
        found[axis] = with_slopes(points)
        print(f"\n| {axis} | {' | '.join(f'{size:,}' for size in points)} | slope | at the end |")
        print("|---|" + "---|" * (len(points) + 2))
        for name, each in found[axis]["found"].items():
            values = " | ".join(f"{value:.3g}" for value in each["values"])
            worse = " (worse than linear)" if each["slope_at_the_end"] > AT_MOST else ""
            print(f"| {name} | {values} | {each['slope']:.2f} | {each['slope_at_the_end']:.2f}{worse} |", flush=True)
        given.out.write_text(json.dumps({**rows, "growth": found}, indent=1) + "\n")
    if given.figure is not None:
        draw(found, given.figure)


if __name__ == "__main__":
    main()
