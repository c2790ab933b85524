"""Both verdicts on the images of a benchmark, `verdicts.csv`: a row for each image."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medmtl.files import write_table


@dataclass(frozen=True)
class BothVerdicts:
    """What is said of an image and of its mask, as `medmtl predict` says it, and what is known of the mask.

    Attributes:
        group: as in `Record`.
        condition: as in `Record`.
        severity: as in `Record`.
        task: the task of the image; empty for OOD images.
        case: name of the image within its condition.
        patient: whose image it is.
        nearest_task: the task that it is taken for.
        volume_ml: of the mask under that task's preprocessing, or of the image's own task where its Dice is known.
        p_value: conformal, of the OOD score.
        rejected: whether the image is out-of-distribution; None where that is not decided.
        disagreement: 1 - Dice of the mask and that of the mirrored image.
        mask_p_value: conformal, of the disagreement.
        mask_reliable: whether the mask can be relied on; None where that is not decided.
        dice: of the mask against the label, in [0, 1]; None without a label, NaN for a label without foreground.
        acceptable: whether Dice reaches the bar of the task, see `MaskRule`; None where there is no Dice.
    """

    group: str
    condition: str
    severity: int
    task: str
    case: str
    patient: str
    nearest_task: str
    volume_ml: float
    p_value: float | None
    rejected: bool | None
    disagreement: float | None
    mask_p_value: float | None
    mask_reliable: bool | None
    dice: float | None
    acceptable: bool | None

    @property
    def flagged(self) -> bool:
        """Whether either verdict warns of it."""
        return self.rejected is True or self.mask_reliable is False


def write_verdicts(path: Path, verdicts: Iterable[BothVerdicts]) -> None:
    """Write `verdicts.csv`, whole. None is an empty cell; true and false are 1 and 0."""
    rows = [
        {key: int(value) if isinstance(value, bool) else value for key, value in asdict(each).items()}
        for each in verdicts
    ]
    write_table(path, [field.name for field in fields(BothVerdicts)], rows)
