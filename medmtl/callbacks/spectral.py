"""SpectralCallback: fits signatures, detector and threshold after training, and has test images scored by them."""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from monai.data import MetaTensor
from pytorch_lightning.trainer.states import TrainerFn

from medmtl.accuracy import dice
from medmtl.callbacks.checkpoints import add_callback_state
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.reading import load_image
from medmtl.data.splits import CALIBRATION
from medmtl.data.working_space import to_native
from medmtl.distributed import gather, place
from medmtl.errors import ConfigError, RunError
from medmtl.losses.masked import UNKNOWN
from medmtl.models.extract import Observer
from medmtl.models.mask_check import volume_of
from medmtl.models.segmenter import Segmenter
from medmtl.ood.conformal import can_decide, held_out_needed
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.evidence.features import FeatureTap
from medmtl.ood.evidence.flip import flip_disagreement
from medmtl.ood.mask_rule import LabelledMask, MaskRule
from medmtl.ood.verdict import ConformalDetector
from medmtl.progress import watched
from medmtl.runs.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)


class SpectralCallback(pl.Callback):
    """Spectral signatures (Karimi & Gholipour, arXiv 2004.06569), and a verdict with a conformal threshold.

    After training, the network with its best weights processes the training images, not augmented, each under its
    task's preprocessing: their signatures are the bank, and the detector is fitted to them. Validation images set the
    threshold, with training images that are scored by detectors fitted to other patients; and their masks set the rule
    by which masks are checked. They have chosen the checkpoint too, for what that costs see `ConformalDetector`. All is
    kept in `best.ckpt`; `medmtl calibrate` estimates it again.

    Args:
        layers: names of the network's layers whose feature maps are used; none: no signatures and no verdict.
        alpha: share of in-distribution images that may be rejected.
        detector: what gives the verdict; None takes `ByTask` with its default members. The distance of the signature
            is reported beside its score.
    """

    def __init__(self, layers: list[str], alpha: float = 0.05, detector: Detector | None = None) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"spectral.alpha={alpha}", fix="use a share between 0 and 1, such as 0.05")
        self.layers = layers
        self.alpha = alpha
        self.detector = ByTask() if detector is None else detector
        self.ood_detector: ConformalDetector | None = None
        self.mask_rule: MaskRule | None = None
        self.mismatch: RunError | None = None  # why there is none, though the checkpoint holds one

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the layers before anything is computed.

        Raises:
            ConfigError: the network lacks a layer.
        """
        if self.layers:
            FeatureTap(_segmenter(pl_module).network, self.layers)
            if stage == "fit" and trainer.is_global_zero:
                self._say_if_too_few(_data(trainer))

    def _say_if_too_few(self, data: MultiTaskData) -> None:
        """Say before the training that there will be no verdicts."""
        held_out = [case for task in data.trained for case in data.cases(task, data.calibration_part)]
        trained = {case.patient for task in data.trained for case in data.cases(task, "train")}
        patients = {case.patient for case in held_out}
        if not can_decide(self.alpha, len(patients), len(held_out), len(trained)):
            logger.warning(
                "too few patients for verdicts, which will be undecided: %d are held out (data.%s) and %d trained on; "
                "at spectral.alpha = %g at least %d have to be held out",
                len(patients),
                data.calibration_part,
                len(trained),
                self.alpha,
                held_out_needed(self.alpha, len(trained)),
            )

    def state_dict(self) -> dict[str, Any]:
        """State of OOD detector and mask rule as tensors, numbers and strings; empty before the end of training."""
        masks = {} if self.mask_rule is None else {"masks": self.mask_rule.state_dict()}
        return {} if self.ood_detector is None else {**self.ood_detector.state_dict(), **masks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the OOD detector and the mask rule from a checkpoint; earlier versions had no mask rule."""
        if "masks" in state_dict:
            self.mask_rule = MaskRule.from_state_dict(state_dict["masks"], self.alpha)
        if "fitted" in state_dict:
            try:
                self.ood_detector = ConformalDetector.from_state_dict(state_dict, self.detector, self.alpha)
            except RunError as error:  # `medmtl calibrate` fits the other detector; all else cannot go on
                self.mismatch = error
        elif state_dict:
            logger.warning("the checkpoint's signatures are of an earlier version: run `medmtl calibrate` for verdicts")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit the OOD detector with the best weights, and add it to `best.ckpt`."""
        checkpoint = trainer.checkpoint_callback
        if not self.layers or checkpoint is None or not checkpoint.best_model_path:  # type: ignore[attr-defined]
            return
        best = Path(checkpoint.best_model_path)  # type: ignore[attr-defined]
        pl_module.load_state_dict(read_checkpoint(best)["state_dict"])
        self._fit_into(trainer, pl_module, best)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit the OOD detector again in `medmtl calibrate`, which is no validation of a training."""
        if self.layers and trainer.state.fn == TrainerFn.VALIDATING:
            self._fit_into(trainer, pl_module, Path(str(trainer.ckpt_path)))

    def _fit_into(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Path) -> None:
        pl_module.eval()
        with torch.inference_mode():
            self.fit(_segmenter(pl_module), _data(trainer))
        if trainer.is_global_zero:
            add_callback_state(checkpoint, self)

    def fit(self, segmenter: Segmenter, data: MultiTaskData) -> None:
        """Fit the OOD detector to the training images, its threshold to the validation images, and the mask rule."""
        observer = self._observer(segmenter)
        trained, checked = gather(_training(observer, data)), gather(_held_out(observer, data))
        self.ood_detector = ConformalDetector.fit(
            self.detector,
            [each.evidence for each in trained],
            [each.evidence for each in checked],
            self.alpha,
            reused=data.calibration_part != CALIBRATION,
        )
        volumes: dict[str, list[float]] = {}
        for each in trained:
            if each.volume_ml is not None:
                volumes.setdefault(each.evidence.dataset, []).append(each.volume_ml)
        ranges = {task: (min(own), max(own)) for task, own in volumes.items()}
        held_out, seen = ([each.mask for each in part if each.mask is not None] for part in (checked, trained))
        self.mask_rule = MaskRule(held_out, ranges, self.alpha, seen)
        rule = self.ood_detector.rule
        if not rule.decides:
            logger.warning("too few validation cases to reject at alpha = %g: verdicts will be undecided", self.alpha)
        name = self.ood_detector.detector.name
        logger.info("signature bank: %d images; threshold of %s: %.4f", len(trained), name, rule.threshold)
        for unusual in self.ood_detector.above_threshold():
            logger.info("threshold: %s, case %s is held out and above it", unusual.task, unusual.case)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the segmenter the OOD detector of the checkpoint and the observer of its features.

        Raises:
            ConfigError: the detector was fitted to other layers than `layers`.
            RunError: another detector was fitted than `detector`.
        """
        if not self.layers:
            return
        if self.mismatch is not None:
            raise self.mismatch
        if self.ood_detector is None:
            logger.warning("the checkpoint holds no signature bank: accuracy and calibration are reported, OOD is not")
            return
        known = set(self.ood_detector.bank.signatures)
        if known != set(self.layers):
            raise ConfigError(
                "spectral.layers differs from the signature bank's", fix=f"use {', '.join(sorted(known))}, or calibrate"
            )
        segmenter = _segmenter(pl_module)
        segmenter.observer, segmenter.ood_detector = self._observer(segmenter), self.ood_detector
        segmenter.mask_rule = self.mask_rule

    def _observer(self, segmenter: Segmenter) -> Observer:
        return Observer.serving(self.detector, segmenter.predictor, self.layers)


class _Trained(NamedTuple):
    """A training image: its evidence, its mask and the volume of its label, None where it does not mark all classes."""

    evidence: Evidence
    mask: LabelledMask | None
    volume_ml: float | None


class _Checked(NamedTuple):
    """A held-out image: its evidence and its mask, None where the label does not mark all classes."""

    evidence: Evidence
    mask: LabelledMask | None


def _training(observer: Observer, data: MultiTaskData) -> dict[int, _Trained]:
    """This process's share of the training images, each under its task's preprocessing."""
    rank, processes = place()
    caches = {task: data.training_cache(task) for task in data.trained}
    images = [(task, index) for task, cache in caches.items() for index in range(len(cache))][rank::processes]
    cases = {(task, case.name): case for task in data.trained for case in data.cases(task, "train")}
    found = {}
    for step, (task, index) in enumerate(_observed(images, len(images), "training", rank)):
        item = caches[task][index]
        case, preprocessing = cases[task, item["case"]], data.tasks[task].preprocessing
        prepared = MetaTensor(item["image"])
        native = load_image(case) if observer.thumbnails else prepared
        evidence, logits = observer({preprocessing: prepared}, native, task, case.name, case.patient)
        if item["case"] in data.labels(task).missing:
            found[step] = _Trained(evidence, None, None)
            continue
        probability = observer.predictor.probability(logits[preprocessing], preprocessing.head)
        known = (item["label"] != UNKNOWN).to(probability.device)
        organ = (item["label"] > 0).to(probability.device) & known
        overlap = dice(((probability >= 0.5) & known)[0].as_subclass(torch.Tensor), organ[0].as_subclass(torch.Tensor))
        disagreement = _disagreement(observer, prepared, probability, preprocessing)
        mask = LabelledMask(task, case.patient, case.name, overlap, disagreement)
        found[step] = _Trained(evidence, mask, volume_of(organ, preprocessing))
    return found


def _disagreement(observer: Observer, image: MetaTensor, probability: MetaTensor, own: Preprocessing) -> float:
    mask = probability[0].as_subclass(torch.Tensor) >= 0.5
    return flip_disagreement(image.to(probability.device), mask, partial(observer.predictor, head=own.head))


def _held_out(observer: Observer, data: MultiTaskData) -> dict[int, _Checked]:
    """This process's share of the validation images, each under its task's preprocessing."""
    scans, rank = data.calibration_dataloader(), place()[0]
    waiting: Iterable[Any] = _observed(scans, len(scans), "validation", rank)
    return {step: _check(observer, scan) for step, scan in enumerate(waiting) if scan is not None}


def _observed(items: Iterable[Any], total: int, part: str, rank: int) -> Iterable[Any]:
    return watched(items, "observing features", total, f"{part} images", show=rank == 0)


def _check(observer: Observer, scan: Mapping[str, Any]) -> _Checked:
    evidence, logits = observer(*(scan[key] for key in ("images", "native", "dataset", "case", "patient")))
    if scan["missing"]:
        return _Checked(evidence, None)
    own = scan["own"]
    probability = observer.predictor.probability(logits[own], own.head)
    predicted = to_native(probability, scan["native"]) >= 0.5
    if scan["known"] is not None:
        predicted &= scan["known"][0].to(predicted.device)
    disagreement = _disagreement(observer, scan["images"][own], probability, own)
    overlap = dice(predicted, scan["label"][0].as_tensor() > 0)
    return _Checked(evidence, LabelledMask(scan["dataset"], scan["patient"], scan["case"], overlap, disagreement))


def _segmenter(module: pl.LightningModule) -> Segmenter:
    if not isinstance(module, Segmenter):
        raise TypeError(f"SpectralCallback works with a Segmenter, not {type(module).__name__}")
    return module


def _data(trainer: pl.Trainer) -> MultiTaskData:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, MultiTaskData):
        raise TypeError(f"SpectralCallback works with MultiTaskData, not {type(data).__name__}")
    return data
