"""Fine-tuning: a network starts from the weights of a checkpoint, and only some of its layers are trained.

Encoder, decoder and head are found from one forward pass, so that this works for any encoder-decoder network whose
layers return feature maps, whatever their names.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from medmtl.errors import ConfigError, RunError
from medmtl.models.channels import input_channels
from medmtl.models.task_heads import TaskHeads
from medmtl.runs.checkpoint import first_not_finite, read_checkpoint

logger = logging.getLogger(__name__)

# The network's place in the state of a `Segmenter`.
PREFIX = "network."
HEADS = "heads."  # and that of its last layer, with outputs per task
# What torch.compile and data parallelism add to names of weights.
WRAPPERS = ("_orig_mod.", "module.")

Layers = Literal["all", "decoder", "head"]


@dataclass(frozen=True)
class FineTune:
    """Start from the weights of an earlier training, and train only some layers.

    With outputs per task, on either side, the end of the network may differ; what has no weights there is untrained.

    Args:
        checkpoint: checkpoint of the same network, for example runs/multitask/checkpoints/best.ckpt.
        layers: what is trained: all layers, the decoder (every layer after the coarsest feature map), or the head (the
            last layers, those that return as many channels as the network).
    """

    checkpoint: Path | str
    layers: Layers = "all"


def load_weights(network: nn.Module, checkpoint: Path, prefix: str = PREFIX) -> None:
    """Load the weights of a checkpoint into a network.

    Args:
        network: of the same layers and shapes as the one in the checkpoint.
        checkpoint: a file that `medmtl fit` wrote.
        prefix: the network's place in the state of the checkpoint's `Segmenter`.

    Raises:
        RunError: the file is no checkpoint, that of another network, or of a training that diverged; names the first
            weight that differs or is not finite.
    """
    own = network.state_dict()
    kept = unwrapped(read_checkpoint(checkpoint)["state_dict"], {f"{prefix}{name}" for name in own})
    source = _part(kept, prefix)
    _require_none(checkpoint, _differences(source, own))
    _require_finite(checkpoint, source)
    network.load_state_dict(source)


def transfer_weights(network: nn.Module, heads: TaskHeads | None, checkpoint: Path, patch_size: Sequence[int]) -> None:
    """Load the weights to fine-tune.

    Where this network or the other one has outputs per task, the last layers may differ, and so may the channels: what
    has other shapes starts untrained, and channels of the same name are taken over if the features before them are.

    Args:
        network: of the same layers and shapes as the one in the checkpoint, but for its end.
        heads: its outputs per task; None with one output for all.
        checkpoint: a file that `medmtl fit` wrote.
        patch_size: H, W, D of a patch that the network takes.

    Raises:
        RunError: the file is no checkpoint, that of another network, or of a training that diverged; names the first
            weight that differs or is not finite.
    """
    own = network.state_dict()
    kept = unwrapped(read_checkpoint(checkpoint)["state_dict"], {f"{PREFIX}{name}" for name in own})
    source, of_heads = _part(kept, PREFIX), _part(kept, HEADS)
    other = _differences(source, own)
    end: tuple[str, ...] = ()
    if other and (of_heads or heads is not None):
        end = tuple(f"{layer}." for layer in decoder_and_head(network, patch_size)[1])
    _require_none(checkpoint, {name: shapes for name, shapes in other.items() if not name.startswith(end)})
    _require_finite(checkpoint, source)
    network.load_state_dict({name: value if name in other else source[name] for name, value in own.items()})
    new = [name for name in own if name in other]
    if heads is not None:
        new += heads.outputs.names if other or not of_heads else heads.take(of_heads)
    if new:
        logger.info("fine-tuning from %s; untrained at the start: %s", checkpoint, ", ".join(new))


def unwrapped(state: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """A state under the names of a network, if it was saved from one that `WRAPPERS` were around.

    Args:
        state: name -> weight.
        own: names of the network without them.
    """
    found = dict(state)
    for wrapper in WRAPPERS:
        if not found.keys() >= set(own):
            found = {name.replace(wrapper, "", 1): value for name, value in found.items()}
    return found


def _part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Name -> value of what is kept of a part of the `Segmenter`."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _differences(source: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name -> its shape there and here, of the weights that differ in it."""
    shapes = {
        name: tuple(tuple(getattr(state[name], "shape", ())) if name in state else "absent" for state in (source, own))
        for name in (*own, *source)
    }
    return {name: (there, here) for name, (there, here) in shapes.items() if there != here}


