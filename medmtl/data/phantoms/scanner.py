"""Scanner: images of the digital phantoms in CT, T1, T2 and PET contrast, and patterns that show no body."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medmtl.data.phantoms.anatomy import Anatomy, Triple, smooth_noise

Contrast = Literal["CT", "T1", "T2", "PET"]

# Tissue -> mean value in CT (HU), T1- and fat-suppressed T2-weighted MR (arbitrary units) and FDG-PET (about SUV).
SIGNAL = {
    "air": (-1000.0, 0.02, 0.02, 0.02),
    "lung": (-800.0, 0.10, 0.12, 0.4),
    "fat": (-100.0, 1.00, 0.30, 0.3),
    "muscle": (55.0, 0.42, 0.22, 0.7),
    "bone": (500.0, 0.15, 0.10, 0.5),
    "marrow": (200.0, 0.65, 0.40, 1.1),
    "blood": (150.0, 0.25, 0.12, 1.6),
    "myocardium": (110.0, 0.45, 0.32, 5.0),
    "liver": (110.0, 0.60, 0.33, 2.3),
    "spleen": (120.0, 0.42, 0.55, 1.9),
    "kidney cortex": (165.0, 0.52, 0.80, 3.5),
    "kidney medulla": (130.0, 0.40, 0.92, 6.0),
    "bowel": (45.0, 0.42, 0.50, 1.4),
    "lesion": (65.0, 0.35, 0.50, 8.0),
    "water": (10.0, 0.18, 1.10, 0.5),
    "urine": (12.0, 0.18, 1.10, 10.0),
    "cerebrospinal fluid": (8.0, 0.15, 1.10, 0.5),
    "grey matter": (40.0, 0.58, 0.55, 7.0),
    "white matter": (28.0, 0.82, 0.40, 3.0),
    "cerebellar cortex": (42.0, 0.50, 0.80, 6.0),
}

NONSENSE = ("noise", "constant", "checkerboard", "grating", "ramp", "spheres")


def scan(anatomy: Anatomy, contrast: Contrast, spacing: Triple, rng: np.random.Generator) -> NDArray[np.int16]:
    """Image a body: tissue values that vary from case to case, texture, blur, bias field and noise.

    Args:
        anatomy: shares of the tissues in each voxel.
        contrast: CT gives Hounsfield units; T1, T2 and PET a scanner's own units, whose scale varies by case.
        spacing: voxel size in mm.
        rng: source of the variation.

    Returns:
        `(X, Y, Z)` int16.
    """
    column = ("CT", "T1", "T2", "PET").index(contrast)
    image = np.zeros_like(anatomy.tissues["air"])
    for tissue, share in anatomy.tissues.items():
        level, spread = SIGNAL[tissue][column], 0.3 if contrast == "PET" else 0.1
        varied = level + rng.uniform(-8, 8) if contrast == "CT" else level * rng.uniform(1 - spread, 1 + spread)
        image += np.float32(varied) * share
    texture = 4 * gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 1)
    if contrast == "CT":
        image += 8 * texture + 18 * rng.standard_normal(image.shape, dtype=np.float32)
    elif contrast == "PET":
        counts = 30
        image = gaussian_filter(image * (1 + 0.08 * texture), [3 / step for step in spacing])
        image = gaussian_filter(rng.poisson(counts * np.maximum(image, 0)) / counts, [2 / step for step in spacing])
        image = image * rng.uniform(300, 1500)
    else:
        bias = np.exp(0.2 * smooth_noise(image.shape, spacing, 90, rng))
        image *= bias * (1 + 0.06 * texture)
        real, imaginary = 0.03 * rng.standard_normal((2, *image.shape), dtype=np.float32)
        image = np.hypot(image + real, imaginary) * rng.uniform(200, 2000)
    return np.clip(np.rint(image), -1024, np.iinfo(np.int16).max).astype(np.int16)


def nonsense(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int16]:
    """A volume that shows no body.

    Args:
        kind: one of `NONSENSE`.
        shape: `(X, Y, Z)` in voxels.
        rng: source of the random ones.

    Returns:
        `(X, Y, Z)` int16.
    """
    x, y, z = points = np.indices(shape)
    if kind == "noise":
        image = rng.normal(500, 150, shape)
    elif kind == "constant":
        image = np.full(shape, 300.0)
    elif kind == "checkerboard":
        image = 1000.0 * ((x // 6 + y // 6 + z // 6) % 2)
    elif kind == "grating":
        image = 500 + 500 * np.sin(0.5 * x + 0.3 * z)
    elif kind == "ramp":
        image = 15.0 * (x + y)
    else:
        image = np.zeros(shape)
        for middle, radius in zip(rng.uniform(6, min(shape) - 6, (12, 3)), rng.uniform(3, 9, 12), strict=True):
            inside = ((points.T - middle).T ** 2).sum(0) < radius**2
            image[inside] = rng.uniform(200, 1000)
    return np.rint(image).astype(np.int16)
