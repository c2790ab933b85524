"""SpectralCallback: fits the signature bank and the threshold at the end of training, and judges test images."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from monai.data import MetaTensor
from rich.progress import track

from medmtl.callbacks.checkpoints import add_callback_state
from medmtl.checkpoint import read_checkpoint
from medmtl.data.datamodule import MultiTaskData
from medmtl.distributed import gather, place
from medmtl.errors import ConfigError
from medmtl.inference.verdict import judge
from medmtl.models.segmenter import Segmenter
from medmtl.ood.conformal import ConformalRule
from medmtl.ood.features import FeatureTap
from medmtl.ood.spectral import SignatureBank, signature

logger = logging.getLogger(__name__)


class SpectralCallback(pl.Callback):
    """Spectral signatures (Karimi & Gholipour, arXiv 2004.06569) with a conformal threshold.

    After training, the best weights are run over the training images, not augmented, each under its task's recipe:
    their signatures are the bank. Validation images, under every recipe, set the threshold. Both are kept in
    `best.ckpt`.

    Args:
        layers: names of the network's layers whose feature maps are used; none: no signatures and no verdict.
        alpha: share of familiar images that may be rejected.
    """

    def __init__(self, layers: list[str], alpha: float = 0.05) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"spectral.alpha={alpha}", fix="use a share between 0 and 1, such as 0.05")
        self.layers = layers
        self.alpha = alpha
        self.bank: SignatureBank | None = None
        self.calibration: dict[str, list[float]] = {}
        self._patients: dict[str, list[str]] | None = None  # a checkpoint of an earlier version does not know them

    @property
    def rule(self) -> ConformalRule:
        """How scores become decisions."""
        return ConformalRule(self.calibration, self.alpha, self._patients)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the layers before anything is computed.

        Raises:
            ConfigError: the network lacks a layer.
        """
        if self.layers:
            FeatureTap(_segmenter(pl_module).network, self.layers)

    def state_dict(self) -> dict[str, Any]:
        """Bank and calibration scores, as tensors and strings; empty before the end of training."""
        if self.bank is None:
            return {}
        return {"bank": self.bank.state_dict(), "calibration": self.calibration, "patients": self._patients}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take bank and calibration scores from a checkpoint."""
        if state_dict:
            self.bank = SignatureBank.from_state_dict(state_dict["bank"])
            self.calibration = state_dict["calibration"]
            self._patients = state_dict.get("patients")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit bank and threshold with the best weights, and add them to `best.ckpt`."""
        checkpoint = trainer.checkpoint_callback
        if not self.layers or checkpoint is None or not checkpoint.best_model_path:  # type: ignore[attr-defined]
            return
        best = Path(checkpoint.best_model_path)  # type: ignore[attr-defined]
        pl_module.load_state_dict(read_checkpoint(best)["state_dict"])
        pl_module.eval()
        with torch.inference_mode():
            self.fit(_segmenter(pl_module), _data(trainer))
        if trainer.is_global_zero:
            add_callback_state(best, self)

    def fit(self, segmenter: Segmenter, data: MultiTaskData) -> None:
        """Take the signatures of the training images and the scores of the validation images."""
        tap = FeatureTap(segmenter.network, self.layers)
        rank, processes = place()
        images = [(task, item) for task in data.trained for item in data.training_cache(task)]
        signatures = {}
        share = images[rank::processes]
        for step, (task, item) in enumerate(track(share, "Signatures of the training images", disable=rank > 0)):
            tap.reset()
            segmenter.predictor(MetaTensor(item["image"].to(segmenter.device)), tap)
            signatures[step] = task, item["case"], signature(tap.per_voxel())
        self.bank = SignatureBank.fit(gather(signatures))
        self.calibration, self._patients = {task: [] for task in data.trained}, {task: [] for task in data.trained}
        scores, scans = {}, data.calibration_dataloader()
        waiting = track(scans, "Scores of the validation images", total=len(scans), disable=rank > 0)
        for step, scan in enumerate(waiting):
            if scan is not None:
                volumes = {recipe: image.to(segmenter.device) for recipe, image in scan["images"].items()}
                verdict = judge(*segmenter.predict_recipes(volumes, tap), self.bank, self.rule)
                scores[step] = scan["source"], scan["patient"], verdict.scores["spectral"]
        for task, patient, score in gather(scores):
            self.calibration[task].append(score)
            self._patients[task].append(patient)
        if not self.rule.decides:
            logger.warning("too few validation cases to reject at alpha = %g: verdicts will be undecided", self.alpha)
        logger.info("signature bank: %d images, threshold %.4f", len(images), self.rule.threshold)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect features during the test, if the checkpoint has a bank to compare them with.

        Raises:
            ConfigError: the bank was fitted on other layers than `layers`.
        """
        if not self.layers:
            return
        if self.bank is None:
            logger.warning("the checkpoint holds no signature bank: accuracy and calibration are reported, OOD is not")
            return
        if set(self.bank.signatures) != set(self.layers):
            fitted = ", ".join(self.bank.signatures)
            raise ConfigError("spectral.layers differs from the signature bank's", fix=f"use {fitted}, or train again")
        _segmenter(pl_module).tap = FeatureTap(_segmenter(pl_module).network, self.layers)
        _segmenter(pl_module).bank = self.bank

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Judge a test image, and leave the `Verdict` in `outputs["verdict"]`."""
        if self.layers and self.bank is not None and outputs is not None:
            outputs["verdict"] = judge(outputs["probabilities"], outputs["grams"], self.bank, self.rule)


def _segmenter(module: pl.LightningModule) -> Segmenter:
    if not isinstance(module, Segmenter):
        raise TypeError(f"SpectralCallback works with a Segmenter, not {type(module).__name__}")
    return module


def _data(trainer: pl.Trainer) -> MultiTaskData:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, MultiTaskData):
        raise TypeError(f"SpectralCallback works with MultiTaskData, not {type(data).__name__}")
    return data
