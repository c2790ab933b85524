"""The gallery: all predicted images with masks and verdicts on one self-contained page, OOD ones first."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from medmtl.files import write_text
from medmtl.ood.reason import Compared
from medmtl.report.drawing import add_legend, draw_outlines, lay_out
from medmtl.report.html import Picture, render
from medmtl.report.orientation import to_ras
from medmtl.report.outline import CLASS_COLOURS, DASHED, TRUTH, Outline
from medmtl.report.slices import CaseSlices
from medmtl.report.style import literal, style, to_png
from medmtl.results.prediction import IN, OUT, UNDECIDED, FailedCase, PredictedCase, worst_first

MASK = Outline("mask", "#00C8F0", "solid", 1.3)
LEGEND, LINE = 80, 0.19  # letters in a line of the legend, and its height, inches
LIMIT = 6.0  # spreads from the median at which the track of a descriptor ends
SHOWN = 100  # pictures on a page, OOD images first: browsers open 25 MB, but not much more


def write_gallery(
    folder: Path,
    cases: Sequence[PredictedCase],
    failed: Sequence[FailedCase],
    facts: Mapping[str, str],
    note: str,
) -> Path:
    """Write the page.

    Args:
        folder: to write to; it holds the pictures of the cases.
        cases: the predicted images.
        failed: the others.
        facts: about network and options, in the order to show them.
        note: about the training data; may be empty.

    Returns:
        The path of `gallery.html`.
    """
    ranked = worst_first(cases)
    shown = [case for case in ranked if "picture" in case.files][:SHOWN]
    page = render(
        "gallery.html.j2",
        headline=headline(cases, failed),
        ranked=ranked,
        failed=failed,
        doubtful=sum(case.mask_reliable is False for case in cases),
        counts={word: sum(case.verdict == word for case in cases) for word in (OUT, UNDECIDED, IN)},
        shown=shown,
        classes=any(len(case.labels) > 1 for case in shown),
        pictures={case.case: Picture.of((folder / case.files["picture"]).read_bytes()) for case in shown},
        place=_place,
        is_outside=lambda each: Compared(**each).outside,
        limit=LIMIT,
        facts=facts,
        note=note,
    )
    write_text(folder / "gallery.html", page)
    return folder / "gallery.html"


def headline(cases: Sequence[PredictedCase], failed: Sequence[FailedCase]) -> str:
    """The verdicts in a sentence."""
    words = [case.verdict for case in cases]
    total = len(cases) + len(failed)
    images = "image" if total == 1 else "images"
    ood, undecided = words.count(OUT), words.count(UNDECIDED)
    sentences = []
    if ood:
        sentences.append(f"{ood} of {total} {images} {_are(ood)} {OUT}: do not trust their masks.")
    elif IN in words:
        sentences.append(f"{words.count(IN)} of {total} {images} {_are(words.count(IN))} {IN}.")
    doubtful = sum(case.mask_reliable is False for case in cases)
    if doubtful:
        masks = "mask is" if doubtful == 1 else "masks are"
        sentences.append(f"{doubtful} {masks} not reliable.")
    if undecided:
        sentences.append(f"{undecided} of {total} {images} {_are(undecided)} undecided.")
    if failed:
        sentences.append(f"{len(failed)} could not be segmented.")
    return " ".join(sentences) or "There are no images."


def draw_case(
    name: str,
    image: MetaTensor,
    mask: NDArray[np.unsignedinteger] | None,
    segments: Mapping[str, Collection[int]] = MappingProxyType({}),
) -> bytes:
    """Three slices through the largest areas of a mask, with its outline or one for each class in a colour of its own.

    Args:
        name: written above.
        image: `(C, H, W, D)`, of which the first channel is drawn.
        mask: `(H, W, D)`, label values, 0 outside; None to show the middle of the image alone.
        segments: class -> its label values in the mask; with fewer than two the mask has one outline.

    Returns:
        A PNG file.
    """
    affine, voxels = image.affine.cpu().numpy(), image.as_tensor()[0].cpu().numpy()
    outlined = np.broadcast_to(np.uint8(0), voxels.shape) if mask is None else mask
    (turned, turned_mask), spacing = to_ras(affine, voxels, outlined)
    # Label values take the place of the probability, of which a cut asks only where it is at least one half.
    slices = CaseSlices.cut(turned, None, turned_mask, spacing)
    looks = {MASK: None} if len(segments) < 2 else _looks(segments)
    shown = [] if mask is None else [look.handle for look in looks]
    longest = max(len(look.label) for look in looks)
    columns = max(1, min(len(shown) + 1, LEGEND // (longest + 8)))
    lines = math.ceil((len(shown) + 1) / columns)
    with style(dark=True):
        figure, panels, scale = lay_out(slices, name, more_foot=(lines - 1) * LINE)
        for axes, plane in panels:
            for look, values in looks.items():
                inside = plane.probability > 0 if values is None else np.isin(plane.probability, list(values))
                draw_outlines(axes, plane._replace(probability=inside.astype(np.float32)), TRUTH, look)
        if lines == 1:
            add_legend(figure, *shown, scale)
        else:
            place: dict[str, Any] = {"bbox_to_anchor": (0.5, 0), "borderaxespad": 0.1, "ncols": columns}
            figure.legend(handles=[*shown, scale], loc="lower center", fontsize=8, **place)
    return to_png(figure)


def _looks(segments: Mapping[str, Collection[int]]) -> dict[Outline, Collection[int]]:
    """How each class is outlined -> its label values."""
    looks = product((MASK.dashes, DASHED), CLASS_COLOURS)
    return {
        MASK._replace(label=literal(name), colour=colour, dashes=dashes): values
        for (name, values), (dashes, colour) in zip(segments.items(), cycle(looks), strict=False)
    }


def _place(deviation: float) -> float:
    """Where a deviation lies on the track of a descriptor, in per cent of its length."""
    return round(50 + 50 * min(max(deviation / LIMIT, -1.0), 1.0), 1)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
