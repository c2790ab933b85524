"""What the loaders of `MultiTaskData` run through: patches of a cached union, and whole volumes one at a time."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from medmtl.data.caches import Prepared
from medmtl.data.case import Case
from medmtl.data.centres import Centres
from medmtl.data.patches import random_patch, seeded_patch
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.sampling import Draw, Share
from medmtl.data.task_cases import TaskCases
from medmtl.data.transforms import LoadScan
from medmtl.distributed import place


class Union(Dataset[dict[str, torch.Tensor]]):
    """The prepared cases of all tasks, from which augmented patches are drawn.

    Args:
        caches: task -> its prepared cases (`LoadPair`).
        patch_size: voxels a side.
        foreground: probability of a patch centred in the organ, or in one of several classes.
        labels: task -> what its labels mean and mark.
        unmirrored: tasks whose patches are not mirrored.
    """

    def __init__(
        self,
        caches: Mapping[str, Prepared],
        patch_size: Sequence[int],
        foreground: float,
        labels: Mapping[str, TaskCases],
        unmirrored: Collection[str] = (),
    ) -> None:
        self.caches = caches
        self.labels = labels
        self.most = max(len(labels[task].classes.names) for task in caches)
        self.numbers = {task: number for number, task in enumerate(caches)}
        self.patch_size = patch_size
        self.draw_patch = {
            task: random_patch(patch_size, foreground, len(labels[task].classes.parts) > 1, task not in unmirrored)
            for task in caches
        }

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Return `image` `(C, H, W, D)` float32, `label` `(1, H, W, D)` uint8, number of `task` and name of `case`.

        `marked` `(K,)` says for each class of the task whether the labels of the case mark it; K is the most that a
        task has.
        """
        item, labels = self.caches[draw.task][draw.case], self.labels[draw.task]
        patch = seeded_patch(self.draw_patch[draw.task], item, Centres(item, self.patch_size), draw.seed)
        missing = labels.missing.get(item["case"], frozenset())
        marked = torch.zeros(self.most, dtype=torch.bool)
        marked[: len(labels.classes.names)] = torch.tensor([name not in missing for name in labels.classes.names])
        where = {"task": self.numbers[draw.task], "case": item["case"]}
        return {"image": patch["image"], "label": patch["label"], **where, "marked": marked}


class Scans(Dataset[dict[str, Any]]):
    """Whole volumes of one task or folder, each with where it comes from.

    Args:
        dataset: the task or folder.
        volumes: what `LoadScan` returns, by index.
        own: the preprocessing of the task; None where the images have no task.
        labels: what its labels mean and mark; None where the images have no task.
    """

    def __init__(
        self,
        dataset: str,
        volumes: "Prepared | Volumes",
        own: Preprocessing | None = None,
        labels: TaskCases | None = None,
    ) -> None:
        self.dataset = dataset
        self.volumes = volumes
        self.own = own
        self.labels = labels

    def __len__(self) -> int:
        """Number of volumes."""
        return len(self.volumes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what `LoadScan` returns, with `dataset`, `own`, and the classes that the labels do not mark."""
        scan = self.volumes[index]
        missing = {} if self.labels is None else self.labels.missing
        unmarked = missing.get(scan["case"], frozenset())
        return {**scan, "dataset": self.dataset, "own": self.own, "missing": unmarked}


class Volumes(Dataset[dict[str, Any]]):
    """Cases that are loaded on access and not cached.

    Args:
        cases: the cases.
        load: how one is loaded.
    """

    def __init__(self, cases: Sequence[Case], load: LoadScan) -> None:
        self.cases = cases
        self.load = load

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what `LoadScan` returns."""
        return self.load(self.cases[index])


def one_at_a_time(parts: Iterable[Dataset[dict[str, Any]]]) -> DataLoader[dict[str, Any] | None]:
    """This process's share of the volumes; None where it has run out, see `Share`."""
    share = Share(ConcatDataset(parts), *place())
    return DataLoader(share, batch_size=None, shuffle=False, collate_fn=_as_it_is)


def _as_it_is(item: Any) -> Any:
    return item
