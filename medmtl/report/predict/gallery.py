"""The gallery: all predicted images with masks and verdicts on one self-contained page, OOD ones first."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medmtl.errors import RunError
from medmtl.files import TextError, read_json, write_text
from medmtl.report.html import Picture, anchor, p_in_words, render
from medmtl.report.predict.section import Section
from medmtl.report.stack import Stack
from medmtl.results.prediction import IN, OUT, UNDECIDED, FailedCase, PredictedCase, worst_first

SLIDERS = 40  # on a page, about 80 kB each
FIRST = 3  # to look at
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
    common = warnings_of_all(cases)
    sections = [
        Section(
            case,
            Picture.of((folder / case.files["picture"]).read_bytes()),
            [each for each in case.warnings if each not in common],
            read_stack(folder / case.files["slices"]) if place < SLIDERS and "slices" in case.files else None,
        )
        for place, case in enumerate(shown)
    ]
    page = render(
        "gallery.html.j2",
        headline=headline(cases, failed),
        ranked=ranked,
        failed=failed,
        doubtful=sum(case.mask_reliable is False for case in cases),
        counts={word: sum(case.verdict == word for case in cases) for word in (OUT, UNDECIDED, IN)},
        shown=sections,
        names={case.case for case in shown},
        classes=any(len(case.labels) > 1 for case in shown),
        first=[(case, anchor(case.case), why(case)) for case in first_cases(shown)],
        common=common,
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


def first_cases(shown: Sequence[PredictedCase]) -> list[PredictedCase]:
    """The cases to look at first: those that are flagged, else those that came nearest to it.

    Args:
        shown: the cases that have a picture, worst first.
    """
    flagged = [case for case in shown if case.flagged]
    near = sorted((case for case in shown if not case.flagged), key=lambda case: case.mask_p_value or 1.0)
    return [*flagged, *sorted(near, key=lambda case: case.p_value or 1.0)][:FIRST]


def why(case: PredictedCase) -> str:
    """Why to look at a case, in words."""
    found = [case.verdict] if case.verdict != IN else []
    if case.mask_reliable is False:
        found.append(f"mask {case.mask_verdict}")
    if found:
        return f"{', '.join(found)}{'' if not case.reasons else f': {case.reasons[0]}'}"
    return f"not flagged, {p_in_words(case.p_value, case.calibration_patients)}"


def warnings_of_all(cases: Sequence[PredictedCase]) -> list[str]:
    """What all of several images share, and so is said once and of none of them."""
    if len(cases) < 2:
        return []
    return [each for each in cases[0].warnings if all(each in other.warnings for other in cases)]


def read_stack(path: Path) -> Stack:
    """The slices of a case as `medmtl predict` wrote them.

    Raises:
        RunError: they cannot be read.
    """
    try:
        return Stack.from_dict(read_json(path))
    except (TextError, ValueError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error})", fix="add --overwrite") from None


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
