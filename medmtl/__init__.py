"""medmtl: one segmentation network for several medical datasets, which says where it can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medmtl.predict.model import Model, Precision

__version__ = "0.1.0"


def load(
    path: str | Path,
    device: str = "auto",
    precision: "Precision" = "32",
    window_batch: int | None = None,
    alpha: float | None = None,
) -> "Model":
    """A trained network, to segment images with and to ask whether it knows their kind.

    Args:
        path: run folder, or checkpoint.
        device: as torch names it, or `auto`: a graphics processor if there is one.
        precision: of the network's arithmetic: `32`, `16` or `bf16`.
        window_batch: sliding windows computed together; as in the training if None.
        alpha: share of familiar images that may be called foreign; as in the training if None.

    Returns:
        Its `predict` takes a path, an array with its affine, or a MONAI `MetaTensor`; a list of paths for stacked
        channels.

    Raises:
        RunError: there is no checkpoint, or none that can be used.
        ConfigError: an option is outside its domain.
    """
    from medmtl.predict.model import Model

    return Model.load(path, device, precision, window_batch, alpha)
