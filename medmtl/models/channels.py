"""Number of input channels of a network."""

from torch import nn


def input_channels(network: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution; 1 without a convolution."""
    return next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv3d)), 1)
