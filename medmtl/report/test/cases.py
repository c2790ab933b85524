"""Which cases of a test are pictured, and what is said of each; and the three to look at first."""

from collections.abc import Sequence
from typing import NamedTuple

from medmtl.ood.mask_rule import ACCEPTABLE
from medmtl.report.html import anchor, number
from medmtl.report.wrong_verdicts import FIRST, KINDS, said_of, wrong
from medmtl.results.case import CaseResult, best_and_worst, is_number, tasks_of
from medmtl.results.test import EvaluationResult

UNWARNED = "unwarned"


class Pictured(NamedTuple):
    """A case with its pictures.

    Attributes:
        place: the name by which links find it.
        kind: "best", "worst", "only" or "unwarned" (of its task), "missed" or "false alarm".
        result: of the case.
        words: what is remarkable about it, a sentence without a full stop.
        title: above its pictures.
        figures: names of them, without that of the kind of figure.
    """

    place: str
    kind: str
    result: CaseResult
    words: str
    title: str
    figures: str

    @property
    def case(self) -> tuple[str, str]:
        """Dataset and name."""
        return self.result.dataset, self.result.case

    @property
    def verdict_wrong(self) -> bool:
        """Whether it is shown because the verdict on the image is wrong."""
        return self.kind in KINDS


def pictured_cases(evaluation: EvaluationResult) -> list[Pictured]:
    """Best and worst case of each task, the worst that no verdict warns of, and all images with a wrong verdict."""
    found = [_of_task(task, kind, result) for task, kind, result in _remarkable(evaluation.cases)]
    for kind, results in wrong(evaluation.cases, lambda result: result.expected == "out").items():
        for result in results:
            place = anchor(kind, result.dataset, result.case)
            name = evaluation.ood_score or ""
            score, digits = result.scores.get(name), evaluation.score(name).digits
            patients = evaluation.calibration_patients
            words = said_of(kind, result.p_value, patients, score, evaluation.threshold, digits)
            title = f"{kind.capitalize()}: {result.dataset}, {result.case}"
            found.append(Pictured(place, kind, result, words, title, place))
    return found


def links_of(pictured: Sequence[Pictured]) -> dict[tuple[str, str], str]:
    """Dataset and case -> the place of its pictures, that with the wrong verdict if it has two."""
    ordered = sorted(pictured, key=lambda each: each.verdict_wrong)
    return {each.case: each.place for each in ordered}


def first_cases(pictured: Sequence[Pictured]) -> list[Pictured]:
    """The cases to look at first: a wrong mask without a warning, a missed image, a false alarm; then more of each.

    Masks count from the lowest Dice up, and one that is acceptable is looked at last.
    """
    silent = [each for each in pictured if each.kind in ("worst", "only", UNWARNED) and not _warned(each.result)]
    silent.sort(key=lambda each: each.result.dice or 0.0)
    bad = [each for each in silent if (each.result.dice or 0.0) < ACCEPTABLE]
    queues = [bad, *([each for each in pictured if each.kind == kind] for kind in KINDS)]
    warned = [each for each in pictured if each.kind in ("worst", "only") and _warned(each.result)]
    queues.append(sorted([*warned, *(each for each in silent if each not in bad)], key=lambda e: e.result.dice or 0.0))
    # One of each of the first three kinds, then what is left of them, and other masks at the end.
    order = [queue[turn] for turn in range(FIRST) for queue in queues[:3] if turn < len(queue)] + queues[3]
    chosen: dict[tuple[str, str], Pictured] = {}
    for each in order:
        chosen.setdefault(each.case, each)
    return list(chosen.values())[:FIRST]


def _remarkable(results: Sequence[CaseResult]) -> list[tuple[str, str, CaseResult]]:
    found = []
    for task in tasks_of(results):
        own = [result for result in results if result.dataset == task]
        shown = best_and_worst(own)
        silent = [result for result in own if is_number(result.dice) and not _warned(result)]
        lowest = min(silent, key=lambda result: result.dice or 0.0, default=None)
        if (
            lowest is not None
            and (lowest.dice or 0.0) < ACCEPTABLE
            and all(lowest is not each for each in shown.values())
        ):
            shown[UNWARNED] = lowest
        found += [(task, kind, result) for kind, result in shown.items()]
    return found


def _of_task(task: str, kind: str, result: CaseResult) -> Pictured:
    dice = f"Dice {number(result.dice, 2)}"
    words = {"best": f"{dice}, the highest of {task}", "worst": f"{dice}, the lowest of {task}"}.get(kind, dice)
    if kind in ("worst", "only", UNWARNED):
        words += "; a verdict warns of it" if _warned(result) else "; no verdict warns of it"
    rank = "worst case without a warning" if kind == UNWARNED else f"{kind} case"
    title = f"{task}, {rank}: {result.case}, {dice}"
    return Pictured(anchor(task, kind), kind, result, words, title, f"{task}-{kind}")


def _warned(result: CaseResult) -> bool:
    return result.rejected is True or result.mask_reliable is False
