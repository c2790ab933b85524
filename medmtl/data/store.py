"""Store: prepared volumes on disk, named by what they were made from, so that none is stale and runs share them."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import torch
from monai.data import MetaTensor

from medmtl.data.case import Case
from medmtl.data.digests import Digests
from medmtl.data.tensor_file import read_tensors, write_tensors
from medmtl.data.transforms import LoadPair, LoadScan
from medmtl.errors import DataError
from medmtl.files import cache_folder
from medmtl.version import __version__

logger = logging.getLogger(__name__)

FORMAT = 1  # changes when an entry means something else
LIBRARIES = ("torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK")  # that read and prepare
SUFFIX = ".safetensors"
UNFINISHED = 3600  # seconds after which a file that is not finished is what a crash left
AFFINE = ".affine"  # after the name of a tensor, in that of its affine


class Store:
    """Prepared volumes, a file each.

    The name of a file is a digest of all that decides what is in it: the content of the case's files, how they are
    prepared, and the versions that do it. So a file is never changed, runs share it without a lock, and what is damaged
    or was removed is made again.

    Args:
        folder: where they are; None: `volumes` in the folder of caches.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "volumes" if folder is None else folder
        self._facts = {
            "format": FORMAT,
            "medmtl": __version__,
            **{name: version(name) for name in LIBRARIES},
            # Sums over a volume are split by threads, and added up in another order by another kind of processor.
            "rounding": [torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()],
        }
        self.digests = Digests(self.folder / "digests.json")

    def about(self, case: Case, load: LoadPair | LoadScan) -> str:
        """All that decides an entry, as text; whatever the case is called.

        Raises:
            DataError: a header names voxels that are not there.
            OSError: a file cannot be read.
        """
        facts = {**self._facts, "files": self.digests.case(case), "load": load.facts}
        return json.dumps(facts, sort_keys=True)

    def path(self, about: str) -> Path:
        """Where an entry is, or will be."""
        return self.folder / f"{hashlib.sha256(about.encode()).hexdigest()[:40]}{SUFFIX}"

    def read(self, path: Path) -> dict[str, torch.Tensor] | None:
        """The tensors of an entry, mapped; None where there is none, or a damaged one, which is removed.

        Raises:
            OSError: it cannot be read.
        """
        try:
            tensors = read_tensors(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s is damaged (%s), and made again", path, error)
            path.unlink(missing_ok=True)
            return None
        affines = {name: tensors.pop(name) for name in list(tensors) if name.endswith(AFFINE)}
        for name, affine in affines.items():
            own = name.removesuffix(AFFINE)
            tensors[own] = MetaTensor(tensors[own], affine=affine)
        return tensors

    def make(self, path: Path, case: Case, load: LoadPair | LoadScan) -> None:
        """Prepare a case, and keep it.

        Args:
            path: of its entry.
            case: the case.
            load: how it is prepared.

        Raises:
            DataError: its files have changed since the entry was named, or cannot be used.
            OSError: the folder cannot be written to.
        """
        item = load(case)
        about = self.about(case, load)
        if self.path(about) != path:
            raise DataError(f"case {case.name}: its files have changed since they were checked", fix="start again")
        self.make_folder()  # it may have been removed meanwhile
        with self._written():
            write_tensors(path, _with_affines(load.tensors(item)), about)

    def make_folder(self) -> None:
        """Make the folder, before anything is written into it.

        Raises:
            OSError: it cannot be made.
        """
        with self._written():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # others need not see images of patients

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{error.strerror or error} (MEDMTL_CACHE names another folder for prepared volumes)"
            raise OSError(error.errno, what, str(self.folder)) from None

    def entries(self) -> dict[Path, int]:
        """The files of the store, with what a crash left of others -> bytes."""
        found: dict[Path, int] = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with suppress(FileNotFoundError):  # another process removed it
                state = path.stat()
                if not path.name.startswith(".") or time.time() - state.st_mtime > UNFINISHED:
                    found[path] = state.st_size
        return found

    def clear(self) -> None:
        """Remove everything. A training that uses it makes again what it needs."""
        for path in self.entries():
            path.unlink(missing_ok=True)
        self.digests.path.unlink(missing_ok=True)


def _with_affines(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    affines = {f"{name}{AFFINE}": each.affine for name, each in tensors.items() if isinstance(each, MetaTensor)}
    plain = {name: each.as_tensor() if isinstance(each, MetaTensor) else each for name, each in tensors.items()}
    return {**plain, **affines}
