"""Record of one predicted image, as written to its JSON file and read by `summary.csv` and the gallery."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from medmtl.typed import typed

SCHEMA = 2  # of the JSON file
_SCHEMA_1 = {"preprocessing": "recipe", "ood_score": "distance"}  # fields whose key was another in schema 1
OUT, UNDECIDED, IN = "out-of-distribution", "undecided", "in-distribution"
_WORDS = {False: OUT, None: UNDECIDED, True: IN}


@dataclass(frozen=True)
class PredictedCase:
    """A segmented image and its verdict.

    Attributes:
        case: name of the image, unique within a run.
        input: where it was read.
        mask: name of the mask's file; None where none was written.
        in_distribution: False: out-of-distribution; None: undecided.
        p_value: conformal p-value, in (0, 1]; None where the checkpoint has no OOD detector.
        alpha: up to this p-value an image is called OOD.
        nearest_task: the task that it is nearest to, see `medmtl.ood.nearest`; None where p_value is.
        ood_score: of the detector that gives the verdict, higher = more out-of-distribution; None where p_value is.
        scores: this and other scores by name, higher = more out-of-distribution.
        task: whose organ the mask is: the given task, or the nearest one.
        preprocessing: of that task, as text.
        volume_ml: of the mask, all classes together.
        model: `name` and `digest` of the checkpoint, and the version of `medmtl`.
        warnings: about file, verdict and mask, a sentence each.
        seconds: spent on each step.
        mask_reliable: False: do not rely on the mask; None: undecided, or not checked.
        mask_p_value: conformal, of the disagreement among acceptable held-out masks; None where not measured.
        mask_disagreement: 1 - Dice of the mask and that of the mirrored image, 0 to 1; None where not measured.
        reasons: what sets image and mask apart from the training images of the task, a clause each.
        nearest_image: the training image with the nearest signature, as `task/case`.
        mask_descriptors: what describes the mask, each beside its range among the training masks of the nearest task,
            see `medmtl.ood.reason.Compared`; empty where the detector compares none.
        files: kind -> name of a written file: `mask`, `dicom_seg`, `probability`, `entropy`, `picture`,
            `slices` (those of the slider in the gallery).
        request: input files and options; an image whose request is unchanged is not predicted again.
        expected_volume_ml: of the organ, the sum of its probability over all voxels; None in records of versions that
            did not measure it.
        labels: class -> label value in the mask, in the order of segments and probability maps; empty for an organ of
            interest, whose mask is 1, and in records of versions without classes.
        volumes_ml: class -> its volume in the mask; of classes that overlap each has all that is its own.
        chosen: how the preprocessing was chosen, where neither task nor modality was given; else empty.
        ood_threshold: an image whose `ood_score` is above it is out-of-distribution; None without a verdict.
        calibration_patients: held-out patients of each threshold; `p_value` is at least 1 / (patients + 1).
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
    mask_reliable: bool | None = None
    mask_p_value: float | None = None
    mask_disagreement: float | None = None
    reasons: Sequence[str] = ()
    nearest_image: str | None = None
    mask_descriptors: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    expected_volume_ml: float | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    chosen: str = ""
    ood_threshold: float | None = None
    calibration_patients: Sequence[int] = ()

    @property
    def mask_verdict(self) -> str:
        """`not reliable`, `reliable`, or nothing where that is undecided."""
        return {False: "not reliable", True: "reliable", None: ""}[self.mask_reliable]

    @property
    def flagged(self) -> bool:
        """Whether the image is out-of-distribution or its mask is not reliable."""
        return self.in_distribution is False or self.mask_reliable is False

    @property
    def verdict(self) -> str:
        """`out-of-distribution`, `undecided` or `in-distribution`."""
        return _WORDS[self.in_distribution]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PredictedCase":
        """Read what `to_dict` returned, or that of schema 1.

        Raises:
            ValueError: a field is missing, of another type, or a number that JSON cannot hold.
        """
        content = typed(dict[str, Any], content, "the record")
        json.dumps(content, allow_nan=False)
        old = {} if "schema" in content else _SCHEMA_1
        keys = {each.name: old.get(each.name, each.name) for each in fields(cls)}
        return typed(cls, {name: content[key] for name, key in keys.items() if key in content}, "the record")


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
    """OOD images, then those with unreliable masks, then undecided, then in-distribution ones.

    Within each by p-value, then by decreasing OOD score.
    """
    order = (OUT, UNDECIDED, IN)

    def rank(case: PredictedCase) -> tuple[bool, bool, int, float, float, str]:
        p_value = 1.0 if case.p_value is None else case.p_value
        return (
            case.verdict != OUT,
            case.mask_reliable is not False,
            order.index(case.verdict),
            p_value,
            -(case.ood_score or 0.0),
            case.case,
        )

    return sorted(cases, key=rank)
