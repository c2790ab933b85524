"""MultiTaskData: the union of several tasks for training, their volumes and OOD images for scoring."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from medmtl.data.caches import Caches, Prepared
from medmtl.data.case import Case
from medmtl.data.check import check_cases, check_contradictions, check_image, check_names, check_task
from medmtl.data.classes import Classes
from medmtl.data.loaders import Scans, Union, Volumes, one_at_a_time
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.sampling import BalancedSampler
from medmtl.data.splits import CALIBRATION, apply_splits, cases_by_part, split_patients
from medmtl.data.task import OODImages, Task, classes_of, data_note, has_heads, resolve_root
from medmtl.data.task_cases import TaskCases, ood_cases, task_cases
from medmtl.data.transforms import LoadPair, LoadScan
from medmtl.distributed import place
from medmtl.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

Splits = dict[str, dict[str, list[str]]]


class MultiTaskData(pl.LightningDataModule):
    """Several segmentation tasks as one data set.

    Args:
        tasks: name -> task. Names appear in metrics and reports.
        patch_size: training patch and sliding window, voxels a side in the working space.
        ood: name -> unlabelled images for the out-of-distribution part of the test.
        held_out: tasks of `tasks` to leave out of the training; their test cases are out-of-distribution input.
        batch_size: patches in a batch of each process.
        batches: training batches of each process in an epoch (after which the validation cases are scored).
        balance: exponent a of P(task) proportional to n_task^a; 0 = equal tasks, 1 = equal cases.
        foreground: probability that a patch is centred in the foreground.
        val: share of patients for validation.
        test: share of patients for the test.
        calibration: share of patients by whom temperatures and the OOD threshold are estimated and nothing else; 0: by
            the validation patients, who choose the checkpoint, too.
        split_seed: another seed gives another split.
        splits: split file to use instead, such as the `splits.json` of another run; cases it does not list are not
            used.
        workers: processes that draw patches; 0 = the training process itself.
        seed: seed of the patches (the command line links it to `seed_everything`).
        cache: where prepared volumes are kept: in memory, on disk, or auto: in memory if they take less than half of
            what is available. Those on disk lie in `volumes` of `$MEDMTL_CACHE` (or of `~/.cache/medmtl`), where later
            runs find them, and only patches are read of them; `medmtl data cache` lists and clears them.
        outputs: see `Segmenter` (the command line links it to `model.outputs`).
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        patch_size: tuple[int, int, int],
        ood: dict[str, OODImages] | None = None,
        held_out: list[str] | None = None,
        batch_size: int = 4,
        batches: int = 250,
        balance: float = 0.5,
        foreground: float = 0.5,
        val: float = 0.2,
        test: float = 0.2,
        calibration: float = 0.0,
        split_seed: int = 0,
        splits: str | None = None,
        workers: int = 0,
        seed: int = 0,
        cache: Literal["auto", "memory", "disk"] = "auto",
        outputs: Literal["shared", "per_task"] | None = None,
    ) -> None:
        super().__init__()
        self.per_task = has_heads(outputs, [task.classes for task in tasks.values()])
        self.tasks = {name: task.with_head(name if self.per_task else None) for name, task in tasks.items()}
        self.patch_size = patch_size
        self.ood = ood or {}
        self.held_out = held_out or []
        self.batch_size = batch_size
        self.batches = batches
        self.balance = balance
        self.foreground = foreground
        self.fractions = {"val": val, "test": test, "calibration": calibration}
        self.split_seed = split_seed
        self.split_file = None if splits is None else Path(splits).expanduser()
        self.workers = workers
        self.seed = seed
        self.cache = cache
        self.batches_done = 0  # of the first epoch that is drawn, by the training that is resumed
        self.splits: Splits = {}
        self._found: dict[str, TaskCases] = {}
        self._cases: dict[str, Sequence[Case]] = {}
        self._part_of: dict[str, str] = {}
        self._stage = ""
        if not 0 <= foreground <= 1:
            raise ConfigError(f"data.foreground={foreground}", fix="use a probability from 0 to 1")
        if min(batch_size, batches, *patch_size) < 1:
            raise ConfigError("data.batch_size, data.batches or data.patch_size is below 1", fix="use 1 or more")
        check_names(tasks, self.ood, self.held_out)

    @property
    def trained(self) -> dict[str, Task]:
        """The tasks that the network is trained on."""
        return {name: task for name, task in self.tasks.items() if name not in self.held_out}

    @property
    def heads(self) -> dict[str, Classes] | None:
        """Trained task -> the classes that the network has outputs for; None with one output for all tasks.

        Raises:
            ConfigError: the classes of a task are not known by value; the command line looks them up first.
        """
        return {name: classes_of(task) for name, task in self.trained.items()} if self.per_task else None

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return len(next(iter(self.trained.values())).channels)

    @property
    def note(self) -> str:
        """The note that every figure of these data must carry; empty for patient data."""
        return data_note(task.root for task in self.tasks.values())

    @property
    def preprocessings(self) -> list[Preprocessing]:
        """The distinct preprocessings of the trained tasks: what an image without a task is run through."""
        return list(dict.fromkeys(task.preprocessing for task in self.trained.values()))

    def setup(self, stage: str) -> None:
        """List the cases, split them by patient, and check every file before anything is computed.

        Raises:
            DataError: a case cannot be used; names task, case and file.
        """
        if self._cases:
            return
        roots = {name: task.root for name, task in self.tasks.items()}
        roots |= {name: folder.root for name, folder in self.ood.items()}
        places = [f"{name} from {resolve_root(name, root).absolute()}" for name, root in roots.items()]
        logger.info("reads %s", ", ".join(places))  # before it does: a checkpoint of unknown origin may name any folder
        found = {name: task_cases(name, task) for name, task in self.tasks.items()}
        if not self.per_task:
            found = {name: each.of_one_output() for name, each in found.items()}
            check_contradictions({name: found[name] for name in self.trained})
        cases: dict[str, Sequence[Case]] = {name: task.cases for name, task in found.items()}
        cases |= {name: ood_cases(name, folder) for name, folder in self.ood.items()}
        if stage == "fit":
            for name, task in found.items():
                check_task(name, task.cases, task.classes.foreground, task.declared)
        for name in self.ood:
            for case in cases[name]:
                check_image(name, case)
        self._found, self._cases, self._stage = found, cases, stage
        if self.split_file is None:
            patients = {name: [case.patient for case in cases[name]] for name in self.tasks}
            numbers = {name: task.fold for name, task in self.tasks.items() if task.fold is not None}
            folds = {name: found[name].folds(name, number) for name, number in numbers.items()}
            self._part_of = split_patients(patients, seed=self.split_seed, folds=folds, **self.fractions)
            self.splits = {name: self._split(name) for name in self.tasks}
        else:
            patient_of = {name: self.patients(name) for name in self.tasks}
            self.splits, self._part_of = apply_splits(self.split_file, patient_of)
        for name, parts in self.splits.items():
            counts = ", ".join(f"{len(cases)} {part}" for part, cases in parts.items())
            logger.info("task %s: %s%s", name, counts, " (held out)" if name in self.held_out else "")

    def state_dict(self) -> dict[str, Any]:
        """The split by case and by patient, kept in every checkpoint."""
        return {"splits": self.splits, "patients": self._part_of}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Use the split that the checkpoint was trained with, whatever the configuration has now.

        Tasks that are not in the checkpoint are split now, but patients that are in it stay on their side.

        Raises:
            DataError: a case that is needed is gone.
        """
        every = tuple(dict.fromkeys(part for parts in state_dict["splits"].values() for part in parts))
        calibrating = CALIBRATION if CALIBRATION in every else "val"
        needed = {"fit": every, "ood": every, "calibrate": (calibrating,)}.get(self._stage, ("test",))
        for name in [name for name in state_dict["splits"] if name in self.tasks]:
            known = {case.name for case in self._cases[name]}
            gone = [case for part in needed for case in state_dict["splits"][name][part] if case not in known]
            if gone:
                raise DataError(
                    f"task {name}, case {gone[0]}: a case of the checkpoint is not in {self.tasks[name].root}",
                    fix="point `root` to the data that the checkpoint was trained on",
                )
        self._part_of = {**self._part_of, **state_dict["patients"]}
        kept = state_dict["splits"]
        own = self.splits if self.split_file else {name: self._split(name) for name in set(self.tasks) - set(kept)}
        self.splits = {name: kept.get(name) or own[name] for name in self.tasks}

    @property
    def calibration_part(self) -> str:
        """The part of the split by which temperatures and threshold are estimated: its own, or validation."""
        return CALIBRATION if any(CALIBRATION in parts for parts in self.splits.values()) else "val"

    def _split(self, name: str) -> dict[str, list[str]]:
        return cases_by_part(self.patients(name), self._part_of)

    def labels(self, name: str) -> TaskCases:
        """What a task found in its folder: cases, and what their labels mean."""
        return self._found[name]

    def listed(self, name: str) -> list[Case]:
        """All cases of a task or OOD folder."""
        return list(self._cases[name])

    def patients(self, name: str) -> dict[str, str]:
        """Case id -> patient, of all cases of a task."""
        return {case.name: case.patient for case in self._cases[name]}

    def part_of(self, patient: str) -> str | None:
        """The part of the split in which a patient is; None if in no task."""
        return self._part_of.get(patient)

    def cases(self, name: str, part: str) -> list[Case]:
        """The cases of a task in one part of the split."""
        chosen = set(self.splits[name][part])
        return [case for case in self._cases[name] if case.name in chosen]

    @cached_property
    def _caches(self) -> Caches:
        """The cases of the trained tasks that a training or a calibration goes through more than once."""
        part, wanted = "val" if self._stage == "fit" else self.calibration_part, {}
        for name, task in self.trained.items():
            prepared = task.preprocessing, self._found[name].classes, self._found[name].ignore
            wanted[name, "train"] = self.cases(name, "train"), LoadPair(*prepared)
            wanted[name, part] = self.cases(name, part), LoadScan([prepared[0]], *prepared[1:])
        return Caches(wanted, self.cache)

    def training_cache(self, name: str) -> Prepared:
        """The training cases of a task in the working space, not augmented."""
        return self._caches[name, "train"]

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches `{"image": (B, C, H, W, D), "label": (B, 1, H, W, D), ...}` drawn from the union, see `Union`."""
        caches = {name: self.training_cache(name) for name in self.trained}
        self._caches.say("train")
        rank, processes = place()
        sampler = BalancedSampler(
            {name: len(cache) for name, cache in caches.items()},
            self.balance,
            draws=self.batches * self.batch_size * processes,
            seed=self.seed,
            rank=rank,
            processes=processes,
            done=self.batches_done * self.batch_size,
        )
        unmirrored = [name for name, task in self.trained.items() if not task.mirrored and self.per_task]
        union = Union(caches, self.patch_size, self.foreground, self._found, unmirrored)
        return DataLoader(union, self.batch_size, sampler=sampler, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[dict[str, Any] | None]:
        """Validation volumes of all trained tasks, one at a time, each under its own preprocessing.

        `medmtl calibrate` runs over those of `calibration_part`.

        Raises:
            DataError: a case cannot be used; names task, case and file.
        """
        parts: list[Dataset[dict[str, Any]]] = []
        part = self.calibration_part if self._stage == "calibrate" else "val"
        for name, task in self.trained.items():
            found = self._found[name]
            if self._stage != "fit":  # a training has checked every case
                check_cases(name, self.cases(name, part), found.classes.foreground, found.declared)
            parts.append(Scans(name, self._caches[name, part], task.preprocessing, found))
        self._caches.say(part)
        return one_at_a_time(parts)

    def calibration_dataloader(self) -> DataLoader[dict[str, Any] | None]:
        """Volumes of `calibration_part` of all trained tasks: what the verdicts are calibrated on.

        Those that are prepared for the validation are not read again, whatever has become of their files since.
        """
        parts, part = [], self.calibration_part
        for name, task in self.trained.items():
            found = self._found[name]
            load = LoadScan([task.preprocessing], found.classes, found.ignore)
            ready = self._caches.ready(name, part)
            volumes = self._caches[name, part] if ready else Volumes(self.cases(name, part), load)
            parts.append(Scans(name, volumes, task.preprocessing, found))
        return one_at_a_time(parts)

    def test_dataloader(self) -> DataLoader[dict[str, Any] | None]:
        """Test volumes of all tasks and all OOD images, one at a time, under every preprocessing.

        Raises:
            DataError: a case cannot be used; names task, case and file.
        """
        for name, found in self._found.items():
            check_cases(name, self.cases(name, "test"), found.classes.foreground, found.declared)
        parts = [self._every_preprocessing(name, "test") for name in self.tasks]
        for name in self.ood:
            volumes = Volumes(self._cases[name], LoadScan(self.preprocessings, classes=None))
            parts.append(Scans(name, volumes))
        return one_at_a_time(parts)

    def _every_preprocessing(self, name: str, part: str) -> Scans:
        task, found, known = self.tasks[name], self._found[name], name not in self.held_out
        load = LoadScan(self.preprocessings, found.classes if known else None, found.ignore)
        volumes = Volumes(self.cases(name, part), load)
        return Scans(name, volumes, task.preprocessing, found) if known else Scans(name, volumes)
