"""Observes the images of a benchmark that are not in the cache, in one process or several."""

import logging
import math
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from medmtl.distributed import usable_cores
from medmtl.errors import ConfigError, RunError
from medmtl.io.volume import extent_mm
from medmtl.models.ensemble import Members
from medmtl.ood_benchmark import worker
from medmtl.ood_benchmark.cache import Cache, Observation
from medmtl.ood_benchmark.images import Image
from medmtl.ood_benchmark.options import Options
from medmtl.startup import call_pickled
from medmtl.training.trained import Trained

logger = logging.getLogger(__name__)

REPORTS = 10  # of the progress in a log


def cache_of(trained: Trained, options: Options, members: Members | None, folder: Path) -> Cache:
    """The cache of a run's observations; those of other weights, layers, windows or members have other keys.

    Raises:
        ConfigError: neither the options nor the run name layers.
    """
    layers = options.layers or trained.layers
    if not layers:
        raise ConfigError("the run names no spectral.layers", fix="add --layers=[NAME,...] or `layers`")
    predictor = trained.segmenter.predictor
    naming = worker.verdict_of(trained, layers)
    facts = {
        "weights": trained.weights,
        "layers": layers,
        "pooled": options.pooled_layers,
        "windows": [*predictor.patch_size, predictor.overlap],
        "seed": options.seed,
        "detector": None if naming is None else naming.configured,
        **({} if members is None else {"ensemble": members.scaled_as}),
    }
    return Cache(folder, facts)


def observe(
    images: Sequence[Image],
    trained: Trained,
    members: Members | None,
    checkpoint: Path,
    options: Options,
    cache: Cache,
    console: Console,
) -> dict[Image, str]:
    """Observe all images that the cache does not hold.

    Args:
        images: to observe.
        trained: the run.
        members: networks and passes of an ensemble.
        checkpoint: where further processes find the run.
        options: layers, seed, ensemble and processes.
        cache: where the observations are and go.
        console: shows progress and the time left.

    Returns:
        Image -> key of its observation. It is safe to stop at any time: observations so far are kept.

    Raises:
        RunError: a process was killed, as happens where memory runs out.
    """
    keys = {image: cache.key(image) for image in images}
    missing = [image for image in images if not cache.holds(keys[image])]
    if not missing:
        return keys
    processes = min(options.processes or (1 if torch.cuda.is_available() else usable_cores()), len(missing))
    logger.info("%d of %d images to observe, %d in parallel", len(missing), len(images), processes)
    efforts = {image: _effort(image, trained.segmenter.predictor.patch_size) for image in missing}
    layers = options.layers or trained.layers
    arguments = (layers, options.pooled_layers, cache, options.seed)
    if processes == 1:
        alone = worker.Worker(trained.segmenter, *arguments, members, worker.verdict_of(trained, layers))
        observed = _alone(missing, keys, alone)
    else:
        observed = _together(
            missing, keys, partial(worker.start, checkpoint, *arguments, options.ensemble, trained.trusted), processes
        )
    with _Watch(console, efforts) as progress:
        for image in observed:
            progress.advance(image)
    return keys


def recall(image: Image, key: str, cache: Cache) -> Observation:
    """Read an observation.

    Raises:
        RunError: its file is gone or damaged.
    """
    found = cache.read(key)
    if found is None:
        raise RunError(f"the observation of {image} cannot be read", fix="run the same command again")
    return found


def _alone(images: Sequence[Image], keys: Mapping[Image, str], work: worker.Worker) -> Iterator[Image]:
    for image in images:
        work(image, keys[image])
        yield image


def _together(
    images: Sequence[Image], keys: Mapping[Image, str], start: Callable[[], None], processes: int
) -> Iterator[Image]:
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    pool = ProcessPoolExecutor(processes, context, call_pickled, (pickle.dumps(start),))
    try:
        waiting = {pool.submit(worker.work, image, keys[image]): image for image in images}
        for future in as_completed(waiting):
            future.result()
            yield waiting[future]
    except BrokenProcessPool:
        fix = "observed images are kept, run the same command again, with fewer --processes if memory ran out"
        raise RunError("a process that observed images was killed", fix=fix) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _effort(image: Image, window: Sequence[int]) -> float:
    """Approximate voxels that the network processes of an image; the remaining time is estimated from them."""
    sides = extent_mm(image.case.image_files[0])
    return sum(
        math.prod(
            max(side / step, least) for side, step, least in zip(sides, preprocessing.spacing, window, strict=True)
        )
        for preprocessing in image.preprocessings
    )


class _Watch:
    """Shows progress and remaining time: a bar on a terminal, a few lines elsewhere."""

    def __init__(self, console: Console, efforts: Mapping[Image, float]) -> None:
        self._efforts, self._images, self._done = efforts, 0, 0.0
        self._console = console
        columns = (TextColumn("observing images"), BarColumn(), TextColumn("{task.fields[images]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=sum(efforts.values()), images=self._count())
        self._reported = 0

    def __enter__(self) -> "_Watch":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, image: Image) -> None:
        self._images += 1
        self._done += self._efforts[image]
        self._bar.update(self._task, completed=self._done, images=self._count())
        tenth = int(REPORTS * self._images / len(self._efforts))
        if not self._console.is_terminal and tenth > self._reported:
            self._reported = tenth
            left = self._bar.tasks[0].time_remaining
            known = "" if left is None else f", about {left / 60:.0f} min left"
            self._console.print(f"observed {self._count()} images{known}", highlight=False)

    def _count(self) -> str:
        return f"{self._images} of {len(self._efforts)}"
