"""A function in a fork of this process, which has imported everything already, where a command would be started."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any


class ForkedProcess:
    """Stands in for `subprocess.Popen`, whose start costs five seconds of imports: `ForkedProcess(work, *arguments)`."""

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
