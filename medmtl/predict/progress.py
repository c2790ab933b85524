"""Progress of `medmtl predict`: a line per image, and on a terminal a bar with the time left."""

from collections.abc import Sequence

from rich import progress
from rich.console import Console

from medmtl.progress import ahead
from medmtl.results.prediction import FailedCase, PredictedCase

DAY = 86400.0  # seconds


class Progress:
    """Shows images as they are done.

    Args:
        console: where it is shown.
        efforts: bytes of each image, in the order of the work; the time left is estimated from them.
    """

    def __init__(self, console: Console, efforts: Sequence[int]) -> None:
        self._console = console
        self._efforts = efforts
        self._images = 0
        columns = (
            progress.TextColumn("predicting"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[images]}"),
        )
        self._bar = progress.Progress(
            *columns,
            progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=DAY,  # an image may take longer than the half minute that rich looks back
        )
        self._task = self._bar.add_task("", total=max(sum(efforts), 1), images=self._count())

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, outcome: PredictedCase | FailedCase) -> None:
        """Print the outcome of the next image and its warnings."""
        self._images += 1
        self._bar.update(self._task, completed=sum(self._efforts[: self._images]), images=self._count())
        left = None if self._console.is_terminal else self._bar.tasks[0].time_remaining
        self._print(f"{self._count()}{ahead(left)}: {outcome_line(outcome)}")
        for warning in outcome.warnings if isinstance(outcome, PredictedCase) else ():
            self._print(f"  {warning}")

    def _count(self) -> str:
        return f"{self._images} of {len(self._efforts)}"

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)


def outcome_line(outcome: PredictedCase | FailedCase) -> str:
    """What became of an image, in a line."""
    if isinstance(outcome, FailedCase):
        return f"{outcome.case} failed: {outcome.error}"
    details = "" if outcome.p_value is None else f" (p = {outcome.p_value:.3f}, nearest task {outcome.nearest_task})"
    mask = f"{outcome.volume_ml:.1f} ml" if outcome.mask is not None else "no mask"
    return f"{outcome.case} is {outcome.verdict}{details}, {mask}"
