"""A volume as a strip of small slices, through which a page leafs: the scan, and truth, mask and probability over it.

A strip is bounded: by default at most `SLICES` slices of at most `SIDE` pixels, the scan as JPEG, what lies over it as
PNG that is mostly transparent. That is 10 to 120 kB a case.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from matplotlib.image import imsave
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from medmtl.report.cut import cuts
from medmtl.report.orientation import VIEWS, letters_of, on_page
from medmtl.report.outline import PREDICTION, TRUTH
from medmtl.typed import typed

SIDE, SLICES = 112, 24
QUALITY = 55  # of the JPEG
THICK = 2.0  # times the other voxel sizes: slices are shown as they were acquired
PROBABILITY = (230, 120, 20)  # red, green, blue of a probability of 1
STEPS = 8  # of the probability


@dataclass(frozen=True)
class Stack:
    """A strip of slices, one below the other.

    Attributes:
        view: "axial", "coronal" or "sagittal".
        letters: edge ("left", "right", "bottom", "top") -> the side of the patient there.
        size: width and height of a slice, pixels, which are square.
        count: number of slices.
        start: the slice to show first, from 0: that of the largest area.
        layers: "scan" and, where known, "truth", "mask" and "probability" -> data URL of the strip.
    """

    view: str
    letters: Mapping[str, str]
    size: tuple[int, int]
    count: int
    start: int
    layers: Mapping[str, str]

    @classmethod
    def of(
        cls,
        image: NDArray[np.floating],
        spacing: Sequence[float],
        grey: tuple[float, float],
        mask: NDArray[np.bool_] | None = None,
        truth: NDArray[np.bool_] | None = None,
        probability: NDArray[np.floating] | None = None,
        side: int = SIDE,
        slices: int = SLICES,
    ) -> "Stack":
        """Cut a volume into slices.

        Args:
            image: `(H, W, D)`, in RAS+ orientation.
            spacing: voxel size in mm along H, W and D.
            grey: intensities to show as black and as white.
            mask: as predicted, bool, same shape; None: the probability from one half on, or none.
            truth: as labelled, bool, same shape.
            probability: of the organ, in [0, 1], same shape.
            side: the most pixels along a side of a slice.
            slices: the most slices.
        """
        if mask is None and probability is not None:
            mask = probability >= 0.5
        organ = next((each for each in (truth, mask) if each is not None and each.any()), None)
        name = _view_of(spacing)
        view = VIEWS[name]
        index = cuts(image, np.zeros(image.shape, dtype=bool) if organ is None else organ)[name]
        first, last = _range(image.shape[view.fixed], organ, view.fixed, index[view.fixed])
        chosen = np.unique(np.r_[np.linspace(first, last, slices).round().astype(int), index[view.fixed]])
        chosen = chosen[:slices] if index[view.fixed] in chosen[:slices] else chosen[-slices:]
        size = [len(range(image.shape[axis])[index[axis]]) * spacing[axis] for axis in view[1:]]
        pixels = _pixels(size, min(spacing[axis] for axis in view[1:]), side)

        def tiles(volume: NDArray[Any]) -> NDArray[np.float32]:
            """`(slices, height, width)`, as they lie on the page."""
            cut = np.moveaxis(volume, view.fixed, 0)[chosen][(slice(None), *(index[axis] for axis in view[1:]))]
            own = np.stack([on_page(plane) for plane in cut]).astype(np.float32)
            shape = (pixels[1], pixels[0])
            return torch.nn.functional.interpolate(torch.from_numpy(own)[:, None], shape, mode="area")[:, 0].numpy()

        black, white = grey
        shown = np.clip((tiles(np.nan_to_num(image)) - black) / max(white - black, 1e-9), 0, 1)
        layers = {"scan": _jpeg(shown)}
        for layer, volume, look in (("truth", truth, TRUTH), ("mask", mask, PREDICTION)):
            if volume is not None:
                layers[layer] = _outline(tiles(volume) >= 0.5, look.colour)
        if probability is not None:
            layers["probability"] = _shade(tiles(probability))
        start = int(np.flatnonzero(chosen == index[view.fixed])[0])
        return cls(name, letters_of(name)._asdict(), pixels, len(chosen), start, layers)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Stack":
        """Read what `to_dict` returned.

        Raises:
            ValueError: a field is missing or of another type.
        """
        return typed(cls, content, "the slices")


def _view_of(spacing: Sequence[float]) -> str:
    """The view in which the scan was acquired, if its slices are thick, else axial."""
    thickest = int(np.argmax(spacing))
    others = [size for axis, size in enumerate(spacing) if axis != thickest]
    acquired = next(name for name, view in VIEWS.items() if view.fixed == thickest)
    return acquired if spacing[thickest] >= THICK * max(others) else "axial"


def _range(count: int, organ: NDArray[np.bool_] | None, axis: int, middle: int) -> tuple[int, int]:
    """First and last slice: those of the organ and half as many beyond, or all."""
    if organ is None:
        return 0, count - 1
    inside = np.flatnonzero(organ.any(axis=tuple(other for other in range(3) if other != axis)))
    beyond = max(2, (int(inside[-1]) - int(inside[0])) // 4)
    return max(int(inside[0]) - beyond, 0), min(int(inside[-1]) + beyond, count - 1)


def _pixels(size: Sequence[float], finest: float, side: int) -> tuple[int, int]:
    """Width and height of a slice in pixels, square ones, none finer than the voxels."""
    step = max(finest, max(size) / side)
    return max(1, round(size[0] / step)), max(1, round(size[1] / step))


def _jpeg(tiles: NDArray[np.float32]) -> str:
    grey = np.repeat((255 * tiles.reshape(-1, tiles.shape[-1])).astype(np.uint8)[..., None], 3, axis=-1)
    return _data_url(grey, "jpeg", quality=QUALITY)


def _outline(tiles: NDArray[np.bool_], colour: str) -> str:
    inner = np.stack([binary_erosion(tile) for tile in tiles])
    edge = (tiles & ~inner).reshape(-1, tiles.shape[-1])
    pixels = np.zeros((*edge.shape, 4), np.uint8)
    pixels[edge] = (*(int(colour[at : at + 2], 16) for at in (1, 3, 5)), 255)
    return _data_url(pixels, "png", optimize=True)


def _shade(tiles: NDArray[np.float32]) -> str:
    steps = np.round(tiles.reshape(-1, tiles.shape[-1]) * STEPS) / STEPS
    pixels = np.zeros((*steps.shape, 4), np.uint8)
    pixels[..., :3] = np.where(steps[..., None] > 0, PROBABILITY, 0)
    pixels[..., 3] = (200 * steps).astype(np.uint8)
    return _data_url(pixels, "png", optimize=True)


def _data_url(pixels: NDArray[np.uint8], kind: str, **options: Any) -> str:
    buffer = BytesIO()
    imsave(buffer, pixels, format=kind, pil_kwargs=options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
