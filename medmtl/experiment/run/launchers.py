"""Launchers: where the workers of an experiment run, on this machine or on a cluster."""

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from medmtl.errors import ConfigError, RunError
from medmtl.experiment.plan.job import Job
from medmtl.experiment.run import worker
from medmtl.extras import how_to_install

DAY = 24 * 60  # minutes; the default of submitit is five


class Handle(Protocol):
    """A worker that was started."""

    def poll(self) -> str | None:
        """None while it runs, "" once its job is finished, else the reason why it failed, on one line."""

    def stop(self) -> None:
        """End the worker."""


class Launcher(Protocol):
    """Starts workers."""

    def start(self, job: Job) -> Handle:
        """Start a worker on a job.

        Raises:
            RunError: it cannot be started.
        """


class LocalLauncher:
    """Starts processes on this machine and shares its cores out among them, and its GPUs.

    Each of several processes gets one GPU, in turn; a single one gets all, for a run on several devices.

    Args:
        workers: processes at a time.
        cores: cores to share out; those that this process may use if None. OMP_NUM_THREADS, if set, wins.
        devices: names of the GPUs to share out, as in CUDA_VISIBLE_DEVICES; those that this process may
            use if None.
    """

    def __init__(self, workers: int, cores: int | None = None, devices: Sequence[str] | None = None) -> None:
        share = max(1, (cores or _usable_cores()) // workers)
        self._environment = {"OMP_NUM_THREADS": str(share), **os.environ, **_current_folder()}
        found = _usable_devices() if devices is None else list(devices)
        self._free = deque(found[place % len(found)] for place in range(workers)) if found and workers > 1 else None

    def start(self, job: Job) -> Handle:
        """Start a process that ends with this one, and writes its output to the job's log."""
        command = [sys.executable, "-P", "-u", "-m", worker.__name__, str(job.file), "--tied"]
        device = self._free.popleft() if self._free else None
        pinned = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        try:
            _make_way(job.log)
            with job.log.open("wb") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment | pinned,
                    start_new_session=True,  # Ctrl-C is for the runner alone, which then stops its workers
                )
        except OSError as error:
            self._give_back(device)
            raise RunError(f"its process could not be started ({_one_line(error)})") from None
        return _LocalWorker(job, process, partial(self._give_back, device))

    def _give_back(self, device: str | None) -> None:
        if device is not None and self._free is not None:
            self._free.append(device)


class _LocalWorker:
    def __init__(self, job: Job, process: "subprocess.Popen[bytes]", ended: Callable[[], None]) -> None:
        self._job = job
        self._process = process
        self._ended = ended

    def poll(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        self._close()
        self._ended()
        if self._job.finished:
            return ""
        return _failure(self._job.log, f"ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else "")

    def stop(self) -> None:
        self._process.kill()
        self._close()
        self._process.wait()

    def _close(self) -> None:
        """Close the pipe, at whose end the processes that the worker itself started end, too."""
        if self._process.stdin is not None:
            self._process.stdin.close()


class ClusterLauncher:
    """Submits jobs to a cluster.

    Args:
        folder: the experiment's folder, which has the same path on the nodes; submitit's own files go into
            `logs/submitit` within it.
        options: options of submitit, such as `timeout_min`, `gpus_per_node`, `slurm_partition`.
        cluster: `slurm`, or `local` for processes on this machine that outlive this one.

    Raises:
        ConfigError: submitit is not installed, there is no such cluster here, or an option is unknown.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], cluster: Literal["slurm", "local"] = "slurm") -> None:
        try:
            import submitit
        except ImportError:
            raise ConfigError("submitit is not installed", fix=how_to_install("cluster")) from None
        # submitit passes the function as a pickle in its own folder; there is no other way. It holds only the names of
        # a function and of a job file, and medmtl does not read it.
        try:
            self._executor = submitit.AutoExecutor(folder / "logs" / "submitit", cluster=cluster)
            self._executor.update_parameters(**{"timeout_min": DAY, **options, "stderr_to_stdout": True})
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(f"cluster: {_one_line(error)}", fix="correct the options") from None

    def start(self, job: Job) -> Handle:
        """Submit a job; its log links to that of submitit.

        Raises:
            RunError: the cluster refuses it.
        """
        try:
            self._executor.update_parameters(name=job.name)
            submitted = self._executor.submit(_submitted, str(job.file))
        except (OSError, RuntimeError) as error:
            raise RunError(f"it could not be submitted ({_one_line(error)})") from None
        _make_way(job.log)
        job.log.symlink_to(os.path.relpath(submitted.paths.stdout, job.log.parent))
        return _Submission(job, submitted)


class _Submission:
    def __init__(self, job: Job, submitted: Any) -> None:
        self._job = job
        self._submitted = submitted

    def poll(self) -> str | None:
        if not self._submitted.done():
            return None
        return "" if self._job.finished else _failure(self._job.log)

    def stop(self) -> None:
        self._submitted.cancel(check=False)


def _submitted(file: str) -> None:
    """Run a job on a node."""
    try:
        worker.main([file])
    except SystemExit as end:  # submitit would wait: an exit leaves no result, and it rarely polls the cluster
        raise RuntimeError(f"ended with exit code {end.code}") from None


def _failure(log: Path, ending: str = "") -> str:
    """One line on why a worker failed: how it ended, or else the last error in its log, and where the log is."""
    lines = log.read_bytes().decode(errors="replace").splitlines() if log.is_file() else []
    lines = [line.strip() for line in lines if line.strip()]
    own = [line for line in lines if line.startswith("medmtl: error: ")]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    reason = ending or next((found[-1] for found in (own, raised, lines) if found), "ended without output")
    return f"{reason.removeprefix('medmtl: error: ')} (log: {log})"


def _make_way(log: Path) -> None:
    """Remove an earlier log, which may be a link to that of a cluster."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _usable_devices() -> list[str]:
    """Names of the GPUs that this process may use."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _current_folder() -> dict[str, str]:
    """What has a worker find modules where this process does, and `python -m` not add the current folder by itself."""
    here = str(Path.cwd())
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.environ.get("PYTHONPATH") else []
    return {"PYTHONPATH": os.pathsep.join([*known, here])} if here in sys.path or "" in sys.path else {}


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
