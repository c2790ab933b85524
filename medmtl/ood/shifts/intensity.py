"""Shifts of the intensities: artefacts of the scanner and the patient, other contrasts, and nonsense.

Strengths are relative to the image's own range, percentiles 0.5 to 99.5, so that CT, MR and PET are shifted alike. A
change therefore gets the image on a unit scale: 0 and 1 are the ends of that range, and few voxels lie beyond.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from numpy.polynomial.legendre import leggrid3d
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import interpolate
from torch.random import fork_rng

PERCENTILES = (0.5, 99.5)

# Unit-scale volume (H, W, D), spacing in mm, strength, randomness -> unit-scale volume (H, W, D).
UnitChange = Callable[[Tensor, Tensor, float, np.random.Generator], Tensor]
# Volume (1, H, W, D), strength, randomness -> volume.
Change = Callable[[MetaTensor, float, np.random.Generator], MetaTensor]


def on_unit_scale(change: UnitChange) -> Change:
    """Make a change on the unit scale one of an image `(1, H, W, D)` on its own grid and scale."""

    @wraps(change)
    def changed(image: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        voxels = image.as_tensor()[0].float()
        low, high = np.percentile(voxels.numpy(), PERCENTILES)
        if low == high:  # almost empty, or constant
            low, high = float(voxels.min()), float(voxels.max())
        span = float(high - low) or 1.0
        result = change((voxels - float(low)) / span, affine_to_spacing(image.affine), strength, random)
        return MetaTensor((result.float() * span + float(low))[None], affine=image.affine)

    return changed


@on_unit_scale
def noise(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Gaussian noise; strength: its standard deviation."""
    return volume + strength * torch.from_numpy(random.standard_normal(volume.shape, dtype=np.float32))


@on_unit_scale
def bias_field(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Smooth multiplicative field, the exponential of a Legendre series of degree 3 (as MONAI's RandBiasField).

    Strength: the largest absolute logarithm of the field, 0.7 where it halves or doubles; most of it is at the edges.
    """
    degrees = np.add.outer(np.add.outer(np.arange(4), np.arange(4)), np.arange(4))
    coefficients = np.where((degrees > 0) & (degrees <= 3), random.standard_normal(degrees.shape), 0)
    rows, columns, slices = (np.linspace(-1, 1, size) for size in volume.shape)
    logarithm = leggrid3d(rows, columns, slices, coefficients)
    logarithm *= strength / np.abs(logarithm).max()
    return volume * torch.from_numpy(np.exp(logarithm, dtype=np.float32, casting="same_kind"))


@on_unit_scale
def motion(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """The patient moves once, when half of k-space is sampled (Shaw et al. 2019, as torchio's Motion).

    The middle of k-space is that of the patient at rest. Strength: the turn in degrees about each axis; the move along
    each axis is half a percent of the field of view a degree.
    """
    extent = spacing.numpy() * volume.shape
    signs = random.choice([-1.0, 1.0], size=(2, 1, 3))
    import torchio

    move = torchio.Motion(
        degrees=signs[0] * strength,
        translation=signs[1] * strength * 0.005 * extent,
        times=np.array([0.5]),
        image_interpolation="linear",
    )
    # The affine of the scan would add nothing but the risk of a direction that SimpleITK does not take.
    scan = torchio.ScalarImage(tensor=volume[None], affine=np.diag([*spacing.tolist(), 1.0]))
    with fork_rng(devices=[]):  # a transform of torchio draws whether it happens, here always
        return move(scan).data[0]


@on_unit_scale
def ghosting(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Three to six ghosts along one axis; strength: how much of their planes in k-space is lost, 0 to 1."""
    import torchio

    transform = torchio.Ghosting(
        num_ghosts=int(random.integers(3, 7)), axis=int(random.integers(3)), intensity=strength, restore=0.02
    )
    with fork_rng(devices=[]):
        return transform(volume[None])[0]


@on_unit_scale
def spikes(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Two spikes in k-space, each a plane wave in the image; strength: the amplitude of a wave.

    The waves lie in the inner half of k-space, at least 4 voxels long along each axis, so that resampling keeps them.
    """
    result = volume.clone()
    for _ in range(2):
        cycles = [random.uniform(-0.25, 0.25) * torch.arange(size, dtype=torch.float64) for size in volume.shape]
        rows, columns, slices = (torch.exp(2j * torch.pi * axis) for axis in cycles)
        plane = torch.einsum("i,j->ij", rows, columns).to(torch.complex64)
        result += strength * torch.einsum("ij,k->ijk", plane, slices.to(torch.complex64)).real
    return result


@on_unit_scale
def blur(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Gaussian blur, equal in mm along all axes; strength: sigma in voxels of the same volume with equal sides."""
    sigma = strength * spacing.log().mean().exp() / spacing
    return torch.from_numpy(gaussian_filter(volume.numpy(), sigma.tolist()))


@on_unit_scale
def anisotropy(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Thick slices along one axis, each a mean of those about it; strength: how many times as thick.

    The axis is one of the two longer ones, since few slices cannot be made much fewer. The image is interpolated back
    onto its own grid.
    """
    axis = int(random.choice(np.flatnonzero(np.array(volume.shape) >= np.median(volume.shape))))
    size = volume.shape[axis]
    lines = volume.movedim(axis, 0).reshape(1, 1, size, -1)
    thick = (max(2, round(size / strength)), lines.shape[-1])
    averaged = interpolate(lines, size=thick, mode="bilinear", antialias=True)
    restored = interpolate(averaged, size=lines.shape[2:], mode="bilinear")
    return restored.reshape(volume.movedim(axis, 0).shape).movedim(0, axis).contiguous()


@on_unit_scale
def contrast(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Gamma curve within the range, brighter or darker; strength: the absolute logarithm of gamma."""
    gamma = float(np.exp(random.choice([-strength, strength])))
    return torch.where((volume > 0) & (volume < 1), volume.clamp(0, 1) ** gamma, volume)


@on_unit_scale
def inverted(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Bright becomes dark."""
    return 1 - volume


@on_unit_scale
def noise_only(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Nonsense: every voxel drawn uniformly from the range."""
    return torch.from_numpy(random.random(volume.shape, dtype=np.float32))


@on_unit_scale
def constant(volume: Tensor, spacing: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Nonsense: one value of the range everywhere."""
    return torch.full_like(volume, random.random())


def empty(image: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
    """Nonsense: zeros."""
    return MetaTensor(torch.zeros_like(image.as_tensor(), dtype=torch.float32), affine=image.affine)
