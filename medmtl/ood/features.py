"""FeatureTap: hooks on named layers of any network that keep statistics of the feature maps, never the maps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medmtl.errors import ConfigError


class FeatureTap:
    """Accumulates the Gram matrix of each layer's feature map over the windows of one volume.

    With F the feature map as a matrix of voxels by channels, the Gram matrix is F^T F: the eigenvalues are the squared
    singular values of F, at a memory of channels squared. Sums are float64, and float32 features are multiplied in
    float64: a Gram matrix squares the condition number.

    Args:
        network: any module.
        layers: names of its submodules, as in `network.named_modules()`.

    Raises:
        ConfigError: a layer does not exist; lists those there are.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        modules = dict(network.named_modules())
        for layer in layers:
            if layer not in modules or not layer:
                known = ", ".join(name for name in modules if name)
                raise ConfigError(f"the network has no layer {layer!r}", fix=f"use some of: {known}")
        if not layers:
            raise ConfigError("no layer is named for the signature", fix="name at least one")
        self.modules = {layer: modules[layer] for layer in layers}
        self.grams: dict[str, torch.Tensor] = {}
        self.voxels: dict[str, float] = {}

    def per_voxel(self) -> dict[str, torch.Tensor]:
        """Layer -> F^T F / n, `(C, C)` float64 on the CPU, with n the layer's voxels within the image."""
        return {layer: gram.cpu() / self.voxels[layer] for layer, gram in self.grams.items()}

    def reset(self) -> None:
        """Forget the volume."""
        self.grams, self.voxels = {}, {}

    @contextmanager
    def weighing(self, weights: torch.Tensor) -> Iterator[None]:
        """Add the feature maps of the network's passes within the block.

        Args:
            weights: how much each input voxel counts, `(B, 1, H, W, D)`; averaged over the input voxels that a voxel
                of a coarser layer stands for.
        """

        def keep(layer: str) -> Any:
            return lambda module, inputs, output: self._add(layer, output, weights)

        handles = [module.register_forward_hook(keep(layer)) for layer, module in self.modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, layer: str, output: torch.Tensor, weights: torch.Tensor) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != weights.ndim:
            raise ConfigError(f"layer {layer!r} does not return one feature map", fix="name a layer that does")
        weights = weights.to(output.device)
        if output.shape[2:] != weights.shape[2:]:
            weights = functional.adaptive_avg_pool3d(weights, list(output.shape[2:]))  # type: ignore[arg-type]
        features = output.detach().movedim(1, -1).reshape(-1, output.shape[1]).double()
        weights = weights.reshape(-1).double()
        gram = features.T @ (features * weights[:, None])
        self.grams[layer] = self.grams[layer] + gram if layer in self.grams else gram
        self.voxels[layer] = self.voxels.get(layer, 0.0) + float(weights.sum())
