"""The spectral signature of an image, the bank of signatures of the training images, and the distance OODM.

Karimi & Gholipour, arXiv 2004.06569. Each function states how it differs from descriptions elsewhere.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from medmtl.errors import DataError

Signature = dict[str, torch.Tensor]

# Singular values below this share of the largest are rounding noise or dead channels, whose logarithm would otherwise
# dominate the distance. A Gram matrix holds their squares: with products in float32, logarithms of singular values down
# to this share are right to 2e-3, and those at 1e-5 wrong by up to 2.7. (The public implementation adds 1e-10 instead,
# in units of the feature scale.)
RELATIVE_FLOOR = 1e-3
FIRST_FLOOR = 1e-6  # of banks that do not name theirs, those of earlier versions
MEDICOOD_EPSILON = 1e-10

Norm = Literal["l2", "none"]


def singular_values(gram: torch.Tensor) -> torch.Tensor:
    """Singular values of a feature map, from its Gram matrix: the square roots of the eigenvalues.

    Args:
        gram: F^T F of the map F as a matrix of voxels by channels, `(C, C)` float64.

    Returns:
        `(C,)` float64, falling.
    """
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)


def log_singular_values(gram: torch.Tensor, floor: float = RELATIVE_FLOOR) -> torch.Tensor:
    """Logarithms of the singular values of a feature map, from its Gram matrix.

    Args:
        gram: F^T F of the map F as a matrix of voxels by channels, or a multiple of it, `(C, C)` float64.
        floor: share of the largest singular value that the others are held at.

    Returns:
        log max(sigma_k, floor * sigma_1), `(C,)` float64, falling.
    """
    sigma = singular_values(gram)
    return torch.log(torch.maximum(sigma, floor * sigma[0]).clamp_min(torch.finfo(sigma.dtype).tiny))


def signature(
    grams: Mapping[str, torch.Tensor],
    floor: float = RELATIVE_FLOOR,
    centre: bool = False,
    norm: Norm = "l2",
) -> Signature:
    """The spectral signature: the log singular values of each layer's feature map, L2-normalised.

    The map is divided by the square root of its number of voxels n, which the paper's description does not mention.
    Without that, a larger field of view of the same tissue has another signature, since n times the voxels add
    log(n) / 2 to every logarithm: leaving out one task at a time, the mean AUROC of the five real tasks was .97 with it
    and .91 without, over the eight blocks of the network of `multitask-open.yaml`.

    Args:
        grams: layer -> F^T F / n, `(C, C)` float64, as `FeatureTap.per_voxel` gives it.
        floor: see `log_singular_values`.
        centre: take the mean from the logarithms first, so that the scale of the features has no effect.
        norm: `l2` divides by the L2 norm, as the paper does; `none` does not.

    Returns:
        Layer -> vector `(C,)` float64, of length 1 with `l2`. Permuting voxels, repeating the volume or rotating
        channels does not change it; scaling the features does (it adds a constant to the logarithms) unless `centre`.

    Example:
        >>> features = torch.diag(torch.tensor([8.0, 4.0, 2.0], dtype=torch.float64))  # voxels by channels
        >>> found = signature({"layer": features.T @ features})["layer"]
        >>> [round(value, 3) for value in found.tolist()]  # 3, 2 and 1 times log 2, over their norm
        [0.802, 0.535, 0.267]
    """
    result = {}
    for layer, gram in grams.items():
        logs = log_singular_values(gram, floor)
        logs = logs - logs.mean() if centre else logs
        result[layer] = logs / logs.norm().clamp_min(torch.finfo(logs.dtype).tiny) if norm == "l2" else logs
    return result


def medicood_signature(grams: Mapping[str, torch.Tensor]) -> Signature:
    """The signature as the only public code (MedicOOD, after Lambert et al., arXiv 2307.15647) computes it.

    `log(diag(svdvals(F)) + 1e-10)` over its L2 norm, where `diag` makes a C x C matrix of the C singular values: the
    zeros beside its diagonal become log(1e-10) = -23, which makes the norm nearly the same for every image. These
    C (C - 1) equal numbers are kept as one, so that distances are those of the matrices.

    Args:
        grams: layer -> F^T F of maps with at least as many voxels as channels, `(C, C)` float64.

    Returns:
        Layer -> unit vector `(C + 1,)` float64.
    """
    result = {}
    for layer, gram in grams.items():
        channels = len(gram)
        beside = math.log(MEDICOOD_EPSILON) * math.sqrt(channels * (channels - 1))
        logs = torch.log(singular_values(gram) + MEDICOOD_EPSILON)
        matrix = torch.cat([logs, logs.new_tensor([beside])])
        result[layer] = matrix / matrix.norm()
    return result


@dataclass(frozen=True)
class Nearest:
    """The training image nearest to an image.

    Attributes:
        oodm: mean over the layers of the distance to the nearest signature; 0 to 2, higher = more
            out-of-distribution.
        task: the task of the training image that is nearest over all layers.
        case: that training image.
    """

    oodm: float
    task: str
    case: str


class SignatureBank:
    """The signatures of the training images.

    OODM(x) = min over training images j of ||s(x) - s(x_j)||_2 in each layer, averaged over the layers (one layer is
    the paper's score; several are averaged by Lambert et al., arXiv 2307.15647). The task of the nearest image is
    the nearest task.

    Args:
        tasks: task of each image.
        cases: name of each image.
        signatures: layer -> `(images, C)` float64.
        floor: of the singular values in these signatures, and in those that are compared with them.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        cases: Sequence[str],
        signatures: Mapping[str, torch.Tensor],
        floor: float = RELATIVE_FLOOR,
    ) -> None:
        self.tasks = list(tasks)
        self.cases = list(cases)
        self.signatures = dict(signatures)
        self.floor = floor

    @classmethod
    def fit(cls, images: Sequence[tuple[str, str, Signature]], floor: float = RELATIVE_FLOOR) -> "SignatureBank":
        """Collect `(task, case, signature)` of the training images.

        Args:
            images: the training images.
            floor: of the singular values in their signatures.

        Raises:
            DataError: there are none.
        """
        if not images:
            raise DataError("no training image for the signature bank", fix="add cases")
        layers = images[0][2]
        stacked = {layer: torch.stack([found[layer] for _, _, found in images]) for layer in layers}
        return cls([task for task, _, _ in images], [case for _, case, _ in images], stacked, floor)

    def nearest(self, image: Signature, neighbour: int = 1, tasks: Container[str] | None = None) -> Nearest:
        """Compare one image with the bank.

        Args:
            image: layer -> `(C,)`, of the same layers and network.
            neighbour: take the distance to the k-th nearest signature of each layer, the farthest of fewer; the
                paper's is the nearest.
            tasks: compare with the images of these alone; with all if None.
        """
        chosen = [index for index, task in enumerate(self.tasks) if tasks is None or task in tasks]
        signatures = ((bank[chosen], image[layer]) for layer, bank in self.signatures.items())
        distances = torch.stack([(bank - found).norm(dim=1) for bank, found in signatures])
        index = chosen[int(distances.mean(0).argmin())]
        oodm = distances.kthvalue(min(neighbour, len(chosen)), dim=1).values.mean()
        return Nearest(oodm=float(oodm), task=self.tasks[index], case=self.cases[index])

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings, for a checkpoint that loads with `weights_only=True`."""
        return {"tasks": self.tasks, "cases": self.cases, "signatures": self.signatures, "floor": self.floor}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "SignatureBank":
        """The bank that `state_dict` of this version or an earlier one described."""
        return cls(state["tasks"], state["cases"], state["signatures"], state.get("floor", FIRST_FLOOR))
