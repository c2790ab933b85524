"""FeatureTap: hooks on named layers of any network that keep statistics of the feature maps, never the maps."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

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
    takes a third of the time. In three trained networks of `multitask-open.yaml` and nine volumes this changed no
    logarithm of a singular value by more than 1e-5.

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
        self._known: dict[Any, Any] = {}

    @contextmanager
    def weighing(self, shares: Sequence[torch.Tensor]) -> Iterator[None]:
        """Add the feature maps of the network's passes within the block.

        Args:
            shares: how much each input voxel counts: the product of what its places along the three axes count,
                `(B, H)`, `(B, W)` and `(B, D)`; averaged over the input voxels that a voxel of a coarser layer stands
                for.
        """
        weights = _Weights(shares, self._known)

        def keep(layer: str) -> Any:
            return lambda module, inputs, output: self._add(layer, output, weights)

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
        size = output.shape[2:]
        channels = output.shape[1]
        gram = torch.zeros(channels, channels, dtype=torch.float64, device=output.device)
        total = torch.zeros(channels, dtype=torch.float64, device=output.device)
        exact = output.dtype != torch.float32 or size.numel() < MANY_VOXELS * channels
        for features, (box, root) in zip(output, weights.at(size), strict=True):
            counted = features[(slice(None), *box)]
            if exact:
                counted = counted.double()
            roots = None if root is None else root.to(counted)
            weighted = (counted if roots is None else counted * roots).flatten(1)
            gram += _gram(weighted)
            total += (weighted.sum(1) if roots is None else weighted @ roots.flatten()).double()
        if layer in self.grams:
            gram, total = self.grams[layer] + gram, self.totals[layer] + total
        self.grams[layer], self.totals[layer] = gram, total
        self.sizes[layer] = size.numel()
        self.voxels[layer] = self.voxels.get(layer, 0.0) + weights.voxels(size)
        if layer in self.pooled:
            self._windows.setdefault(layer, []).append(_pooled(output))


class _Along(NamedTuple):
    """What the voxels of a layer count along one axis of a window.

    Attributes:
        part: those that count at all.
        roots: square roots of what they count.
        total: the sum of what they count.
        whole: whether each of them counts as one.
    """

    part: slice
    roots: torch.Tensor
    total: float
    whole: bool


class _Weights:
    """What the voxels of a batch of windows count, at the sizes of the layers.

    Layers share sizes, windows share places along an axis, and the mean of a product over a box is the product of the
    means: no weight is computed twice, nor at the size of the input.

    Args:
        shares: see `FeatureTap.weighing`.
        known: what was computed for earlier windows; it is added to.
    """

    def __init__(self, shares: Sequence[torch.Tensor], known: dict[Any, Any]) -> None:
        self.ndim = 2 + len(shares)
        self._shares = shares
        self._known = known
        self._keys = [[share.numpy().tobytes() for share in axis.cpu()] for axis in shares]

    def at(self, size: torch.Size) -> list[tuple[tuple[slice, ...], torch.Tensor | None]]:
        """Of each window, the box of the voxels that count, and the square roots of what they count, `(h, w, d)`.

        The roots are None where each of them counts as one.
        """
        return [self._box(number, size) for number in range(len(self._keys[0]))]

    def voxels(self, size: torch.Size) -> float:
        """The sum of the weights."""
        windows = range(len(self._keys[0]))
        return sum(math.prod(along.total for along in self._axes(number, size)) for number in windows)

    def _box(self, number: int, size: torch.Size) -> tuple[tuple[slice, ...], torch.Tensor | None]:
        key = (size, *(keys[number] for keys in self._keys))
        if key not in self._known:
            axes = self._axes(number, size)
            h, w, d = (along.roots for along in axes)
            whole = all(along.whole for along in axes)
            roots = None if whole else h[:, None, None] * w[:, None] * d
            self._known[key] = tuple(along.part for along in axes), roots
        return self._known[key]

    def _axes(self, number: int, size: torch.Size) -> list[_Along]:
        found = []
        for shares, keys, length in zip(self._shares, self._keys, size, strict=True):
            key = length, keys[number]
            if key not in self._known:
                self._known[key] = _along(shares[number], length)
            found.append(self._known[key])
        return found


def _along(share: torch.Tensor, length: int) -> _Along:
    pooled = functional.adaptive_avg_pool1d(share[None, None], length)[0, 0]
    counted = pooled.nonzero().flatten().tolist() or [0]
    part = slice(counted[0], counted[-1] + 1)
    return _Along(part, pooled[part].sqrt(), float(pooled.double().sum()), bool((pooled[part] == 1).all()))


def _gram(features: torch.Tensor) -> torch.Tensor:
    """F F^T of channels by voxels `(C, n)`, `(C, C)` float64."""
    if features.dtype != torch.float32:
        return features @ features.mT
    whole = features.shape[1] // PIECE * PIECE
    rest = features[:, whole:].double()
    pieces = features[:, :whole].unflatten(1, (-1, PIECE)).transpose(0, 1)
    return torch.bmm(pieces, pieces.mT).sum(0, dtype=torch.float64).addmm_(rest, rest.mT)


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
