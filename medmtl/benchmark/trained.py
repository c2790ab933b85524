"""A trained run as its checkpoint has it: network, data and split, without Lightning's loops."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError
from pytorch_lightning.cli import LightningArgumentParser

from medmtl.checkpoint import read_checkpoint
from medmtl.data.datamodule import MultiTaskData
from medmtl.errors import RunError
from medmtl.models.finetune import load_weights
from medmtl.models.segmenter import Segmenter
from medmtl.request import known_config


@dataclass(frozen=True)
class Trained:
    """A trained network with the data that it was trained on.

    Attributes:
        segmenter: the network, in evaluation mode.
        data: its tasks, with the split of the training.
        layers: `spectral.layers` of its configuration.
        weights: digest of the network's weights.
    """

    segmenter: Segmenter
    data: MultiTaskData
    layers: list[str]
    weights: str


def load_segmenter(checkpoint: Path) -> Segmenter:
    """The network of a checkpoint, in evaluation mode, on a graphics processor if there is one.

    Raises:
        RunError: the checkpoint is missing, or its configuration cannot be used any more.
    """
    return _network(checkpoint, _built(checkpoint).model)


def load_trained(checkpoint: Path) -> Trained:
    """Network and data of a checkpoint, which alone is enough.

    Args:
        checkpoint: a file that `medmtl fit` wrote.

    Raises:
        RunError: the checkpoint is missing, or its configuration cannot be used any more.
        DataError: its data are gone.
    """
    built = _built(checkpoint)
    data: MultiTaskData = built.data
    data.setup("ood")
    kept = read_checkpoint(checkpoint)
    data.load_state_dict(kept[type(data).__qualname__])
    segmenter = _network(checkpoint, built.model)
    spectral = yaml.safe_load(known_config(checkpoint)).get("spectral") or {}
    return Trained(segmenter, data, list(spectral.get("layers") or []), _digest(segmenter))


def _built(checkpoint: Path) -> Any:
    config = yaml.safe_load(known_config(checkpoint))
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(Segmenter, "model")
    parser.add_lightning_class_args(MultiTaskData, "data")
    parser.link_arguments("data.patch_size", "model.patch_size")
    try:
        return parser.instantiate_classes(parser.parse_object({key: config[key] for key in ("data", "model")}))
    except (ArgumentError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{checkpoint} holds a configuration that cannot be used ({reason})", fix="train again"
        ) from None


def _network(checkpoint: Path, segmenter: Segmenter) -> Segmenter:
    load_weights(segmenter.network, checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return segmenter.to(device).eval()


def _digest(segmenter: Segmenter) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(segmenter.network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
