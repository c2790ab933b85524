"""The test result of one case, and what is derived from several: tasks, pooled bins, best and worst."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Literal

from medmtl.calibration.metrics.bins import BinTable


@dataclass(frozen=True)
class CaseResult:
    """The test result of one case.

    Attributes:
        case: the case's name, unique within its dataset.
        dataset: the task, or the folder of images without a task.
        expected: "in" for the test cases of a trained task, "out" for other anatomy and held-out tasks.
        dice: Dice of the segmentation; None without a label, NaN for a label without foreground.
        hd95_mm: 95 % Hausdorff distance of the surfaces, mm; None and NaN as for Dice.
        asd_mm: average symmetric surface distance, mm; None and NaN as for Dice.
        calibration: region -> reliability bins of the case; empty without a label.
        scores: name of an out-of-distribution score -> its value, higher = more out of distribution.
        p_value: conformal p-value of the score that decides; None without an OOD detector.
        rejected: the verdict, True for out of distribution; None where none can be given.
        nearest_task: the task that the image is nearest to, see `medmtl.ood.nearest`; None without an OOD detector.
        preprocessing: under which the case was scored; None for a case without a task that got no verdict.
        patient: whose case it is, where several cases or tasks are of the same person.
        mask_reliable: the verdict on the mask; None where there is none.
        mask_disagreement: 1 - Dice of the mask and that of the mirrored image, 0 to 1; None where not measured.
        reasons: what is unusual about image and mask, a clause each; empty where nothing is flagged.
        calibration_scaled: as `calibration`, after scaling; empty without one.
        classes: class -> key of an accuracy metric -> its value, of a task with several classes, whose `dice` and
            distances are means over these; those that the label does not mark are left out.
        foreground_dice: Dice of all classes as one; None for a task with one class, and where one is not marked.
        class_calibration: class -> region -> reliability bins of the class against all else; empty with one class.
        class_calibration_scaled: as `class_calibration`, after scaling; empty without one, and where classes overlap.
        dice_recognised: Dice where the task is not told but recognised; None where a network has one output.
    """

    case: str
    dataset: str
    expected: Literal["in", "out"]
    dice: float | None
    hd95_mm: float | None
    asd_mm: float | None
    calibration: Mapping[str, BinTable]
    scores: Mapping[str, float]
    p_value: float | None
    rejected: bool | None
    nearest_task: str | None
    preprocessing: str | None
    patient: str | None = None
    mask_reliable: bool | None = None
    mask_disagreement: float | None = None
    reasons: Sequence[str] = ()
    calibration_scaled: Mapping[str, BinTable] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    foreground_dice: float | None = None
    class_calibration: Mapping[str, Mapping[str, BinTable]] = field(default_factory=dict)
    dice_recognised: float | None = None
    class_calibration_scaled: Mapping[str, Mapping[str, BinTable]] = field(default_factory=dict)

    @property
    def person(self) -> str:
        """The patient, the same name in all tasks; a case without one counts as a patient of its own."""
        return self.patient or f"{self.dataset}/{self.case}"


def tasks_of(results: Iterable[CaseResult]) -> list[str]:
    """The in-distribution tasks, in the order in which they first appear."""
    return list(dict.fromkeys(result.dataset for result in results if result.expected == "in"))


def people_of(results: Iterable[CaseResult]) -> int:
    """How many people the cases are of: a patient with images in several tasks is one."""
    return len({result.person for result in results})


def pooled_bins(results: Iterable[CaseResult], region: str, scaled: bool = False) -> BinTable | None:
    """The bins of all cases together over one region, after scaling if `scaled`; None if no case has that region."""
    cases = [result.calibration_scaled if scaled else result.calibration for result in results]
    tables = [case[region] for case in cases if region in case]
    return reduce(add, tables) if tables else None


def best_and_worst(results: Iterable[CaseResult]) -> dict[str, CaseResult]:
    """The cases of highest and lowest Dice.

    Args:
        results: cases of one task; those without a Dice are left out.

    Returns:
        `{"best": ..., "worst": ...}`, `{"only": ...}` for a single case, or nothing.
    """
    ranked = sorted((result for result in results if is_number(result.dice)), key=lambda result: result.dice or 0.0)
    if len(ranked) == 1:
        return {"only": ranked[0]}
    return {"best": ranked[-1], "worst": ranked[0]} if ranked else {}


def is_number(value: float | None) -> bool:
    """Whether there is a value, and it is finite."""
    return value is not None and math.isfinite(value)
