"""Running the jobs of an experiment: each once, after those that it needs; a failure does not stop the others."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medmtl.errors import RunError
from medmtl.experiment.plan.job import Job
from medmtl.experiment.run.launchers import Handle, Launcher
from medmtl.experiment.run.progress import Status, View
from medmtl.runs.lock import locked

PAUSE = 60.0  # seconds before a job that was refused is tried again
REFUSALS = 3


@dataclass(frozen=True)
class Outcome:
    """Outcome of the jobs, in their order.

    Attributes:
        finished: names of those that are finished, now or by an earlier start.
        failed: name -> the reason, on one line.
        skipped: name -> why it could not be started.
    """

    finished: tuple[str, ...]
    failed: Mapping[str, str]
    skipped: Mapping[str, str]


def run_jobs(jobs: Sequence[Job], launcher: Launcher, at_once: int, view: View, every: float = 1.0) -> Outcome:
    """Run all jobs of an experiment that are not finished.

    They are started in their order, a job that needs another once that has finished. One that fails stops only those
    that need it.

    Args:
        jobs: of one experiment.
        launcher: starts the workers.
        at_once: workers at a time.
        view: shows the progress.
        every: seconds between two polls of the workers.

    Raises:
        RunError: the experiment was stopped with Ctrl-C, or the launcher refuses all jobs.
    """
    status = Status(jobs, at_once)
    status.finished.update({job.name: job.seconds for job in jobs if job.finished})
    handles: dict[str, Handle] = {}
    try:
        with view:
            while status.waiting or handles:
                _collect(status, handles, view)
                _skip(status, view)
                _start(status, handles, launcher, view)
                view.show(status)
                if handles:
                    time.sleep(every)
    except KeyboardInterrupt:
        done = f"{len(status.finished)} of {len(jobs)} training runs are finished"
        raise RunError(f"stopped: {done}", fix="run the same command again to continue") from None
    finally:
        for handle in handles.values():
            handle.stop()
    return Outcome(
        tuple(job.name for job in jobs if job.name in status.finished),
        *({job.name: why[job.name] for job in jobs if job.name in why} for why in (status.failed, status.skipped)),
    )


@contextmanager
def only_runner(folder: Path) -> Iterator[None]:
    """Keep other processes from running the same experiment within the block.

    Args:
        folder: the experiment's folder.

    Raises:
        RunError: another process runs it.
    """
    try:
        with locked(folder / ".lock", wait=False):
            yield
    except BlockingIOError:
        raise RunError(f"{folder} is being run by another process", fix="wait until it ends, or stop it") from None


def _collect(status: Status, handles: dict[str, Handle], view: View) -> None:
    """Poll the workers, and record those that have ended."""
    for job in status.jobs:
        reason = handles[job.name].poll() if job.name in handles else None
        if reason is None:
            continue
        del handles[job.name], status.running[job.name]
        if reason:
            status.failed[job.name] = reason
        else:
            status.finished[job.name] = job.seconds
        view.ended(job, status)


def _skip(status: Status, view: View) -> None:
    """Skip the jobs that need one which will not finish."""
    coming = {job.name for job in status.waiting} | status.finished.keys() | status.running.keys()
    for job in status.waiting:
        if job.needs is not None and job.needs not in coming:
            coming.discard(job.name)
            how = "was skipped" if job.needs in status.skipped else "failed"
            status.skipped[job.name] = f"it starts from {job.needs}, which {how}"
            view.ended(job, status)


def _start(status: Status, handles: dict[str, Handle], launcher: Launcher, view: View) -> None:
    """Start the jobs that can be started, up to `at_once`.

    A job that is refused while others run is tried again later: a queue may be full, or its controller restart. If
    nothing runs it has failed; after `REFUSALS` in a row no other is tried.
    """
    if time.monotonic() < status.pause_until:
        return
    for job in status.waiting:
        if len(handles) == status.at_once:
            return
        if job.needs is not None and job.needs not in status.finished:
            continue
        status.running[job.name] = time.monotonic()
        try:
            handles[job.name] = launcher.start(job)
        except RunError as error:
            del status.running[job.name]
            if handles:
                status.pause_until = time.monotonic() + PAUSE
                return
            status.failed[job.name] = str(error)
            view.ended(job, status)
            status.refusals += 1
            if status.refusals == REFUSALS:
                raise RunError(
                    f"no training run can be started: {error}", fix="correct that, and start again"
                ) from None
        else:
            status.refusals = 0
            view.started(job, status)
