"""A headless Chromium that tests drive through the pipe of its DevTools protocol, without a library."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe")
SECONDS = 60.0
# Chromium reads commands from descriptor 3 and writes answers to 4.
BEGIN = """
import os, sys
from fcntl import F_DUPFD, fcntl
theirs, ours = (fcntl(int(each), F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(theirs, 3)
os.dup2(ours, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class NavigatedError(Exception):
    """The page was left for another while it was asked."""


class Browser:
    """One page.

    Attributes:
        requested: address of everything that the page asked for.
        complaints: what scripts threw and the console printed as an error.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb", 0), os.fdopen(answers, "rb", 0)
        self._number, self._left, self._session = 0, b"", ""
        self.requested: list[str] = []
        self.complaints: list[str] = []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            NavigatedError: the page was left meanwhile.
        """
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != self._number:
            self._note(message)
        if "navigated" in message.get("error", {}).get("message", ""):
            raise NavigatedError(message)
        assert "error" not in message, message
        return message["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            piece = self._answers.read(1 << 16)
            assert piece, "the browser has ended"
            self._left += piece
        first, _, self._left = self._left.partition(b"\0")
        return json.loads(first)

    def _note(self, message: dict[str, Any]) -> None:
        kind, params = message.get("method"), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif kind == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])

    def open(self, address: str) -> None:
        """Open an address, and wait until it is loaded."""
        self.do("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """The value of an expression on the page."""
        return self.do("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true, on this page or the one that it leads to."""
        end = time.monotonic() + SECONDS
        while True:
            with suppress(NavigatedError):
                if self.value(expression):
                    return
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def drop(self, path: Path, selector: str) -> None:
        """Drop a file on an element, as a user does from a file manager."""
        box = self.value(f"JSON.stringify(document.querySelector({selector!r}).getBoundingClientRect())")
        place = json.loads(box)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.do("Input.dispatchDragEvent", type=kind, x=place["x"] + 9, y=place["y"] + 9, data=data)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, whole: bool = True) -> bytes:
        """The page as PNG, whole or as far as it is seen."""
        found = self.do("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        return base64.b64decode(found["data"])


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a history, which ends with the block."""
    assert CHROMIUM is not None
    theirs, commands = os.pipe()
    answers, ours = os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        shell = [sys.executable, "-c", BEGIN, str(theirs), str(ours), *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(shell, pass_fds=(theirs, ours), **quiet)
        os.close(theirs)
        os.close(ours)
        try:
            page = Browser(commands, answers)
            yield page
            page._session = ""
            page.do("Browser.close")
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
