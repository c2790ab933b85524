"""Progress of a running experiment: steps, counts, and an estimate of the time left."""

import heapq
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from medmtl.experiment.plan.job import Job


@dataclass
class Status:
    """State of the jobs of an experiment.

    Attributes:
        jobs: all of them.
        at_once: how many run at a time.
        finished: name of a finished job -> seconds that it took.
        running: name -> `time.monotonic()` of its start.
        steps: name of a running job -> optimizer steps done.
        failed: name -> reason.
        skipped: name of a job that cannot be started -> reason.
        refusals: jobs in a row that could not be started.
        pause_until: `time.monotonic()` before which none is to be started.
    """

    jobs: Sequence[Job]
    at_once: int
    finished: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    refusals: int = 0
    pause_until: float = 0.0

    @property
    def waiting(self) -> list[Job]:
        """Jobs that are still to be started, in their order."""
        known = (self.finished, self.running, self.failed, self.skipped)
        return [job for job in self.jobs if not any(job.name in names for names in known)]

    @property
    def counts(self) -> str:
        """How many are done, running, left and failed, and the time left, as text."""
        text = f"{len(self.finished)} of {len(self.jobs)} done, {len(self.running)} running, {len(self.waiting)} left"
        text += f", {len(self.failed)} failed" + (f", {len(self.skipped)} skipped" if self.skipped else "")
        seconds = self.seconds_left()
        return text + (f"; about {in_words(seconds)} to go" if seconds else "")

    def update(self) -> None:
        """Read the steps of the running jobs."""
        for job in self.jobs:
            if job.name in self.running:  # never fewer: the test of a run rewrites its metrics
                self.steps[job.name] = max(job.progress, self.steps.get(job.name, 0))

    def seconds_left(self) -> float | None:
        """`seconds_left` of these jobs, now."""
        now = time.monotonic()
        steps = {job.name: job.steps for job in self.jobs}
        return seconds_left(
            [(seconds, steps[name]) for name, seconds in self.finished.items()],
            [(now - start, self.steps.get(name, 0), steps[name]) for name, start in self.running.items()],
            [job.steps for job in self.waiting],
            self.at_once,
        )


def seconds_left(
    finished: Sequence[tuple[float, int]],
    running: Sequence[tuple[float, int, int]],
    waiting: Iterable[int],
    at_once: int,
) -> float | None:
    """Estimate the time left of an experiment.

    The time of a step is its average in the finished jobs, start and test included; before any has finished, its
    average in the running ones so far. Waiting jobs then start, in their order, whenever a place becomes free.

    Args:
        finished: (seconds, steps) of each finished job.
        running: (seconds since its start, steps done, steps) of each running job.
        waiting: steps of each job that is still to be started.
        at_once: places.

    Returns:
        Seconds; None if nothing has been measured yet.
    """
    measured = finished or [(seconds, done) for seconds, done, _ in running if done]
    total = sum(steps for _, steps in measured)
    if not total:
        return None
    pace = sum(seconds for seconds, _ in measured) / total
    places = [max(pace * steps - seconds, pace * (steps - done)) for seconds, done, steps in running]
    places += [0.0] * (at_once - len(places))
    heapq.heapify(places)
    for steps in waiting:
        heapq.heapreplace(places, places[0] + pace * steps)
    return max(places)


def in_words(seconds: float) -> str:
    """A length of time as text: `40 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


class View(Protocol):
    """Shows a running experiment; a context that is left when the experiment ends."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def started(self, job: Job, status: Status) -> None:
        """A job has been started."""

    def ended(self, job: Job, status: Status) -> None:
        """A job has finished, failed or been skipped, as the status says."""

    def show(self, status: Status) -> None:
        """Some time has passed."""


class LineView:
    """One line at the start and the end of every job, for logs and pipes.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def started(self, job: Job, status: Status) -> None:
        """Print a line."""
        _print(self._console, f"started {job.name} ({status.counts})")

    def ended(self, job: Job, status: Status) -> None:
        """Print a line."""
        _print(self._console, f"{_end(job, status)} ({status.counts})")

    def show(self, status: Status) -> None:
        """Print nothing."""


class TerminalView:
    """The running jobs, a bar over all optimizer steps, the counts and the time left, kept up to date.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def started(self, job: Job, status: Status) -> None:
        """Add it to the table."""
        self.show(status)

    def ended(self, job: Job, status: Status) -> None:
        """Remove it from the table, and print a line if it did not finish."""
        if job.name not in status.finished:
            _print(self._console, _end(job, status))
        self.show(status)

    def show(self, status: Status) -> None:
        """Redraw."""
        status.update()
        self._live.update(_picture(status), refresh=True)


def view_for(console: Console) -> View:
    """The view that suits a console: live on a terminal, lines elsewhere."""
    return TerminalView(console) if console.is_terminal else LineView(console)


def _picture(status: Status) -> Group:
    table = Table("running", "steps")
    for job in status.jobs:
        if job.name in status.running:
            table.add_row(job.name, f"{status.steps.get(job.name, 0):,} of {job.steps:,}")
    done = sum(job.steps for job in status.jobs if job.name in status.finished) + sum(
        status.steps.get(name, 0) for name in status.running
    )
    steps = sum(job.steps for job in status.jobs)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=steps, completed=done, width=40), f"{done:,} of {steps:,} steps")
    return Group(*([table] if table.row_count else []), bar, status.counts)


def _end(job: Job, status: Status) -> str:
    if job.name in status.finished:
        return f"finished {job.name} in {in_words(status.finished[job.name])}"
    if job.name in status.failed:
        return f"failed {job.name}: {status.failed[job.name]}"
    return f"skipped {job.name}: {status.skipped[job.name]}"


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
