"""The pages of `medmtl serve`: a place to drop a scan on, and below it what was found in the last one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medmtl.report.html import Picture, p_in_words, render
from medmtl.report.predict.section import Section
from medmtl.report.stack import Stack
from medmtl.results.prediction import IN, PredictedCase


@dataclass(frozen=True)
class Shown:
    """A predicted scan.

    Attributes:
        case: its record.
        picture: a PNG file.
        stack: its slices.
        links: what can be saved -> its address.
    """

    case: PredictedCase
    picture: bytes
    stack: Stack
    links: Mapping[str, str]


def served_page(
    tasks: Sequence[str], modalities: Sequence[str], facts: Mapping[str, str], kept: str, shown: Shown | None = None
) -> str:
    """A page.

    Args:
        tasks: of the network.
        modalities: that a scan can have.
        facts: about the network, in the order to show them.
        kept: how long results are.
        shown: the scan that was predicted; None: only the place to drop one on.
    """
    case = None if shown is None else shown.case
    return render(
        "served.html.j2",
        tasks=tasks,
        modalities=modalities,
        facts=facts,
        kept=kept,
        headline=None if case is None else headline(case),
        section=None
        if shown is None
        else Section(shown.case, Picture.of(shown.picture), shown.case.warnings, shown.stack),
        links={} if shown is None else shown.links,
    )


def headline(case: PredictedCase) -> str:
    """The verdicts on a scan in a sentence or two."""
    sentences = {
        False: f"{case.case} is out-of-distribution: do not trust its mask.",
        None: f"{case.case} is undecided.",
        True: f"{case.case} is {IN}, {p_in_words(case.p_value, case.calibration_patients)}.",
    }
    doubtful = " Its mask is not reliable." if case.mask_reliable is False else ""
    return f"{sentences[case.in_distribution]}{doubtful}"
