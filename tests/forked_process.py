"""Forks of this process, which has imported everything already, where a command would be started."""

import multiprocessing
import os
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace
from typing import IO, Any

from medmtl.experiment.run import worker


class ForkedProcess:
    """Stands in for `subprocess.Popen`, which costs five seconds of imports: `ForkedProcess(work, *arguments)`."""

    stdin = stdout = stderr = None

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def poll(self) -> int | None:
        self._process.join(0)
        return self._process.exitcode

    def send_signal(self, signal: int) -> None:
        if self.poll() is None and self.pid is not None:
            os.kill(self.pid, signal)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode


class Worker(ForkedProcess):
    """Stands in for `subprocess.Popen` of a worker of an experiment. Real ones are started in test_workers.py."""

    def __init__(self, command: list[str], stdout: IO[bytes], **_: Any) -> None:
        super().__init__(_work, command[command.index(worker.__name__) + 1], stdout.fileno())


# The module `subprocess` for `medmtl.experiment.run.launchers`.
FORKING = SimpleNamespace(Popen=Worker, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)


def _work(file: str, log: int) -> None:
    os.dup2(log, 1), os.dup2(log, 2)
    with os.fdopen(log, "w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        worker.main([file])
