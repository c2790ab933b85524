"""Number of input and output channels of a network, and whether it fits the patches and the loss of a training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medmtl.errors import ConfigError
from medmtl.models.graph_network import GraphNetwork


def input_channels(network: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution; 1 without a convolution."""
    if isinstance(network, GraphNetwork):
        return network.image_channels
    return next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv3d)), 1)


def dry_pass(network: nn.Module, patch_size: Sequence[int], training: bool = False) -> Tensor:
    """What a network gives for a patch of zeros; its modes and statistics, and random numbers, stay as they are.

    Args:
        network: maps `(B, C, H, W, D)` to `(B, channels, H, W, D)`.
        patch_size: voxels a side.
        training: pass it as in a training, where some layers want more than one voxel.

    Returns:
        `(1, channels, H, W, D)`.

    Raises:
        ConfigError: the network does not take the patch, or gives something of another size.
    """
    modes = {part: part.training for part in network.modules()}
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    like = next(network.parameters())
    network.train(training)
    size = " x ".join(map(str, patch_size))
    what, fix = f"model.network does not take a patch of {size} voxels", "change data.patch_size, or the network"
    try:
        with torch.no_grad(), torch.random.fork_rng([like.device] if like.device.type == "cuda" else []):
            zeros = torch.zeros(1, input_channels(network), *patch_size, dtype=like.dtype, device=like.device)
            found = network(zeros)
    except Exception as error:  # networks raise whatever their layers do
        raise ConfigError(f"{what} ({one_line(error)})", fix=fix) from None
    finally:
        for part, mode in modes.items():
            part.training = mode
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
    if not isinstance(found, Tensor):
        raise ConfigError(f"model.network gives a {type(found).__name__}, not a tensor", fix="wrap it")
    if tuple(found.shape[2:]) != tuple(patch_size):
        given = " x ".join(map(str, found.shape[2:]))
        raise ConfigError(f"model.network gives {given} voxels for a patch of {size}", fix=fix)
    return found


def check_channels(network: nn.Module, features: int, shared: bool, stacked: int) -> None:
    """Check that a network takes the images of the tasks, and gives what their outputs are made of.

    Args:
        network: of the model.
        features: channels that it gives.
        shared: whether it has one output for all tasks.
        stacked: channels of the images.

    Raises:
        ConfigError: it takes or gives more or fewer.
    """
    if shared and features != 1:
        raise ConfigError(
            f"model.network gives {features} channels, and one output for all tasks is one",
            fix="set its out_channels to 1, or model.outputs to per_task",
        )
    taken = input_channels(network)
    if taken != stacked:
        raise ConfigError(
            f"model.network takes {taken} channels and the tasks stack {stacked}",
            fix="set its in_channels, or `channel` of the tasks",
        )


def check_loss(loss: Callable[[Tensor, Mapping[str, Any]], Tensor], found: Tensor, classes: int) -> None:
    """Check that a loss takes what a network gives, with a label of the first task.

    Args:
        loss: of what a network gives and a batch.
        found: what it gives, `(1, F, H, W, D)`.
        classes: of the first task.

    Raises:
        ConfigError: it does not.
    """
    label = torch.zeros(1, 1, *found.shape[2:], dtype=torch.uint8)
    label[..., : found.shape[-1] // 2] = 1
    batch = {"label": label, "task": torch.tensor([0]), "marked": torch.ones(1, max(classes, 1), dtype=torch.bool)}
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            loss(found, batch)
    except Exception as error:  # losses raise whatever their operations do
        why = f"model.loss does not take what model.network gives ({one_line(error)})"
        raise ConfigError(why, fix="change one of the two") from None


def one_line(error: Exception) -> str:
    """An error of a library as the end of a message: its kind and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
