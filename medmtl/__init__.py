"""medmtl: one segmentation network for several medical datasets, which says where it can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medmtl.predict.model import Model

__version__ = "0.1.0"


def load(path: str | Path, device: str = "auto", precision: str = "32", window_batch: int | None = None) -> "Model":
    """A trained network, to segment images with and to ask whether it knows their kind.

    Args:
        path: run folder, or checkpoint.
        device: `cpu`, `cuda` or `auto`.
        precision: of the network's arithmetic: `32`, `16` or `bf16`.
        window_batch: windows computed together; None: as many as fit.

    Returns:
        Its `predict` takes a path, an array with its affine, or a MONAI `MetaTensor`.

    Raises:
        RunError: there is no checkpoint, or none that can be used.
    """
    from medmtl.predict.model import Model

    return Model.load(Path(path), device, precision, window_batch)
