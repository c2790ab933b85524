"""Number of input and output channels of a network."""

from collections.abc import Sequence

import torch
from torch import nn


def input_channels(network: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution; 1 without a convolution."""
    return next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv3d)), 1)


def output_channels(network: nn.Module, patch_size: Sequence[int]) -> int:
    """Channels that a network gives for a patch of zeros; its modes and statistics stay as they are.

    Args:
        network: maps `(B, C, H, W, D)` to `(B, channels, H, W, D)`.
        patch_size: voxels a side.
    """
    modes = {part: part.training for part in network.modules()}
    like = next(network.parameters())
    network.eval()
    with torch.no_grad():
        found = network(torch.zeros(1, input_channels(network), *patch_size, dtype=like.dtype, device=like.device))
    for part, mode in modes.items():
        part.training = mode
    return int(found.shape[1])
