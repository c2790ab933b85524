"""Records of `medmtl data check`: the content of a case, and a finding."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
DIRECTIONS = {"right-left": "RL", "front-back": "AP", "head-foot": "SI"}


class Intensity(NamedTuple):
    """The values of one channel of an image, in its own unit.

    Attributes:
        minimum: the lowest.
        low: percentile 1.
        median: percentile 50.
        high: percentile 99.
        maximum: the highest.
    """

    minimum: float
    low: float
    median: float
    high: float
    maximum: float


@dataclass(frozen=True)
class Finding:
    """An error in a case or a dataset, a probable mistake, or something unusual.

    Attributes:
        severity: `error`: the case cannot be used; `warning`: probably a mistake; `note`: unusual, worth a look.
        rule: the rule that was broken, one word: `affine`, `duplicate`, ...
        dataset: the task or folder.
        case: the case; empty for the dataset as a whole.
        message: the finding.
        fix: what to do.
    """

    severity: Severity
    rule: str
    dataset: str
    case: str
    message: str
    fix: str = ""


@dataclass(frozen=True)
class CaseFacts:
    """What was read of a case.

    Attributes:
        dataset: the task or folder.
        case: unique within its dataset.
        patient: the patient; cases of one patient stay on one side of a split.
        part: "training" for a labelled case, "test" for an image without a label.
        images: the image files that are used.
        labels: the label files.
        shape: voxels along the stored axes; empty where the image cannot be read, as all that follows.
        spacing: mm along the stored axes.
        axes: where the stored axes point, for example "LPS".
        dtype: type of a voxel as stored, for example "int16".
        intensity: one for each channel that is used.
        volumes_ml: label value -> its volume, of the values above 0 that occur.
        image_digests: one for each channel, from its voxel values alone: a copy in another order, type or header has
            the same. Empty text for a channel that holds one value only.
        label_digest: of the label values, in the stored order; empty without foreground.
        thumbnail: three slices with the label's outline, PNG.
    """

    dataset: str
    case: str
    patient: str
    part: str
    images: tuple[str, ...]
    labels: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    axes: str = ""
    dtype: str = ""
    intensity: tuple[Intensity, ...] = ()
    volumes_ml: Mapping[int, float] = field(default_factory=dict)
    image_digests: tuple[str, ...] = ()
    label_digest: str = ""
    thumbnail: bytes = b""

    @property
    def spacing_by_axis(self) -> dict[str, float]:
        """Voxel size in mm "right-left", "front-back" and "head-foot", in whatever order the axes are stored."""
        return self._by_axis(self.spacing)

    @property
    def shape_by_axis(self) -> dict[str, float]:
        """Voxels, as `spacing_by_axis`."""
        return self._by_axis(self.shape)

    @property
    def extent_by_axis(self) -> dict[str, float]:
        """Size of the volume in mm, as `spacing_by_axis`."""
        return self._by_axis([size * step for size, step in zip(self.shape, self.spacing, strict=True)])

    def _by_axis(self, values: Sequence[float]) -> dict[str, float]:
        stored = dict(zip(self.axes, values, strict=True))
        return {
            name: value for name, letters in DIRECTIONS.items() for axis, value in stored.items() if axis in letters
        }


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by severity, in their own order within it."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
