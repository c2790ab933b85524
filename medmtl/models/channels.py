"""Number of input and output channels of a network, and whether it fits the patches and the loss of a training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medmtl.errors import ConfigError


def input_channels(network: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution; 1 without a convolution."""
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


def one_line(error: Exception) -> str:
    """An error of a library as the end of a message: its kind and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