def _require_none(checkpoint: Path, other: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (there, here) in other.items():
        raise RunError(
            f"{checkpoint} holds another network: {name} is {there} there and {here} here",
            fix="make model.network the one that was trained, or name another checkpoint",
        )


def _require_finite(checkpoint: Path, source: Mapping[str, Any]) -> None:
    spoilt = first_not_finite(source)
    if spoilt is not None:
        raise RunError(f"{checkpoint}: {spoilt} is not finite, the training diverged", fix="name another checkpoint")


def decoder_and_head(network: nn.Module, patch_size: Sequence[int]) -> tuple[list[str], list[str]]:
    """Find a network's decoder and head by passing one patch of zeros through it.

    Of the modules that own parameters or buffers, in the order in which they run, the decoder is those after the last
    one whose feature map has the fewest voxels, less any that run before as well. The head is the end of the decoder:
    those last modules whose feature maps have as many channels as the network's output.

    Args:
        network: maps `(B, 1, H, W, D)` to `(B, C, H, W, D)`; neither its state nor its modes are changed.
        patch_size: H, W, D of the patch.

    Returns:
        Names of the modules of decoder and head, as in `network.named_modules()`, in the order in which they run; both
        empty for a network that has no decoder.
    """
    steps, channels = _trace(network, patch_size)
    fewest = min((step.voxels for step in steps), default=0)
    coarsest = max((index for index, step in enumerate(steps) if step.voxels == fewest), default=0)
    before = {step.layer for step in steps[: coarsest + 1]}
    after = [step for step in steps[coarsest + 1 :] if step.layer not in before]
    last = list(takewhile(lambda step: step.channels == channels, reversed(after)))
    decoder, head = (list(dict.fromkeys(step.layer for step in part)) for part in (after, reversed(last)))
    return decoder, head


def freeze_all_but(network: nn.Module, layers: Collection[str]) -> None:
    """Train only some layers.

    The others get no gradients, and are set to evaluation mode, so that normalisation neither uses nor updates
    statistics with the new data. Lightning keeps the modes that a network has when a training starts.

    Args:
        network: any module.
        layers: names of modules that go on learning, as in `network.named_modules()`.
    """
    modules = dict(network.named_modules())
    network.requires_grad_(False)
    for name, module in modules.items():
        if name in layers:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
        elif _has_state(module):
            module.training = False  # not eval(), which would reach the modules within it


def freeze(network: nn.Module, layers: Layers, patch_size: Sequence[int], heads: nn.Module | None = None) -> None:
    """Train only a part of a network, and log its number of parameters.

    Args:
        network: maps `(B, 1, H, W, D)` to `(B, C, H, W, D)`.
        layers: the part.
        patch_size: H, W, D of a patch that the network takes.
        heads: outputs per task after the network, which train whatever the part.

    Raises:
        ConfigError: the network has no such part.
    """
    if layers != "all":
        decoder, head = decoder_and_head(network, patch_size)
        chosen = decoder if layers == "decoder" else head
        if not chosen:
            raise ConfigError(
                f"model.finetune.layers={layers}: {type(network).__name__} has no {layers} that can be identified",
                fix="use all, or a network whose feature maps become coarser and then finer again",
            )
        freeze_all_but(network, chosen)
    parts = [network] if heads is None else [network, heads]
    sizes = [(parameter.numel(), parameter.requires_grad) for part in parts for parameter in part.parameters()]
    trained, total = sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
    logger.info("fine-tuning %s: %s of %s parameters train", layers, f"{trained:,}", f"{total:,}")


class _Step(NamedTuple):
    """A module of a forward pass and its feature map; a module without one, such as a gate, has 0 channels."""

    layer: str
    channels: int
    voxels: float


def _trace(network: nn.Module, patch_size: Sequence[int]) -> tuple[list[_Step], int]:
    """Pass zeros through a network: the modules with a state, in order, and the number of output channels."""
    steps: list[_Step] = []

    def keep(layer: str) -> Any:
        def add(module: nn.Module, inputs: Any, output: Any) -> None:
            is_map = isinstance(output, torch.Tensor) and output.ndim == 2 + len(patch_size)
            shape = (output.shape[1], math.prod(output.shape[2:])) if is_map else (0, math.inf)
            steps.append(_Step(layer, *shape))

        return add

    parts = dict(network.named_modules())
    modes = {name: module.training for name, module in parts.items()}
    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items() if _has_state(part)]
    like = next(network.parameters())
    network.eval()
    try:
        with torch.no_grad():
            window = torch.zeros(1, input_channels(network), *patch_size, dtype=like.dtype, device=like.device)
            output = network(window)
    finally:
        for handle in handles:
            handle.remove()
        for name, part in parts.items():
            part.training = modes[name]
    return steps, output.shape[1]


def _has_state(module: nn.Module) -> bool:
    """Whether a module owns parameters or buffers itself; normalisation without weights may have buffers alone."""
    return any(True for own in (module.parameters, module.buffers) for _ in own(recurse=False))
