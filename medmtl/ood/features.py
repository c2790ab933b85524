"""FeatureTap: hooks on named layers of any network that keep statistics of the feature maps, never the maps."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medmtl.errors import ConfigError
from medmtl.ood.evidence import LayerEvidence

# Maps with so many voxels a channel in a window are multiplied in float32, in pieces of so many voxels.
MANY_VOXELS = 50
PIECE = 256

POOLED_NUMBERS = 1000  # Gonzalez et al. (MICCAI 2021) keep 10,000; these are kept for every image
POOLED_WINDOWS = 64


class FeatureTap:
    """Accumulates the Gram matrix and the channel means of each layer's feature map over the windows of one volume.

    With F the feature map as a matrix of voxels by channels, the Gram matrix is F^T F: the eigenvalues are the squared
    singular values of F, at a memory of channels squared.

    A Gram matrix squares the condition number, so sums over pieces of a map are float64, and so are the products, but
    for maps of at least 50 voxels a channel in a window: their products are float32 within pieces of 256 voxels, which
    takes half the time. In three trained networks of `multitask-open.yaml` and nine volumes this changed no logarithm
    of a singular value by more than 1e-5.

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
        return {layer: gram.cpu() / self.voxels[layer] for layer, gram in self.grams.items()}

    def evidence(self) -> dict[str, LayerEvidence]:
        """Layer -> all that is kept of it; of windows at most 64, evenly spaced over the volume."""
        return {
            layer: LayerEvidence(
                gram=gram,
                mean=self.totals[layer].cpu() / self.voxels[layer],
                voxels=self.voxels[layer],
                windows=_evenly_spaced(torch.cat(self._windows[layer])) if layer in self.pooled else None,
            )
            for layer, gram in self.per_voxel().items()
        }

    def reset(self) -> None:
        """Forget the volume."""
        self.grams: dict[str, torch.Tensor] = {}
        self.totals: dict[str, torch.Tensor] = {}
        self.sizes: dict[str, int] = {}
        self.voxels: dict[str, float] = {}
        self._windows: dict[str, list[torch.Tensor]] = {}

    @contextmanager
    def weighing(self, weights: torch.Tensor) -> Iterator[None]:
        """Add the feature maps of the network's passes within the block.

        Args:
            weights: how much each input voxel counts, `(B, 1, H, W, D)`; averaged over the input voxels that a voxel
                of a coarser layer stands for.
        """
        at = _Weights(weights)

        def keep(layer: str) -> Any:
            return lambda module, inputs, output: self._add(layer, output, at)

        handles = [module.register_forward_hook(keep(layer)) for layer, module in self.modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, layer: str, output: torch.Tensor, weights: "_Weights") -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != weights.ndim:
            raise ConfigError(f"layer {layer!r} does not return one feature map", fix="name a layer that does")
        output = output.detach()
        roots = weights.roots(output.shape[2:]).to(output).flatten(2)
        # With a channel of ones one product gives sums of products, of features and of weights.
        total = _gram(torch.cat([output.flatten(2) * roots, roots], dim=1))
        if layer in self.grams:
            self.grams[layer] = self.grams[layer] + total[:-1, :-1]
            self.totals[layer] = self.totals[layer] + total[:-1, -1]
        else:
            self.grams[layer], self.totals[layer] = total[:-1, :-1], total[:-1, -1]
        self.sizes[layer] = output.shape[2:].numel()
        self.voxels[layer] = self.voxels.get(layer, 0.0) + float(total[-1, -1])
        if layer in self.pooled:
            self._windows.setdefault(layer, []).append(_pooled(output))


class _Weights:
    """Square roots of the weights of a batch of windows, at the sizes of the layers."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.full, self.ndim = weights, weights.ndim
        self._weights = {weights.shape[2:]: weights}
        self._roots: dict[torch.Size, torch.Tensor] = {}

    def roots(self, size: torch.Size) -> torch.Tensor:
        if size not in self._roots:
            if size not in self._weights:
                # From the coarsest that is a whole number of times finer: the same, and sooner done.
                finer = [known for known in self._weights if not any(a % b for a, b in zip(known, size, strict=True))]
                start = self._weights[min(finer, key=torch.Size.numel, default=next(iter(self._weights)))]
                self._weights[size] = functional.adaptive_avg_pool3d(start, list(size))  # type: ignore[arg-type]
            self._roots[size] = self._weights[size].sqrt()
        return self._roots[size]


def _gram(features: torch.Tensor) -> torch.Tensor:
    """F F^T of windows by channels by voxels `(B, C, n)`, summed over the windows, `(C, C)` float64."""
    _, channels, voxels = features.shape
    if features.dtype != torch.float32 or voxels < MANY_VOXELS * channels:
        features = features.double()
        return torch.bmm(features, features.mT).sum(0)
    whole = voxels // PIECE * PIECE
    rest = features[:, :, whole:].double()
    total = torch.bmm(rest, rest.mT).sum(0)
    for window in features[:, :, :whole]:
        pieces = window.unflatten(1, (-1, PIECE)).transpose(0, 1)
        total += torch.bmm(pieces, pieces.mT).double().sum(0)
    return total


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
