"""Prediction of whole volumes in sliding windows, with feature statistics collected on the way."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.data import MetaTensor
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from torch import nn

from medmtl.models.outputs import Outputs
from medmtl.models.task_heads import TaskHeads
from medmtl.ood.evidence.features import FeatureTap

# Logits of one volume, of all channels together, that are blended in single precision: 2 GB.
MOST_VALUES = 500_000_000


class VolumePredictor:
    """Logits and foreground probability of whole volumes.

    Args:
        network: maps `(B, C, H, W, D)` to one logit, `(B, 1, H, W, D)`, or to the features that `heads` take.
        patch_size: window size, voxels a side.
        overlap: fraction of a window that the next one overlaps, in [0, 1).
        window_batch: windows computed together.

    Attributes:
        heads: the last layer of a network with outputs per task; None with one output for all.
    """

    def __init__(self, network: nn.Module, patch_size: Sequence[int], overlap: float, window_batch: int) -> None:
        self.network = network
        self.patch_size = tuple(patch_size)
        self.overlap = overlap
        self.window_batch = window_batch
        self.heads: TaskHeads | None = None

    @property
    def outputs(self) -> Outputs:
        """What the output channels stand for."""
        return Outputs.shared() if self.heads is None else self.heads.outputs

    def __call__(self, image: MetaTensor, tap: FeatureTap | None = None, head: str | None = None) -> MetaTensor:
        """Predict one volume.

        Args:
            image: `(C, h, w, d)` in a working space.
            tap: see `logits`.
            head: see `logits`.

        Returns:
            Foreground probability, `(1, h, w, d)` float32 in [0, 1], with the image's affine.
        """
        return self.probability(self.logits(image, tap, head), head)

    def probability(self, logits: MetaTensor, head: str | None = None) -> MetaTensor:
        """Foreground probability `(1, h, w, d)`, in [0, 1], of the logits of a head."""
        foreground = self.outputs.heads[head].foreground(logits.as_tensor())
        return MetaTensor(torch.sigmoid(foreground), affine=logits.affine)

    def logits(self, image: MetaTensor, tap: FeatureTap | None = None, head: str | None = None) -> MetaTensor:
        """The logits of one head for one volume, blended where windows overlap.

        Args:
            image: `(C, h, w, d)` in a working space.
            tap: collects statistics of its layers, every voxel of the image counted once, in the window whose centre
                is nearest where windows overlap, and padding not at all.
            head: the task whose output is wanted; None for a network with one output for all.

        Returns:
            `(channels, h, w, d)` float32, with the image's affine; float16 where several channels of a large volume
            would take more than 2 GB.
        """
        return self.logits_of(image, [head], tap)[0]

    def logits_of(
        self, image: MetaTensor, heads: Sequence[str | None], tap: FeatureTap | None = None
    ) -> list[MetaTensor]:
        """As `logits`, of several heads in one pass."""
        weights = self._window_weights(image.shape[1:])
        channels, places_of_heads = self.outputs.of(heads)

        volume = image.as_tensor()[None]
        # Windows are blended in the type of the volume that they are cut from, see `run`.
        large = len(channels) > 1 and len(channels) * math.prod(image.shape[1:]) > MOST_VALUES
        half = large and min(image.shape[1:]) >= max(self.patch_size)

        def compute(windows: torch.Tensor) -> torch.Tensor:
            found = self.network(windows)
            return found if self.heads is None else self.heads(found, [channels])

        def run(windows: torch.Tensor, places: list[list[slice]]) -> torch.Tensor:
            if half:
                windows = torch.cat([volume[tuple(place)] for place in places])
            if tap is None:
                return compute(windows)
            starts = [[side.start for side in place[2:]] for place in places]
            counted = [[along[start] for along, start in zip(weights, of_window, strict=True)] for of_window in starts]
            with tap.weighing([torch.stack(axis) for axis in zip(*counted, strict=True)]):
                return compute(windows)

        blended = sliding_window_inference(
            volume.half() if half else volume,
            self.patch_size,
            self.window_batch,
            run,
            overlap=self.overlap,
            mode="gaussian",
            cval=float(image.min()),
            with_coord=True,
        )
        found = blended[0] if half else blended[0].float()
        return [MetaTensor(found[place], affine=image.affine) for place in places_of_heads]

    def _window_weights(self, shape: Sequence[int]) -> list[dict[int, torch.Tensor]]:
        """Along each axis: start of a window -> 1 for the voxels that count in it, 0 for all others.

        A voxel counts in the window whose centre is nearest along each axis, where the edge of the window, which the
        network pads with zeros, is farthest; a voxel of the padding counts in none. Windows lie on a grid, so the
        weight of a voxel is the product over the axes. (An equal weight for every window that covers a voxel would need
        the whole map of a layer in the product; this needs 42 % of it, for windows of 48 voxels that overlap by a
        quarter.)
        """
        weights = []
        for size, window in zip(shape, self.patch_size, strict=True):
            padded = max(size, window)
            # The step of sliding_window_inference: a whole window where it is as long as the volume.
            step = window if window == padded else max(int(window * (1 - self.overlap)), 1)
            starts = [place.start for (place,) in dense_patch_slices((padded,), (window,), (step,))]
            before = (padded - size) // 2
            borders = [(left + right + window) // 2 for left, right in pairwise(starts)]
            of_window = {}
            for start, first, last in zip(starts, [before, *borders], [*borders, before + size], strict=True):
                of_window[start] = torch.zeros(window)
                of_window[start][first - start : last - start] = 1
            weights.append(of_window)
        return weights
