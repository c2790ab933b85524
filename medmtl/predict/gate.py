"""Gate: what the OOD verdict means for the mask and for the exit code."""

from collections.abc import Sequence

from medmtl.errors import INCOMPLETE
from medmtl.predict.options import OnOod
from medmtl.results.prediction import OUT, FailedCase, PredictedCase


def withholds(in_distribution: bool | None, on_ood: OnOod) -> bool:
    """Whether no mask is written. Masks of undecided images are written."""
    return on_ood == "skip" and in_distribution is False


def exit_code(cases: Sequence[PredictedCase], failed: Sequence[FailedCase], on_ood: OnOod) -> int:
    """0, or 3 where an image failed, or is OOD under `on_ood="fail"`."""
    rejected = on_ood == "fail" and any(case.verdict == OUT for case in cases)
    return INCOMPLETE if failed or rejected else 0
