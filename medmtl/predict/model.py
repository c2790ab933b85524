"""Model: a trained run as an object that segments scans and gives an OOD verdict for each."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from monai.data import MetaTensor

from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.task import Task
from medmtl.data.transforms import prepare_each, to_native
from medmtl.errors import ConfigError, DataError
from medmtl.io.input import MODALITIES
from medmtl.io.inputs import find_inputs, input_of
from medmtl.io.reader import Scan, read, scan_of
from medmtl.models.extract import Observer
from medmtl.models.mask_check import check_mask
from medmtl.ood.mask_rule import MaskVerdict, reason_texts
from medmtl.ood.verdict import Given, Verdict
from medmtl.predict.class_output import ClassOutput, volumes_ml
from medmtl.predict.prediction import Prediction
from medmtl.predict.warnings import choice_in_words, mask_warnings, verdict_warnings
from medmtl.quantity import CUBIC_MM
from medmtl.runs.folder import RunFolder
from medmtl.training.trained import Trained, load_trained

logger = logging.getLogger(__name__)

Precision = Literal["32", "16", "bf16"]
TYPES = {"16": torch.float16, "bf16": torch.bfloat16}


class Model:
    """A trained run that segments scans.

    Args:
        trained: network, tasks, scaling and OOD detector.
        name: of the checkpoint.
        precision: of the network's arithmetic; the OOD threshold was estimated in `32`, see `verdict_warnings`.
        window_batch: sliding windows per forward pass; as in the training if None.
        fast: check masks by their volume alone, without an additional pass over the mirrored image.
    """

    def __init__(
        self,
        trained: Trained,
        name: str,
        precision: Precision = "32",
        window_batch: int | None = None,
        fast: bool = False,
    ) -> None:
        self.name = name
        self.tasks: Mapping[str, Task] = trained.data.trained
        self.ood_detector = trained.spectral.ood_detector
        self.mask_rule = trained.spectral.mask_rule
        self.fast = fast
        self.alpha = trained.spectral.alpha
        self.scalings = trained.scaling.scalings if trained.scaling.active else None
        if self.scalings is not None:
            self.scalings.warn_if_old(name)
        self.predictor = trained.segmenter.predictor
        if window_batch is not None:
            self.predictor.window_batch = window_batch
        layers = trained.layers if self.ood_detector is not None else []
        detector = trained.spectral.detector
        self.observer = Observer.serving(detector, self.predictor, layers) if layers else None
        self.precision: Precision = precision

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        precision: Precision = "32",
        window_batch: int | None = None,
        alpha: float | None = None,
        trust: bool = False,
        fast: bool = False,
    ) -> "Model":
        """Load a run.

        Args:
            path: run folder, or checkpoint.
            device: as torch names it, or `auto`: a GPU if there is one.
            precision: `32`, or mixed with `16` or `bf16`.
            window_batch: sliding windows per forward pass; as in the training if None.
            alpha: share of in-distribution images that may be rejected; as in the training if None.
            trust: import and build any class that the checkpoint names, which runs its code; else only networks of
                `monai.networks` and `torch.nn`, and classes of medmtl.
            fast: check masks by their volume alone, without an additional pass over the mirrored image.

        Raises:
            RunError: there is no such run, or its checkpoint cannot be used.
            ConfigError: there is no such device, or an option is outside its domain.
        """
        checkpoint = RunFolder(Path(path)).checkpoint() if Path(path).is_dir() else Path(path)
        if precision != "32" and precision not in TYPES:
            raise ConfigError(f"precision {precision!r}", fix=f"use one of 32, {', '.join(TYPES)}")
        if alpha is not None and not 0 < alpha < 1:
            raise ConfigError(f"alpha={alpha}", fix="use a share between 0 and 1, such as 0.05")
        try:
            trained = load_trained(checkpoint, device, trust)
        except (RuntimeError, AssertionError) as error:  # torch raises these for a missing device
            raise ConfigError(f"device {device!r} ({' '.join(str(error).split())[:80]})", fix="use cpu") from None
        model = cls(trained, checkpoint.name, precision, window_batch, fast)
        if alpha is not None:
            model.alpha = alpha
            if model.ood_detector is not None:
                model.ood_detector.alpha = alpha
            if model.mask_rule is not None:
                model.mask_rule = replace(model.mask_rule, alpha=alpha)
        return model

    @property
    def stacks(self) -> bool:
        """Whether the network takes several stacked channels."""
        return any(len(task.channels) > 1 for task in self.tasks.values())

    def channels(self, task: str | None = None) -> tuple[int, ...]:
        """Numbers of the channels that are stacked, in the order in which the training stacked them.

        Args:
            task: name of a task; None: the channels that all tasks share.

        Returns:
            Numbers from 0, as `channel` of the task lists them; empty for a network that takes one channel.

        Raises:
            ConfigError: there is no such task, or None is given where tasks stack different channels.
        """
        if not self.stacks:
            return ()
        if task is not None:
            return self._task(task).channels
        chosen = {each.channels for each in self.tasks.values()}
        if len(chosen) > 1:
            raise ConfigError(f"the tasks of {self.name} stack different channels", fix="name the task")
        return chosen.pop()

    def predict(
        self,
        image: str | Path | Sequence[str | Path] | np.ndarray | torch.Tensor,
        affine: np.ndarray | None = None,
        *,
        task: str | None = None,
        modality: str | None = None,
    ) -> Prediction:
        """Segment one image.

        Args:
            image: a file or the folder of a DICOM series, or voxels `(H, W, D)` or `(1, H, W, D)`. For a network that
                stacks channels, which are numbered as in its training: a 4-D file, a list of files or
                series, or voxels `(C, H, W, D)`.
            affine: of an array without one, `(4, 4)` from voxel indices to mm, right-anterior-superior.
            task: whose organ to segment; None: the nearest task.
            modality: CT, MR, PET or other; None: as the file says, if it says one.

        Raises:
            DataError: the image cannot be used; one line says why.
            ConfigError: there is no such task or modality.
        """
        channels = self.channels(task)
        if isinstance(image, np.ndarray | torch.Tensor):
            return self.predict_scan(scan_of(image, affine, channels), task, modality)
        if not isinstance(image, str | Path):
            if not channels:
                raise DataError(f"{len(image)} files are named, and the network takes one channel", fix="name one")
            return self.predict_scan(read(input_of([Path(each) for each in image]), channels), task, modality)
        found = find_inputs(Path(image), stack=self.stacks)
        if len(found) > 1:
            raise DataError(f"{image} holds {len(found)} images", fix="name one, or use `medmtl predict`")
        return self.predict_scan(read(found[0], channels), task, modality)

    def predict_scan(self, scan: Scan, task: str | None = None, modality: str | None = None) -> Prediction:
        """Segment one scan; see `predict`."""
        seconds: dict[str, float] = {}
        task, modality = task or scan.input.task, modality or scan.modality
        given, preprocessings, warnings = self._candidates(task, modality)
        with _timing(seconds, "resampling"):
            prepared = prepare_each(scan.image, preprocessings)
        verdict, logits = self._infer_within_memory(scan, prepared, given, seconds)
        preprocessing = (
            preprocessings[0]
            if verdict is None
            else next(each for each in preprocessings if str(each) == verdict.preprocessing)
        )
        named = given.tasks[0] if given is not None and given.kind == "task" else None
        owner = verdict.task if verdict is not None else named or self._owner(preprocessing)
        image, own, head = prepared[preprocessing], logits[preprocessing], preprocessing.head
        found = self.predictor.probability(own, head).cpu()
        rejected = None if verdict is None else verdict.rejected
        checked = self._check(image, found, preprocessing, owner, rejected, seconds)
        shares = None if self.scalings is None else self.scalings.shares_of(head)
        output = ClassOutput.of(self.tasks[owner], self.predictor.outputs.heads[head], own, shares)
        del prepared, logits, own
        with _timing(seconds, "resampling"):
            network = to_native(found, scan.image)
            mask = output.mask(network, scan.image)
        probability = network
        if self.scalings is not None:
            working = WorkingVolume.of(image[0], found[0], image.affine, scan.image.affine)
            scale = self.scalings.choose(owner if verdict is not None or named else None)
            with _timing(seconds, "scaling"):
                probability = scale(network, working, scan.image.pixdim.tolist())
        affine = scan.image.affine.numpy()
        voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / CUBIC_MM
        in_distribution = None if verdict is None or verdict.rejected is None else not verdict.rejected
        p_value = None if verdict is None else verdict.p_value
        rule = None if self.ood_detector is None else self.ood_detector.rule
        notes = [
            *(*scan.warnings, *warnings),
            *verdict_warnings(in_distribution, p_value, self.alpha, self.precision),
            *mask_warnings(mask, affine, preprocessing),
        ]
        return Prediction(
            mask=mask,
            probability=probability.float().numpy(),
            affine=affine,
            task=owner,
            preprocessing=str(preprocessing),
            in_distribution=in_distribution,
            p_value=p_value,
            alpha=self.alpha,
            nearest_task=None if verdict is None else verdict.task,
            ood_score=None if verdict is None else verdict.score,
            scores={} if verdict is None else verdict.scores,
            mask_reliable=None if checked is None else checked.reliable,
            mask_p_value=None if checked is None else checked.p_value,
            mask_disagreement=None if checked is None else checked.disagreement,
            reasons=reason_texts(verdict, checked),
            nearest_image=None if verdict is None else f"{verdict.nearest.task}/{verdict.nearest.case}",
            volume_ml=float(np.count_nonzero(mask)) * voxel_ml,
            expected_volume_ml=float(probability.sum(dtype=torch.float64)) * voxel_ml,
            seconds=seconds,
            warnings=tuple(dict.fromkeys(notes)),
            scan=scan,
            compared=() if verdict is None else verdict.compared,
            classes=output.labels,
            volumes_ml=volumes_ml(mask, output.segments, voxel_ml),
            output=output,
            chosen=choice_in_words(preprocessing, preprocessings if task is None and modality is None else ()),
            ood_threshold=None if rule is None or not rule.decides else rule.threshold,
            calibration_patients=() if rule is None else tuple(each.patient_count for each in rule.groups.values()),
        )

    def _infer_within_memory(
        self, scan: Scan, prepared: Mapping[Preprocessing, MetaTensor], given: Given | None, seconds: dict[str, float]
    ) -> tuple[Verdict | None, dict[Preprocessing, MetaTensor]]:
        """As `_infer`; halves the number of windows per forward pass when the GPU runs out of memory."""
        while True:
            try:
                return self._infer(scan, prepared, given, seconds)
            except torch.OutOfMemoryError:
                if self.predictor.window_batch == 1:
                    raise DataError(
                        f"{scan.input.path} does not fit into the memory of the device", fix="use --device cpu"
                    ) from None
                self.predictor.window_batch //= 2
                logger.warning("out of memory: going on with %d windows at a time", self.predictor.window_batch)

    def _infer(
        self, scan: Scan, prepared: Mapping[Preprocessing, MetaTensor], given: Given | None, seconds: dict[str, float]
    ) -> tuple[Verdict | None, dict[Preprocessing, MetaTensor]]:
        """The verdict (None without an OOD detector), and preprocessing -> logits of its head."""
        device = next(self.predictor.network.parameters()).device
        mixed = torch.autocast(device.type, TYPES.get(self.precision), enabled=self.precision in TYPES)
        with torch.inference_mode(), mixed, _timing(seconds, "inference"):
            if self.observer is None or self.ood_detector is None:
                return None, {
                    preprocessing: self.predictor.logits(each.to(device), head=preprocessing.head)
                    for preprocessing, each in prepared.items()
                }
            evidence, logits = self.observer(prepared, scan.image, "", scan.name, scan.name)
        with _timing(seconds, "verdict"):
            return self.ood_detector(evidence, given), logits

    def _check(
        self,
        image: MetaTensor,
        probability: MetaTensor,
        preprocessing: Preprocessing,
        task: str,
        rejected: bool | None,
        seconds: dict[str, float],
    ) -> MaskVerdict | None:
        """The verdict on the mask; None for a checkpoint of an earlier version."""
        if self.mask_rule is None:
            return None
        device = next(self.predictor.network.parameters()).device
        mixed = torch.autocast(device.type, TYPES.get(self.precision), enabled=self.precision in TYPES)
        with torch.inference_mode(), mixed, _timing(seconds, "mask_check"):
            image = image.to(device)
            return check_mask(
                self.mask_rule, self.predictor, image, probability, preprocessing, task, rejected, self.fast
            )

    def _candidates(
        self, task: str | None, modality: str | None
    ) -> tuple[Given | None, list[Preprocessing], tuple[str, ...]]:
        """What is given of a scan, the candidate preprocessings, and warnings."""
        if task is not None:
            return Given("task", (task,)), [self._task(task).preprocessing], ()
        if modality is not None and modality not in MODALITIES:
            raise ConfigError(f"modality {modality!r}", fix=f"use one of: {', '.join(MODALITIES)}")
        same_modality = tuple(name for name, each in self.tasks.items() if each.modality == modality)
        given: Given | None = None
        warnings: tuple[str, ...] = ()
        possible = tuple(self.tasks)
        if same_modality:
            given, possible = Given("modality", same_modality), same_modality
        elif modality is not None:
            warnings = (f"no task of the model is {modality}: the preprocessing settings of all tasks were tried",)
        preprocessings = list(dict.fromkeys(self.tasks[name].preprocessing for name in possible))
        if self.ood_detector is None and len(preprocessings) > 1:
            raise ConfigError(
                f"{self.name} has no OOD detector, which would find the nearest task", fix="name the task"
            )
        return given, preprocessings, warnings

    def _task(self, name: str) -> Task:
        if name not in self.tasks:
            raise ConfigError(f"there is no task {name!r}", fix=f"use one of: {', '.join(self.tasks)}")
        return self.tasks[name]

    def _owner(self, preprocessing: Preprocessing) -> str:
        """The first task with a preprocessing."""
        return next(name for name, task in self.tasks.items() if task.preprocessing == preprocessing)


@contextmanager
def _timing(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[what] = seconds.get(what, 0.0) + perf_counter() - start
