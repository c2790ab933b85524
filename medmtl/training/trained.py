"""A trained run as its checkpoint holds it: network, tasks, scaling and OOD detector, without Lightning's loops."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from medmtl.building import building
from medmtl.callbacks.scaling import ScalingCallback
from medmtl.callbacks.spectral import SpectralCallback
from medmtl.data.datamodule import MultiTaskData
from medmtl.errors import RunError
from medmtl.models.device import device_of
from medmtl.models.finetune import HEADS, load_weights
from medmtl.models.parts import Parts
from medmtl.models.segmenter import Segmenter
from medmtl.runs.checkpoint import read_checkpoint
from medmtl.training.request import known_config

PARTS = ("data", "model", "spectral", "scaling")  # sections of the configuration that are built


@dataclass(frozen=True)
class Trained:
    """A trained network with what was fitted to it, and the data that it was trained on.

    Attributes:
        segmenter: the network, in evaluation mode.
        data: its tasks; `open_data` lists the files.
        spectral: its layers, and its OOD detector.
        scaling: its post-hoc scaling.
        checkpoint: what the file holds.
        weights: digest of the network's weights.
        trusted: whether any class was accepted, for processes that load it again.
    """

    segmenter: Segmenter
    data: MultiTaskData
    spectral: SpectralCallback
    scaling: ScalingCallback
    checkpoint: dict[str, Any]
    weights: str
    trusted: bool

    @property
    def layers(self) -> list[str]:
        """`spectral.layers` of its configuration."""
        return self.spectral.layers

    @property
    def parts(self) -> Parts:
        """What segments images and gives verdicts."""
        detecting = self.spectral.ood_detector is not None
        return Parts(
            tasks={name: task.known for name, task in self.data.trained.items()},
            predictor=self.segmenter.predictor,
            layers=self.layers if detecting else [],
            alpha=self.spectral.alpha,
            detector=self.spectral.detector,
            ood_detector=self.spectral.ood_detector,
            mask_rule=self.spectral.mask_rule,
            scalings=self.scaling.scalings if self.scaling.active else None,
        )

    def open_data(self) -> None:
        """Find the files of the tasks, split as the training split them.

        Raises:
            DataError: they are gone.
        """
        self.data.setup("ood")
        self.data.load_state_dict(self.checkpoint[type(self.data).__qualname__])


def load_trained(checkpoint: Path, device: str = "auto", trust: bool = False) -> Trained:
    """What a checkpoint holds, which alone is enough to segment and to detect out-of-distribution images.

    Args:
        checkpoint: a file that `medmtl fit` wrote.
        device: as torch names it, or `auto`: a GPU if there is one.
        trust: import and build any class that the checkpoint names, see `medmtl.training.trust`.

    Raises:
        RunError: the checkpoint is missing, names a class that is not accepted, or cannot be used any more.
        ConfigError: there is no such device.
    """
    chosen = device_of(device)
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(Segmenter, "model")
    parser.add_lightning_class_args(MultiTaskData, "data")
    parser.add_lightning_class_args(SpectralCallback, "spectral")
    parser.add_lightning_class_args(ScalingCallback, "scaling")
    parser.link_arguments("data.patch_size", "model.patch_size")
    parser.link_arguments("model.outputs", "data.outputs")
    config = known_config(checkpoint, trust, PARTS)
    with building(partial(_unfit, checkpoint, "a configuration")):
        wanted = {key: config[key] for key in PARTS if config.get(key) is not None}
        built: Any = parser.instantiate_classes(parser.parse_object(wanted))
    kept = read_checkpoint(checkpoint)
    load_weights(built.model.network, checkpoint)
    with building(partial(_unfit, checkpoint, "a network")):
        built.model.read_outputs(built.data)
    if built.model.heads is not None:
        load_weights(built.model.heads, checkpoint, HEADS)
    with building(partial(_unfit, checkpoint, "an OOD detector or a scaling")):
        for callback in (built.spectral, built.scaling):
            callback.load_state_dict(kept.get("callbacks", {}).get(callback.state_key, {}))
    if built.spectral.mismatch is not None:
        raise built.spectral.mismatch
    segmenter = built.model.to(chosen).eval()
    return Trained(segmenter, built.data, built.spectral, built.scaling, kept, _digest(segmenter), trust)


def _unfit(checkpoint: Path, what: str, reason: str) -> RunError:
    return RunError(f"{checkpoint} holds {what} that cannot be used ({reason})", fix="train again")


def _digest(segmenter: Segmenter) -> str:
    digest = hashlib.sha256()
    heads = {} if segmenter.heads is None else segmenter.heads.last.state_dict(prefix=HEADS)
    for name, value in sorted({**segmenter.network.state_dict(), **heads}.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
