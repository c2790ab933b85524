"""FeatureTap: hooks on named layers of any network that accumulate statistics of the feature maps, not the maps."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medmtl.errors import ConfigError
from medmtl.ood.evidence.evidence import LayerEvidence
from medmtl.ood.evidence.gram import GramMatrix
from medmtl.ood.evidence.window_weights import WindowWeights

# Maps with so many voxels a channel in a window are multiplied in float32.
MANY_VOXELS = 3

POOLED_NUMBERS = 1000  # Gonzalez et al. (MICCAI 2021) keep 10,000; these are kept for every image
POOLED_WINDOWS = 64


class FeatureTap:
    """Accumulates the Gram matrix and the channel means of each layer's feature map over the windows of one volume.

    With F the feature map as a matrix of voxels by channels, the Gram matrix is F^T F: the eigenvalues are the squared
    singular values of F, at a memory of channels squared.

    A Gram matrix squares the condition number, so sums over the slabs of a window are float64, and so are the products
    of maps with fewer than 3 voxels a channel in a window, which may be next to singular. The products of others are
    float32, which takes a third to a half of the time. Logarithms of singular values down to a thousandth of the
    largest are right to 2e-3 then, those of smaller ones are noise: see `RELATIVE_FLOOR` of `medmtl.ood.signature`.

    Args:
        network: any module.
        layers: names of its submodules, as in `network.named_modules()`.
        pooled: those of the layers whose map is kept for each window, pooled to at most 1,000 numbers.

    Raises:
        ConfigError: a layer does not exist; lists those there are.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], pooled: Collection[str] = ()) -> None:
        modules = dict(network.named_modules())
        for layer in layers:
            if layer not in modules or not layer:
                known = ", ".join(name for name in modules if name)
                raise ConfigError(f"the network has no layer {layer!r}", fix=f"use some of: {known}")
        if not layers:
            raise ConfigError("no layer is named for the signature", fix="name at least one")
        unknown = sorted(set(pooled) - set(layers))
        if unknown:
            raise ConfigError(f"layer {unknown[0]!r} is pooled and not tapped", fix="name it among the layers, too")
        self.modules = {layer: modules[layer] for layer in layers}
        self.pooled = frozenset(pooled)
        self.reset()

    def per_voxel(self) -> dict[str, torch.Tensor]:
        """Layer -> F^T F / n, `(C, C)` float64 on the CPU, with n the layer's voxels within the image."""
        return {layer: found.gram.cpu() / found.voxels for layer, found in self.gram_matrices.items()}

    def evidence(self) -> dict[str, LayerEvidence]:
        """Layer -> its statistics; of windows at most 64, evenly spaced over the volume."""
        return {
            layer: LayerEvidence(
                gram=gram,
                mean=self.gram_matrices[layer].total.cpu() / self.gram_matrices[layer].voxels,
                voxels=self.gram_matrices[layer].voxels,
                windows=_evenly_spaced(torch.cat(self._windows[layer])) if layer in self.pooled else None,
            )
            for layer, gram in self.per_voxel().items()
        }

    def reset(self) -> None:
        """Start a new volume."""
        self.gram_matrices: dict[str, GramMatrix] = {}
        self.sizes: dict[str, int] = {}
        self._windows: dict[str, list[torch.Tensor]] = {}

    @contextmanager
    def weighing(self, weights: Sequence[torch.Tensor]) -> Iterator[None]:
        """Add the feature maps of the network's passes within the block.

        Args:
            weights: of the input voxels, as factors along the three axes, `(B, H)`, `(B, W)` and `(B, D)`; the
                weight of a voxel of a coarser layer is the mean over the input voxels that it covers.
        """
        windows = WindowWeights(weights)

        def keep(layer: str) -> Any:
            return lambda module, inputs, output: self._add(layer, output, windows)

        handles = [module.register_forward_hook(keep(layer)) for layer, module in self.modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, layer: str, output: torch.Tensor, windows: WindowWeights) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != 2 + len(windows.axes):
            raise ConfigError(f"layer {layer!r} does not return one feature map", fix="name a layer that does")
        output = output.detach()
        size = output.shape[2:]
        if layer not in self.gram_matrices:
            exact = output.dtype != torch.float32 or size.numel() < MANY_VOXELS * output.shape[1]
            self.gram_matrices[layer] = GramMatrix(output.shape[1], exact, output.device)
        box = windows.box(size)
        self.gram_matrices[layer].add(output[(slice(None), slice(None), *box.part)], box.roots)
        self.sizes[layer] = size.numel()
        if layer in self.pooled:
            self._windows.setdefault(layer, []).append(_pooled(output))


def _pooled(maps: torch.Tensor) -> torch.Tensor:
    """Maps `(B, C, h, w, d)` averaged over pairs of voxels until they are small, `(B, P)` float32 on the CPU."""
    maps = maps.float()
    while maps[0].numel() > POOLED_NUMBERS and max(maps.shape[2:]) > 1:
        pair = [min(2, size) for size in maps.shape[2:]]
        maps = functional.avg_pool3d(maps, pair)
    return maps.flatten(1).cpu()


def _evenly_spaced(windows: torch.Tensor) -> torch.Tensor:
    count = min(len(windows), POOLED_WINDOWS)
    return windows[torch.linspace(0, len(windows) - 1, count).round().long()].clone()
