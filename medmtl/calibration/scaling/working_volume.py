"""Image and probability in the working space, as input of local temperature scaling; and a sample of voxels."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from medmtl.calibration.pieces import PIECE
from medmtl.calibration.scaling.histogram import to_logits

# A voxel's neighbourhood: 3 x 3 x 3 voxels with a dilation of 2, 27 of the 125 voxels of a 5^3 cube.
STEP = 2
TAPS = 27
INPUTS = 2 * TAPS

# Voxels of a case; neighbours are highly correlated.
SAMPLED = 2000

# Logits are clipped to this absolute value.
MAXIMUM_LOGIT = 10.0


@dataclass(frozen=True, eq=False)
class WorkingVolume:
    """Image and probability in the working space of a preprocessing.

    Args:
        image: preprocessed intensities, about -1 to 1 or z-scores, `(h, w, d)`.
        probability: of foreground, in [0, 1], `(h, w, d)`.
        from_native: matrix from voxel indices of the image's own grid to those of the working space, `(4, 4)` float64.
    """

    image: Tensor
    probability: Tensor
    from_native: Tensor

    @classmethod
    def of(cls, image: Tensor, probability: Tensor, affine: Tensor, native_affine: Tensor) -> "WorkingVolume":
        """From image, probability, and the affines `(4, 4)` of the working space and of the image's own grid."""
        to_working = torch.linalg.inv(affine.cpu().double())
        return cls(image, probability, to_working @ native_affine.cpu().double())

    @property
    def shape(self) -> torch.Size:
        """Voxels along each axis, `(h, w, d)`."""
        return self.image.shape

    def nearest(self, voxels: Tensor, shape: torch.Size) -> Tensor:
        """The nearest voxels of the working space.

        Args:
            voxels: flat indices on the image's own grid, `(n,)` int64.
            shape: of that grid, `(H, W, D)`.

        Returns:
            Flat indices in the working space, `(n,)` int64; at its border for voxels outside.
        """
        native = torch.stack(torch.unravel_index(voxels, shape), dim=-1).double()
        place = (native @ self.from_native[:3, :3].T + self.from_native[:3, 3]).round().long()
        return _flat(place.clamp(min=0).minimum(torch.tensor(self.shape) - 1), self.shape)

    def neighbourhoods(self, voxels: Tensor) -> Tensor:
        """Logit and intensity in the neighbourhoods of some voxels, with replicate padding.

        Args:
            voxels: flat indices in the working space, `(n,)` int64.

        Returns:
            `(n, 54)` float32: the 27 logits, clipped to [-10, 10] and divided by 5, and the 27 intensities.
        """
        place = torch.stack(torch.unravel_index(voxels, self.shape), dim=-1)
        padded = self._padded.shape[1:]
        steps = torch.cartesian_prod(*[torch.arange(0, 2 * STEP + 1, STEP)] * 3)
        around = _flat(place, padded)[:, None] + _flat(steps, padded)
        return self._padded.flatten(1)[:, around].permute(1, 0, 2).flatten(1)

    @cached_property
    def _padded(self) -> Tensor:
        image, probability = (volume.as_subclass(Tensor).cpu().float() for volume in (self.image, self.probability))
        channels = torch.stack(
            [torch.logit(probability).clamp(-MAXIMUM_LOGIT, MAXIMUM_LOGIT) * (2 / MAXIMUM_LOGIT), image]
        )
        return pad(channels[None], [STEP] * 6, mode="replicate")[0]


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """Some voxels of the region of a validation case, on the image's own grid.

    Attributes:
        patient: of the case.
        inputs: neighbourhood of each in the working space, `(n, 54)` float32, see `WorkingVolume.neighbourhoods`.
        logits: of the native probability, `(n,)` float64.
        label: 0 or 1, `(n,)` float64.
        voxels: number of voxels of the region, which these represent.
    """

    patient: str
    inputs: Tensor
    logits: Tensor
    label: Tensor
    voxels: int


@torch.no_grad()
def sample_voxels(
    probability: Tensor, label: Tensor, region: Tensor, working: WorkingVolume, patient: str
) -> VoxelSample:
    """Sample up to 2000 voxels of a region, one at random from each of as many equal stretches of it.

    Args:
        probability: probability of foreground in [0, 1], on the image's own grid, `(H, W, D)`.
        label: 1 or True where there is foreground, `(H, W, D)`.
        region: True for the voxels that count, bool, `(H, W, D)`.
        working: the same volume in the working space.
        patient: of the case.
    """
    flat = region.as_subclass(Tensor).cpu().reshape(-1)
    inside = int(flat.sum())
    count = min(inside, SAMPLED)
    ranks = spread(inside, count)
    chosen, seen = [], 0
    for places, part in zip(stretches(len(flat)), flat.split(PIECE), strict=True):
        found = places[part]
        chosen.append(found[ranks[(ranks >= seen) & (ranks < seen + len(found))] - seen])
        seen += len(found)
    voxels = torch.cat(chosen)
    logits, labels = (volume.as_subclass(Tensor).cpu().reshape(-1)[voxels] for volume in (probability, label))
    inputs = working.neighbourhoods(working.nearest(voxels, region.shape))
    return VoxelSample(patient, inputs, to_logits(logits), labels.double(), inside)


def spread(inside: int, count: int) -> Tensor:
    """Ranks of `count` of `inside` voxels, one at random from each of as many equal stretches; the same every time."""
    shift = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return ((torch.arange(count) + shift) * (inside / max(count, 1))).long()


def stretches(voxels: int) -> Iterator[Tensor]:
    """The flat indices of a volume, in pieces of at most `PIECE`."""
    for first in range(0, voxels, PIECE):
        yield torch.arange(first, min(first + PIECE, voxels))


def _flat(place: Tensor, shape: torch.Size) -> Tensor:
    """Flat indices of voxels `(n, 3)` of a volume."""
    return (place[:, 0] * shape[1] + place[:, 1]) * shape[2] + place[:, 2]
