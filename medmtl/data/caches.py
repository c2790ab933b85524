"""Caches: the prepared cases of a training, which are loaded once, into memory or onto disk."""

import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from typing import Any, Literal, Protocol

import torch
from monai.data import CacheDataset
from torch.utils.data import Dataset

from medmtl.data.case import Case
from medmtl.data.memory import available_bytes, prepared_bytes
from medmtl.data.store import Store
from medmtl.data.transforms import LoadPair, LoadScan
from medmtl.distributed import gather, place, usable_cores
from medmtl.errors import RunError
from medmtl.progress import ProgressLine

logger = logging.getLogger(__name__)

SHARE = 0.5  # of the available memory that prepared cases may take; network, gradients and a test need some, too
MOST_THREADS = 8  # that prepare cases, each of which holds one

Part = tuple[str, str]


class Prepared(Protocol):
    """Prepared cases of one task."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """What `LoadPair` or `LoadScan` returned for a case."""

    @property
    def size(self) -> int:
        """Bytes that they take."""


class Caches:
    """The prepared cases of a training or a calibration, each part loaded when it is first asked for.

    Args:
        wanted: task and part -> its cases, and how they are loaded.
        where: `memory`, `disk`, or `auto`: on disk where memory is too small.
    """

    def __init__(
        self,
        wanted: Mapping[Part, tuple[Sequence[Case], LoadPair | LoadScan]],
        where: Literal["auto", "memory", "disk"],
    ) -> None:
        self._wanted = wanted
        self._store = Store() if where == "disk" or (where == "auto" and self._too_large()) else None
        self._loaded: dict[Part, InMemory | OnDisk] = {}
        self._shown = place()[0] == 0
        self._line = ProgressLine("loading", sum(len(cases) for cases, _ in wanted.values()), "cases")

    def ready(self, task: str, part: str) -> bool:
        """Whether a part is loaded."""
        return (task, part) in self._loaded

    def __getitem__(self, part: Part) -> Prepared:
        """The cases of a task and part."""
        if part not in self._loaded:
            cases, load = self._wanted[part]
            try:
                self._loaded[part] = (
                    InMemory(cases, load, self._count)
                    if self._store is None
                    else OnDisk(cases, load, self._store, self._count)
                )
            except BaseException:  # the line hides the cursor of a terminal
                self._line.close()
                raise
        return self._loaded[part]

    def _count(self, cases: int = 1) -> None:
        """Count what was loaded, in any thread; the first process shows it."""
        if self._shown and cases > 0:
            self._line.advance(cases)

    def say(self, part: str) -> None:
        """Log what is loaded of a part, over all tasks."""
        caches = [cache for (_, own), cache in self._loaded.items() if own == part]
        cases, megabytes = sum(map(len, caches)), sum(cache.size for cache in caches) / 1e6
        where = "in memory" if self._store is None else f"in {self._store.folder}"
        name = {"train": "training"}.get(part, "validation")
        logger.info("%s: %d cases %s, %.0f MB", name, cases, where, megabytes)

    def _too_large(self) -> bool:
        """Whether the cases need too much memory, in any process: all do the same."""
        available, machine = available_bytes(), platform.node()
        processes = gather({place()[0]: machine}).count(machine)
        needed = processes * sum(prepared_bytes(cases, load) for cases, load in self._wanted.values())
        too_large = available is not None and needed > SHARE * available
        if too_large:
            numbers = needed / 1e9, (available or 0) / 1e9
            logger.info("prepared volumes take about %.1f GB, of %.1f GB available: kept on disk", *numbers)
        return any(gather({0: too_large}))


class InMemory(CacheDataset):
    """Cases that are loaded once and kept in memory.

    Args:
        cases: the cases.
        load: how one is loaded.
        loaded: called after each, in any thread.
    """

    def __init__(self, cases: Sequence[Case], load: LoadPair | LoadScan, loaded: Callable[[], None]) -> None:
        self._loaded = loaded
        super().__init__(cases, load, num_workers=_threads(), copy_cache=False, progress=False)
        del self._loaded  # what shows the progress cannot go to other processes

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        self._loaded()
        return item

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(_bytes(self[index]) for index in range(len(self)))


class OnDisk(Dataset[dict[str, Any]]):
    """Cases that are prepared once and kept in files; a patch reads only its own voxels.

    Nothing but names stays in memory: a file is mapped for each patch, and let go with it.

    Args:
        cases: the cases.
        load: how one is loaded.
        store: of the files.
        loaded: told how many more are there, in any thread.
    """

    def __init__(
        self, cases: Sequence[Case], load: LoadPair | LoadScan, store: Store, loaded: Callable[[int], None]
    ) -> None:
        self._cases, self._load, self._store = cases, load, store
        store.make_folder()
        with store.digests, _joined(ThreadPool(_threads())) as pool:
            self._paths = [store.path(about) for about in pool.imap(lambda case: store.about(case, load), cases)]
            # Several processes share out the work; what one made on another machine is made when it is asked for. Cases
            # of one content share a file.
            rank, processes = place()
            share = dict(list(zip(self._paths, cases, strict=True))[rank::processes])
            missing = [(path, case) for path, case in share.items() if store.read(path) is None]
            loaded(len(cases) - len(missing) * processes)
            for _ in pool.imap_unordered(lambda entry: store.make(*entry, load), missing):
                loaded(processes)
            gather({})

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what was loaded for a case; a file that was removed or damaged meanwhile is made again."""
        path, case = self._paths[index], self._cases[index]
        tensors = self._store.read(path)
        if tensors is None:
            self._store.make(path, case, self._load)
            tensors = self._store.read(path)
        if tensors is None:
            raise RunError(f"{path} cannot be kept", fix="keep the folder while a training uses it")
        return self._load.item(tensors, case)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in set(self._paths) if path.exists())


@contextmanager
def _joined(pool: ThreadPool) -> Iterator[ThreadPool]:
    """A pool of which no thread writes any more once the block has ended, by an error too."""
    try:
        yield pool
    finally:
        pool.terminate()
        pool.join()


def _threads() -> int:
    return min(usable_cores(), MOST_THREADS)


def _bytes(item: Mapping[str, Any]) -> int:
    tensors = [value for value in item.values() if isinstance(value, torch.Tensor)]
    tensors += [image for image in item.get("images", {}).values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
