"""check_shift: the contract that every shift must fulfil, a user's own too, for tests."""

import pickle
from copy import copy
from itertools import pairwise

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from medmtl.contract import requirements
from medmtl.ood.random_state import global_random_state
from medmtl.ood.shifts.shift import Shift

GRIDS = {
    "isotropic": ((35, 50, 40), np.diag([1.0, 1.0, 1.0, 1.0])),
    "thick slices": ((60, 48, 12), np.array([[0, 0, -8.0, 90], [-1.5, 0, 0, 40], [0, 1.5, 0, -20], [0, 0, 0, 1]])),
    "odd": ((41, 33, 37), np.diag([-2.0, 1.5, 3.0, 1.0])),
}
LEAST_AGREEMENT = 0.98  # of the voxels of a moved label with the moved image of the label


def check_shift(shift: Shift) -> None:
    """Check a shift on synthetic images of three grids: the contract, for tests.

    Args:
        shift: the shift.

    Raises:
        AssertionError: names the requirement that is not met.
        ConfigError: it needs a library that is not installed.
    """
    _require(shift, shift.name and shift.name == shift.name.strip(), "has a name")
    _require(shift, len(shift.strengths) in (0, 5), "has five strengths or none")
    _require(shift, all(one < other for one, other in pairwise(shift.strengths)), "has rising strengths")
    _require(shift, bool(shift.unit) == bool(shift.strengths), "names the unit of its strengths")
    _check_identity(shift)
    for seed, grid in enumerate(GRIDS):
        image = synthetic_image(grid)
        _check_images(shift, image, seed)
        _check_severities(shift, image, seed)
        _check_label(shift, image, seed)


def synthetic_image(grid: str, scale: float = 1.0, offset: float = 0.0) -> MetaTensor:
    """Two ellipsoids with fine texture on a dark ground, no symmetry, `(1, H, W, D)` float32.

    Args:
        grid: one of `GRIDS`.
        scale: factor of the intensities, which are about 0 to 1.
        offset: added to them.
    """
    shape, affine = GRIDS[grid]
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    texture = np.random.default_rng(7).normal(0, 0.08, shape)
    body = (x / 0.7) ** 2 + (y / 0.8) ** 2 + (z / 0.9) ** 2 < 1
    organ = ((x - 0.2) / 0.3) ** 2 + ((y + 0.3) / 0.25) ** 2 + ((z - 0.1) / 0.4) ** 2 < 1
    voxels = body * (0.4 + gaussian_filter(texture, 0.7)) + 0.5 * organ + 0.05 * texture
    return MetaTensor(torch.from_numpy(scale * voxels + offset)[None].float(), affine=torch.from_numpy(affine).double())


def _check_images(shift: Shift, image: MetaTensor, seed: int) -> None:
    before, affine = image.as_tensor().clone(), image.affine.clone()
    for severity in shift.severities:
        state = global_random_state()
        shifted = shift.apply(image, severity, seed)
        _require(
            shift, state == global_random_state(), "leaves the global random numbers of torch and numpy as they are"
        )
        _require(shift, isinstance(shifted, MetaTensor) and shifted.dtype == torch.float32, "gives float32 MetaTensors")
        _require(shift, shifted.ndim == 4 and len(shifted) == 1, "gives (1, H, W, D)")
        _require(shift, torch.isfinite(shifted.as_tensor()).all(), "gives finite intensities")
        kept = shifted.shape == image.shape and torch.equal(shifted.affine, affine)
        _require(shift, shift.moves or kept, "keeps shape and affine unless it moves the organ")
        if severity == shift.severities[-1]:
            _require(shift, _same(shift.apply(image, severity, seed), shifted), "gives the same for the same seed")
        shifted += 1
        same = torch.equal(image.as_tensor(), before) and torch.equal(image.affine, affine)
        _require(shift, same, "leaves its input as it is")


def _check_severities(shift: Shift, image: MetaTensor, seed: int) -> None:
    """The difference from the original grows; that of a shift that moves the organ is measured on coordinates."""
    if not shift.strengths:
        return
    images = [image]
    if shift.moves:
        axes = [torch.linspace(0, 1, size) for size in image.shape[1:]]
        images = [MetaTensor(ramp[None], affine=image.affine) for ramp in torch.meshgrid(*axes, indexing="ij")]
    differences = [
        np.sum([_difference(shift.apply(each, severity, seed), each) for each in images], axis=0)
        for severity in shift.severities
    ]
    grows = all((other >= one).all() and (other > one).any() for one, other in pairwise([np.zeros(3), *differences]))
    _require(shift, grows, "changes an image more at a higher severity")


def _difference(shifted: MetaTensor, image: MetaTensor) -> np.ndarray:
    """How far the far corner moved, the voxels that were lost, and the root mean square of the others' difference."""
    corner = torch.tensor([*image.shape[1:], 1.0], dtype=torch.float64)
    moved = float((shifted.affine @ corner - image.affine @ corner).norm())
    lost = image.numel() - shifted.numel()
    if shifted.shape != image.shape:
        return np.array([moved, lost, 0.0])
    return np.array([moved, lost, float((shifted.as_tensor() - image.as_tensor()).double().square().mean().sqrt())])


def _check_label(shift: Shift, image: MetaTensor, seed: int) -> None:
    label = MetaTensor((image.as_tensor() > 0.6).to(torch.uint8), affine=image.affine)
    for severity in shift.severities:
        moved = shift.apply_to_label(label, severity, seed)
        if moved is None:
            _require(shift, shift.kind == "nonsense", "keeps the label unless it is nonsense")
            continue
        _require(shift, moved.dtype == torch.uint8 and set(moved.unique().tolist()) <= {0, 1}, "keeps label values")
        if not shift.moves:
            _require(shift, _same(moved, label), "keeps the label where the organ does not move")
            continue
        shifted = shift.apply(MetaTensor(label.float().as_tensor(), affine=image.affine), severity, seed)
        same = moved.shape == shifted.shape and torch.allclose(moved.affine, shifted.affine)
        _require(shift, same, "moves image and label to the same grid")
        agreement = float(((shifted.as_tensor() >= 0.5) == moved.as_tensor().bool()).double().mean())
        _require(shift, agreement > LEAST_AGREEMENT, "moves the label with its image")


def _check_identity(shift: Shift) -> None:
    """The digest, by which cached results are found, follows the definition; worker processes get a copy."""
    copied = pickle.loads(pickle.dumps(shift))
    _require(shift, copied.digest() == shift.digest(), "has the same digest in another process")
    other = copy(shift)
    vars(other)["strengths"] = tuple(2 * strength for strength in shift.strengths) or (1.0,)
    _require(shift, other.digest() != shift.digest(), "has another digest with other strengths")


def _same(one: MetaTensor, other: MetaTensor) -> bool:
    return torch.equal(one.as_tensor(), other.as_tensor()) and torch.equal(one.affine, other.affine)


def _require(shift: Shift, met: object, words: str) -> None:
    requirements(shift, "a shift")(met, f"{words} ({shift.name})")
