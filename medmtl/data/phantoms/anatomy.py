"""Anatomy of the digital phantoms: bodies made of soft-edged ellipsoids and rings, in a random pose, size and shape.

Coordinates are millimetres in a body-fixed frame: x to the patient's right, y to the front, z to the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.spatial.transform import Rotation

Volume = NDArray[np.float32]
Triple = tuple[float, float, float]

INF = float("inf")


@dataclass(frozen=True)
class Part:
    """An ellipsoid of one tissue; parts later in a body lie over earlier ones.

    Args:
        organ: parts of one organ move and grow together.
        tissue: what it is made of, see `scanner.SIGNAL`.
        centre: in mm.
        radii: half axes in mm; an infinite one makes a cylinder.
        turn: rotation about x, y and z in degrees.
        ring: if not 0, a ring along the ellipse of the first two radii, this thick (radius in mm).
        rough: height in mm of the folds of the surface, at most.
        wander: how far the organ's place varies, in mm either way.
    """

    organ: str
    tissue: str
    centre: Triple
    radii: Triple
    turn: Triple = (0, 0, 0)
    ring: float = 0
    rough: float = 0
    wander: float = 2


@dataclass(frozen=True)
class Anatomy:
    """One person's body on a voxel grid.

    Args:
        organs: organ -> share of each voxel that it fills, `(X, Y, Z)` in [0, 1].
        tissues: tissue -> share of each voxel, air included: they add up to 1.
    """

    organs: dict[str, Volume]
    tissues: dict[str, Volume]


def _pair(part: Part) -> tuple[Part, Part]:
    """The part on the right side of the body, as given, and its mirror image on the left."""
    (x, y, z), (about_x, about_y, about_z) = part.centre, part.turn
    left = replace(part, organ=f"left {part.organ}", centre=(-x, y, z), turn=(about_x, -about_y, -about_z))
    return replace(part, organ=f"right {part.organ}"), left


TORSO = (
    Part("trunk", "fat", (0, 0, 0), (78, 54, INF)),
    Part("trunk", "muscle", (0, 0, 0), (72, 48, INF)),
    *(Part("trunk", "bone", (0, 0, z), (68, 44, INF), turn=(-14, 0, 0), ring=3.5) for z in range(2, 90, 15)),
    Part("trunk", "fat", (0, 2, 0), (63, 40, INF)),
    *_pair(Part("lung", "lung", (33, 3, 60), (26, 34, 52))),
    *_pair(Part("back muscle", "muscle", (19, -37, 0), (17, 10, INF))),
    *_pair(Part("hip", "bone", (46, -6, -98), (12, 28, 28), turn=(0, 20, 0))),
    Part("spine", "bone", (0, -32, 0), (13, 11, INF)),
    Part("spine", "marrow", (0, -31, 0), (10, 8, INF)),
    Part("spine", "bone", (0, -45, 0), (9, 7, INF)),
    Part("spine", "cerebrospinal fluid", (0, -44, 0), (5, 4, INF)),
    Part("vena cava", "blood", (10, -14, 0), (7, 6, INF)),
    Part("small bowel", "bowel", (0, 14, -56), (36, 18, 30), rough=7),
    Part("colon", "bowel", (0, 16, -52), (46, 30, INF), turn=(90, 0, 0), ring=9),
    Part("colon", "air", (0, 18, -52), (46, 30, INF), turn=(90, 0, 0), ring=4, rough=5),
    Part("spleen", "spleen", (-46, -13, 6), (15, 20, 25), turn=(20, 0, 0)),
    Part("stomach", "muscle", (-30, 14, 0), (20, 18, 25), turn=(0, 25, 0)),
    Part("stomach", "water", (-30, 14, 0), (16, 14, 20), turn=(0, 25, 0)),
    *_pair(Part("lesion", "lesion", (20, 4, 0), (9, 10, 11), rough=3, wander=35)),
    Part("liver", "liver", (29, 3, 4), (37, 36, 36)),
    Part("liver", "liver", (-2, 20, 14), (30, 16, 15), turn=(0, -15, 0)),
    Part("gallbladder", "water", (24, 27, -27), (8, 9, 13)),
    *_pair(Part("kidney", "kidney cortex", (35, -18, -36), (18, 16, 27), turn=(0, 12, 0))),
    *_pair(Part("kidney", "kidney medulla", (33, -18, -36), (9, 7, 16), turn=(0, 12, 0))),
    Part("heart", "myocardium", (-9, 14, 46), (27, 23, 27), turn=(0, 30, 0)),
    Part("heart", "blood", (-9, 14, 46), (15, 11, 15), turn=(0, 30, 0)),
    Part("aorta", "blood", (-6, -16, 0), (7, 7, INF)),
    Part("bladder", "urine", (0, 14, -86), (22, 20, 18)),
)

HEAD = (
    Part("neck", "muscle", (0, -14, -66), (40, 44, 70)),
    Part("face", "muscle", (0, 36, -44), (38, 36, 34)),
    Part("head", "fat", (0, 0, 4), (62, 76, 66)),
    Part("head", "bone", (0, 0, 4), (58, 72, 62)),
    Part("head", "cerebrospinal fluid", (0, 0, 4), (54, 68, 58)),
    Part("head", "grey matter", (0, 0, 4), (51, 65, 55), rough=4),
    Part("head", "white matter", (0, 0, 4), (43, 57, 47), rough=9),
    Part("head", "cerebrospinal fluid", (0, 4, 30), (1.5, 56, 26)),
    Part("head", "white matter", (0, 0, 8), (32, 44, 24)),
    *_pair(Part("putamen", "grey matter", (27, 8, 4), (6, 18, 10), turn=(0, 0, -10))),
    *_pair(Part("thalamus", "grey matter", (10, -8, 0), (9, 13, 8))),
    Part("ventricles", "cerebrospinal fluid", (11, 4, 18), (9, 30, 12), turn=(8, 0, 6)),
    Part("ventricles", "cerebrospinal fluid", (-11, 4, 18), (9, 30, 12), turn=(8, 0, -6)),
    Part("ventricles", "cerebrospinal fluid", (21, -28, 10), (9, 20, 11), turn=(20, 0, 20)),
    Part("ventricles", "cerebrospinal fluid", (-21, -28, 10), (9, 20, 11), turn=(20, 0, -20)),
    Part("cistern", "cerebrospinal fluid", (0, -23, -27), (39, 25, 19)),
    Part("brainstem", "white matter", (0, 2, -40), (12, 13, 34), turn=(-10, 0, 0)),
    Part("cerebellum", "cerebellar cortex", (14, -23, -27), (23, 22, 16), rough=1),
    Part("cerebellum", "cerebellar cortex", (-14, -23, -27), (23, 22, 16), rough=1),
    Part("cerebellum", "white matter", (13, -21, -27), (11, 8, 6), rough=3),
    Part("cerebellum", "white matter", (-13, -21, -27), (11, 8, 6), rough=3),
    *_pair(Part("eye", "water", (24, 60, -18), (11, 11, 11))),
    Part("nose", "air", (0, 60, -36), (9, 18, 13), rough=4),
)

FOREARM = (
    Part("forearm", "fat", (0, 0, 0), (46, 38, INF)),
    Part("forearm", "muscle", (0, 0, 0), (40, 32, INF), rough=3),
    Part("radius", "bone", (18, 4, 0), (10, 9, INF), turn=(0, 4, 0)),
    Part("radius", "marrow", (18, 4, 0), (5, 5, INF), turn=(0, 4, 0)),
    Part("ulna", "bone", (-18, -4, 0), (9, 10, INF), turn=(0, -4, 0)),
    Part("ulna", "marrow", (-18, -4, 0), (5, 5, INF), turn=(0, -4, 0)),
    Part("vessels", "blood", (2, 14, 0), (4, 4, INF)),
)

_FINGERS = (((30, 0, 30), 34, 10), ((10, 0, 38), 42, 2), ((-10, 0, 36), 40, -4), ((-28, 0, 26), 32, -12))
_THUMB = ((50, 6, -20), 34, 40)

HAND = (
    Part("palm", "muscle", (0, 0, -30), (44, 16, 48)),
    Part("wrist", "muscle", (0, 0, -80), (28, 18, 50)),
    *(Part("fingers", "fat", at, (11, 11, long), turn=(0, lean, 0)) for at, long, lean in (*_FINGERS, _THUMB)),
    *(Part("fingers", "bone", at, (5.5, 5.5, long - 6), turn=(0, lean, 0)) for at, long, lean in (*_FINGERS, _THUMB)),
    *(Part("palm", "bone", (x * 0.8, 0, -28), (5, 5, 28), turn=(0, lean, 0)) for (x, _, _), _, lean in _FINGERS),
    Part("wrist", "bone", (0, 0, -66), (22, 9, 10), rough=5),
    Part("wrist", "bone", (11, 0, -96), (9, 8, 24)),
    Part("wrist", "bone", (-12, 0, -96), (7, 7, 24)),
)

LEGS = (
    *_pair(Part("leg", "fat", (42, 0, 0), (40, 46, INF), turn=(0, 4, 0))),
    *_pair(Part("leg", "muscle", (42, 0, 0), (33, 39, INF), turn=(0, 4, 0), rough=4)),
    *_pair(Part("leg", "bone", (44, 4, 0), (12, 12, INF), turn=(0, 6, 0))),
    *_pair(Part("leg", "marrow", (44, 4, 0), (7, 7, INF), turn=(0, 6, 0))),
    *_pair(Part("leg", "blood", (24, 0, 0), (5, 5, INF))),
)


def draw(body: Sequence[Part], shape: Sequence[int], spacing: Triple, rng: np.random.Generator) -> Anatomy:
    """Draw one person: the body in a random pose and size, each organ a little elsewhere and of another shape.

    Args:
        body: its parts from back to front, such as `TORSO`.
        shape: `(X, Y, Z)` in voxels, axes right, front, head; the grid's centre is the frame's origin.
        spacing: voxel size in mm.
        rng: source of the variation.

    Returns:
        The share of each voxel that each organ and tissue fills.
    """
    points = _body_coordinates(shape, spacing, rng)
    folds = np.tanh(smooth_noise(shape, spacing, 12, rng)).ravel()
    edge = sum(spacing) / 3
    variation = {part.organ: (rng.uniform(-part.wander, part.wander, 3), rng.uniform(0.92, 1.08, 3)) for part in body}
    left = np.ones(points.shape[1], np.float32)
    organs = {part.organ: np.zeros(left.size, np.float32) for part in body}
    tissues = {part.tissue: np.zeros(left.size, np.float32) for part in body}
    for part in reversed(body):
        shift, growth = variation[part.organ]
        (x, y, z), (a, b, c) = part.centre + shift, part.radii * growth
        placed = replace(part, centre=(x, y, z), radii=(a, b, c))
        near = _near(placed, points, margin=2 * edge + part.rough, among=left > 0)
        inside = part.rough * folds[near] - _signed_distance(placed, points[:, near])
        share = left[near] * np.clip(0.5 + inside / edge, 0, 1)
        left[near] -= share
        organs[part.organ][near] += share
        tissues[part.tissue][near] += share
    tissues["air"] = tissues.get("air", 0) + left
    return Anatomy(
        {organ: share.reshape(shape) for organ, share in organs.items()},
        {tissue: share.reshape(shape) for tissue, share in tissues.items()},
    )


def smooth_noise(shape: Sequence[int], spacing: Triple, scale: float, rng: np.random.Generator) -> Volume:
    """Noise of mean about 0 and standard deviation below 1 that varies over `scale` mm, `(X, Y, Z)`.

    Values drawn on a coarse grid, with a cubic spline through them along each axis.
    """
    knots = [max(4, round(size * step / scale)) for size, step in zip(shape, spacing, strict=True)]
    noise = rng.standard_normal(knots)
    for size, count in zip(shape, knots, strict=True):
        spline = make_interp_spline(np.linspace(0, 1, count), np.eye(count))
        # The first axis goes in coarse and comes out fine as the last: after three turns all are in place.
        noise = np.einsum("abc,ta->bct", noise, spline(np.linspace(0, 1, size)))
    smooth: Volume = noise.astype(np.float32)
    return smooth


def _body_coordinates(shape: Sequence[int], spacing: Triple, rng: np.random.Generator) -> Volume:
    """Where each voxel lies in the body's frame, `(3, voxels)` in mm: pose, size and a slow warp."""
    axes = [(np.arange(size) - (size - 1) / 2) * step for size, step in zip(shape, spacing, strict=True)]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    pose = Rotation.from_euler("xyz", rng.uniform(-7, 7, 3), degrees=True).as_matrix() / rng.uniform(0.92, 1.08)
    warp = np.stack([2.5 * smooth_noise(shape, spacing, 50, rng).ravel() for _ in range(3)])
    placed: Volume = (pose @ (grid - rng.uniform(-5, 5, (3, 1))) + warp).astype(np.float32)
    return placed


def _near(part: Part, points: Volume, margin: float, among: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices of the points that the part can touch: most parts are small, and the distance is dear."""
    reach = [max(part.radii)] * 3 if any(part.turn) else part.radii
    for along, centre, radius in zip(points, part.centre, reach, strict=True):
        among = among & (np.abs(along - np.float32(centre)) < radius + part.ring + margin)
    return np.flatnonzero(among)


def _signed_distance(part: Part, points: Volume) -> Volume:
    """Distance of each point from the part's surface in mm, to first order; negative inside."""
    turn = Rotation.from_euler("xyz", part.turn, degrees=True).as_matrix().astype(np.float32)
    radii = np.array(part.radii, np.float32)[:, None]
    local = turn.T @ (points - np.array(part.centre, np.float32)[:, None])
    scaled = local / radii
    radius = np.sqrt((scaled**2).sum(0))
    slope = np.sqrt(((scaled / radii) ** 2).sum(0))
    reach = np.divide(radius, slope, out=np.full_like(radius, radii.min()), where=slope > 0)
    distance: Volume = (radius - 1) * reach
    return np.hypot(distance, local[2]) - np.float32(part.ring) if part.ring else distance
