"""GraphNetwork: a network that is a graph run by another program, in the place of the module that it was."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class GraphNetwork(nn.Module):
    """Runs a graph that gives logits and feature maps, and shows each feature map under the name of its layer.

    It passes through a module of that name, so that what hooks layers of a network, as `FeatureTap` does, finds it.

    Args:
        run: windows `(B, C, H, W, D)` float32 -> logits `(B, M, H, W, D)`, and the feature map of each layer.
        layers: names of the layers, in the order of their feature maps.
        channels: of the images that it takes.
    """

    def __init__(self, run: Callable[[Tensor], Sequence[Tensor]], layers: Sequence[str], channels: int) -> None:
        super().__init__()
        self._run = run
        self._layers = list(layers)
        self.image_channels = channels
        self._place = nn.Parameter(torch.zeros(()), requires_grad=False)  # its device and type are the network's
        for layer in layers:
            parent: nn.Module = self
            for part in layer.split("."):
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Identity())
                parent = parent.get_submodule(part)

    def forward(self, windows: Tensor) -> Tensor:
        """The logits of windows, float32 and on the device of the windows."""
        logits, *features = (found.to(windows.device) for found in self._run(windows.float()))
        for layer, found in zip(self._layers, features, strict=True):
            self.get_submodule(layer)(found)
        return logits
