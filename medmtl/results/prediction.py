"""What `medmtl predict` says of one image, as its JSON file, `summary.csv` and the gallery tell it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

OUT, UNDECIDED, IN = "out-of-distribution", "undecided", "in-distribution"
_WORDS = {False: OUT, None: UNDECIDED, True: IN}


@dataclass(frozen=True)
class PredictedCase:
    """A segmented image and its verdict.

    Attributes:
        case: name of the image, unique within a run.
        input: where it was read.
        mask: name of the mask's file; None where none was written.
        in_distribution: whether the image is like the training images; None where that cannot be decided.
        p_value: conformal p-value, in (0, 1]; None where the checkpoint holds nothing to ood_detector by.
        alpha: up to this p-value an image is foreign.
        nearest_task: the task that the image looks most like; None where p_value is.
        ood_score: the score that decides, higher = more foreign; None where p_value is.
        scores: that and others by name, higher = more foreign.
        task: whose organ the mask is: the one that was told, or that the image looks most like.
        preprocessing: how that task prepares images, in words.
        volume_ml: of the predicted organ.
        model: `name` and `digest` of the checkpoint, and the version of `medmtl`.
        warnings: what a user should know, a sentence each.
        seconds: what each step took.
        files: kind -> name of a file that was written: `mask`, `dicom_seg`, `probability`, `entropy`, `picture`.
        request: what was asked for, and of which file; the same request need not be computed again.
    """

    case: str
    input: str
    mask: str | None
    in_distribution: bool | None
    p_value: float | None
    alpha: float
    nearest_task: str | None
    ood_score: float | None
    scores: Mapping[str, float | None]
    task: str
    preprocessing: str
    volume_ml: float
    model: Mapping[str, str]
    warnings: Sequence[str]
    seconds: Mapping[str, float]
    files: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`foreign`, `undecided` or `familiar`."""
        return _WORDS[self.in_distribution]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PredictedCase":
        """What `to_dict` gave.

        Raises:
            KeyError: a field is missing.
        """
        return cls(**{each.name: content[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class FailedCase:
    """An image that could not be segmented.

    Attributes:
        case: its name.
        input: where it is.
        error: why.
    """

    case: str
    input: str
    error: str


def worst_first(cases: Iterable[PredictedCase]) -> list[PredictedCase]:
    """Foreign images, then undecided ones, then familiar ones; of these the most foreign first."""
    order = (OUT, UNDECIDED, IN)

    def rank(case: PredictedCase) -> tuple[int, float, float, str]:
        p_value = 1.0 if case.p_value is None else case.p_value
        return order.index(case.verdict), p_value, -(case.ood_score or 0.0), case.case

    return sorted(cases, key=rank)
