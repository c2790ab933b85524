"""Memory that this process may still use, and what prepared volumes take of it."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from medmtl.data.case import Case
from medmtl.data.transforms import LoadPair, LoadScan
from medmtl.errors import DataError
from medmtl.files import TextError, read_text
from medmtl.io.volume import opened

KB = 1024  # of /proc/meminfo, bytes
# File of the limit, of what is used, and the entries of memory.stat that are given back when memory is needed: of
# version 2 of control groups, and of version 1.
GROUPS = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that is free for this process, bytes: of the machine, or of its control groups where those allow less.

    Args:
        root: of the file system.

    Returns:
        None where the system does not say it.
    """
    try:
        lines = read_text(root / "proc/meminfo").splitlines()
        machine = next(int(line.split()[1]) * KB for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, TextError):
        return None
    return min([machine, *_left_in_groups(root)])


def prepared_bytes(cases: Iterable[Case], load: LoadPair | LoadScan) -> int:
    """What prepared cases take, by the headers of their images; the indices of the foreground apart.

    What cannot be opened is refused where it is needed, and takes nothing.
    """
    total = 0
    for case in cases:
        with suppress(DataError), opened(case.image_files[0]) as stored:
            voxels = int(np.prod(stored.shape))
            cubic_mm = voxels * abs(float(np.linalg.det(stored.affine[:3, :3])))
            total += load.bytes_of(voxels, cubic_mm, len(case.channels))
    return total


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group that this process is in still allows, bytes."""
    try:
        lines = read_text(root / "proc/self/cgroup").splitlines()
    except (OSError, TextError):
        return
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("" if number == "0" else "memory")
        own = mounted / name.lstrip("/")
        # In a container the name may be that of outside, and the mounted group its own.
        for folder in (own, *own.parents):
            if not folder.is_relative_to(mounted):
                break
            left = _left_in(folder)
            if left is not None:
                yield left


def _left_in(folder: Path) -> int | None:
    for limit, used, returned in GROUPS:
        try:
            most = read_text(folder / limit).strip()
            stat = dict(line.split()[:2] for line in read_text(folder / "memory.stat").splitlines())
            if most != "max":
                return max(int(most) - int(read_text(folder / used)) + sum(int(stat[key]) for key in returned), 0)
        except (OSError, ValueError, KeyError, TextError):
            continue
    return None
