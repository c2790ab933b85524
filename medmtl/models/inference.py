"""Inference: mask, probability and both verdicts of an image that is in memory. Reads no files and knows no runs."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.data.known_task import KnownTask
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.working_space import prepare_each, to_native
from medmtl.errors import ConfigError, DataError
from medmtl.io.input import MODALITIES
from medmtl.models.class_output import ClassOutput, volumes_ml
from medmtl.models.extract import Observer
from medmtl.models.graph_network import GraphNetwork
from medmtl.models.mask_check import check_mask
from medmtl.models.parts import Parts
from medmtl.models.warnings import choice_in_words, mask_warnings, verdict_warnings
from medmtl.ood.mask_rule import MaskVerdict, reason_texts
from medmtl.ood.verdict import Given, Verdict
from medmtl.quantity import CUBIC_MM

logger = logging.getLogger(__name__)

Precision = Literal["32", "16", "bf16"]
TYPES = {"16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Inferred:
    """What is found in an image.

    Attributes:
        mask: label values on the image's own grid, `(H, W, D)`.
        probability: of foreground after post-hoc scaling, `(H, W, D)` in [0, 1].
        task: whose organ it is: the given task, or the nearest one.
        preprocessing: of that task.
        tried: all candidates, where neither task nor modality was given; else empty.
        verdict: on the image; None without an OOD detector.
        mask_verdict: on the mask; None for a checkpoint of an earlier version.
        output: what the network says of the classes.
        seconds: spent on resampling, inference, verdict, mask check and scaling.
        warnings: a sentence each.
    """

    mask: NDArray[np.unsignedinteger]
    probability: torch.Tensor
    task: str
    preprocessing: Preprocessing
    tried: tuple[Preprocessing, ...]
    verdict: Verdict | None
    mask_verdict: MaskVerdict | None
    output: ClassOutput
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]


class Inference:
    """Segments images and gives verdicts.

    Args:
        parts: network, tasks, scaling and OOD detector.
        name: of the file that they are from, for messages.
        precision: of the network's arithmetic; the OOD threshold was estimated in `32`, see `verdict_warnings`.
        window_batch: sliding windows per forward pass; as in the training if None.
        fast: check masks by their volume alone, without an additional pass over the mirrored image.

    Raises:
        ConfigError: another precision than 32 is asked of a graph.
    """

    def __init__(
        self,
        parts: Parts,
        name: str,
        precision: Precision = "32",
        window_batch: int | None = None,
        fast: bool = False,
    ) -> None:
        if precision != "32" and isinstance(parts.predictor.network, GraphNetwork):
            raise ConfigError(f"precision {precision}: the graph of {name} computes in 32 bit", fix="leave it out")
        self.name = name
        self.tasks = parts.tasks
        self.ood_detector = parts.ood_detector
        self.mask_rule = parts.mask_rule
        self.alpha = parts.alpha
        self.scalings = parts.scalings
        self.predictor = parts.predictor
        self.precision: Precision = precision
        self.fast = fast
        if self.scalings is not None:
            self.scalings.warn_if_old(name)
        if window_batch is not None:
            self.predictor.window_batch = window_batch
        serving = Observer.serving(parts.detector, self.predictor, parts.layers) if parts.layers else None
        self.observer = serving

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

    def infer(self, image: MetaTensor, case: str, task: str | None = None, modality: str | None = None) -> Inferred:
        """Segment one image and give the verdicts.

        Args:
            image: `(C, H, W, D)` on its own grid, as stored.
            case: its name, for messages.
            task: whose organ to segment; None: the nearest task.
            modality: CT, MR, PET or other; None: unknown.

        Raises:
            DataError: the image does not fit into the memory of the device.
            ConfigError: there is no such task or modality.
        """
        seconds: dict[str, float] = {}
        given, preprocessings, warnings = self._candidates(task, modality)
        with _timing(seconds, "resampling"):
            prepared = prepare_each(image, preprocessings)
        verdict, logits = self._infer_within_memory(image, case, prepared, given, seconds)
        preprocessing = (
            preprocessings[0]
            if verdict is None
            else next(each for each in preprocessings if str(each) == verdict.preprocessing)
        )
        named = given.tasks[0] if given is not None and given.kind == "task" else None
        owner = verdict.task if verdict is not None else named or self._owner(preprocessing)
        working_image, own, head = prepared[preprocessing], logits[preprocessing], preprocessing.head
        found = self.predictor.probability(own, head).cpu()
        rejected = None if verdict is None else verdict.rejected
        checked = self._check(working_image, found, preprocessing, owner, rejected, seconds)
        shares = None if self.scalings is None else self.scalings.shares_of(head)
        output = ClassOutput.of(self.tasks[owner], self.predictor.outputs.heads[head], own, shares)
        del prepared, logits, own
        with _timing(seconds, "resampling"):
            network = to_native(found, image)
            mask = output.mask(network, image)
        probability = network
        if self.scalings is not None:
            working = WorkingVolume.of(working_image[0], found[0], working_image.affine, image.affine)
            scale = self.scalings.choose(owner if verdict is not None or named else None)
            with _timing(seconds, "scaling"):
                probability = scale(network, working, image.pixdim.tolist())
        return Inferred(
            mask=mask,
            probability=probability,
            task=owner,
            preprocessing=preprocessing,
            tried=tuple(preprocessings) if task is None and modality is None else (),
            verdict=verdict,
            mask_verdict=checked,
            output=output,
            seconds=seconds,
            warnings=warnings,
        )

    def said(self, found: Inferred, affine: NDArray[np.float64]) -> dict[str, Any]:
        """What is said of an image and its mask, as text, numbers and collections of them; see `Prediction`.

        Args:
            found: of `infer`.
            affine: of the image, `(4, 4)` from voxel indices to mm.
        """
        verdict, checked = found.verdict, found.mask_verdict
        voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / CUBIC_MM
        in_distribution = None if verdict is None or verdict.rejected is None else not verdict.rejected
        p_value = None if verdict is None else verdict.p_value
        rule = None if self.ood_detector is None else self.ood_detector.rule
        notes = [
            *found.warnings,
            *verdict_warnings(in_distribution, p_value, self.alpha, self.precision),
            *mask_warnings(found.mask, affine, found.preprocessing),
        ]
        return {
            "task": found.task,
            "preprocessing": str(found.preprocessing),
            "in_distribution": in_distribution,
            "p_value": p_value,
            "alpha": self.alpha,
            "nearest_task": None if verdict is None else verdict.task,
            "ood_score": None if verdict is None else verdict.score,
            "scores": {} if verdict is None else dict(verdict.scores),
            "mask_reliable": None if checked is None else checked.reliable,
            "mask_p_value": None if checked is None else checked.p_value,
            "mask_disagreement": None if checked is None else checked.disagreement,
            "reasons": reason_texts(verdict, checked),
            "nearest_image": None if verdict is None else f"{verdict.nearest.task}/{verdict.nearest.case}",
            "volume_ml": float(np.count_nonzero(found.mask)) * voxel_ml,
            "expected_volume_ml": float(found.probability.sum(dtype=torch.float64)) * voxel_ml,
            "classes": found.output.labels,
            "volumes_ml": volumes_ml(found.mask, found.output.segments, voxel_ml),
            "warnings": tuple(dict.fromkeys(notes)),
            "chosen": choice_in_words(found.preprocessing, found.tried),
            "ood_threshold": None if rule is None or not rule.decides else rule.threshold,
            "calibration_patients": () if rule is None else tuple(each.patient_count for each in rule.groups.values()),
        }

    def _infer_within_memory(
        self,
        image: MetaTensor,
        case: str,
        prepared: Mapping[Preprocessing, MetaTensor],
        given: Given | None,
        seconds: dict[str, float],
    ) -> tuple[Verdict | None, dict[Preprocessing, MetaTensor]]:
        """As `_infer`; halves the number of windows per forward pass when the GPU runs out of memory."""
        while True:
            try:
                return self._infer(image, case, prepared, given, seconds)
            except torch.OutOfMemoryError:
                if self.predictor.window_batch == 1:
                    raise DataError(
                        f"{case} does not fit into the memory of the device", fix="use --device cpu"
                    ) from None
                self.predictor.window_batch //= 2
                logger.warning("out of memory: going on with %d windows at a time", self.predictor.window_batch)

    def _infer(
        self,
        image: MetaTensor,
        case: str,
        prepared: Mapping[Preprocessing, MetaTensor],
        given: Given | None,
        seconds: dict[str, float],
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
            evidence, logits = self.observer(prepared, image, "", case, case)
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

    def _task(self, name: str) -> KnownTask:
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
