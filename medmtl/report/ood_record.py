"""One row of `ood.csv`: what one detector says of one image in the benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """What one detector says of one image.

    Attributes:
        detector: name of the detector.
        group: `familiar`: test images as they are; `calibration`: validation images, which set the threshold; `far`:
            another organ or modality; `near`: the same organ from another scanner or population; `covariate`: a
            shifted test image; `control`: one shifted in a way that should change nothing; `nonsense`: no image at
            all.
        source: the task, the folder of foreign images, or the shift.
        severity: 1 to 5; 0 where it has no meaning.
        task: the task of the image, or of the test image that was shifted; empty for foreign ones.
        case: name of the image within its source, for a shifted one that of the test image.
        patient: whose image it is.
        score: higher = more foreign.
        dice: of the segmentation against the label, in [0, 1]; None without a label, NaN for a label without
            foreground.
        p_value: conformal, by this detector's scores of the calibration images; None for these.
        rejected: the verdict, True for foreign; None for calibration images, and where there are too few of them.
    """

    detector: str
    group: str
    source: str
    severity: int
    task: str
    case: str
    patient: str
    score: float
    dice: float | None = None
    p_value: float | None = None
    rejected: bool | None = None
