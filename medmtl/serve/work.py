"""Work: one prediction at a time, a bounded number of requests that wait, and an end that leaves none of them."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from math import ceil
from typing import Any, TypeVar

from medmtl.serve.answers import RequestError

T = TypeVar("T")
MOST_WAIT = 60  # seconds after which a refused client is asked to try again, at most


class Work:
    """Does one thing at a time.

    Args:
        waiting: requests that may arrive or wait besides the one that is worked on.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting + 1
        self._taken = 0
        self._seconds = 1.0  # that a prediction takes, of late
        self._stopped = threading.Event()
        self._thread = ThreadPoolExecutor(1, "predicting")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the length of a request, before anything of it is read; call it from the event loop.

        Raises:
            RequestError: there is none, with how long to wait; or the server stops.
        """
        if self._stopped.is_set():
            raise _stopping()
        if self._taken >= self._most:
            wait = min(max(ceil(self._seconds * self._taken / 2), 1), MOST_WAIT)
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._taken} requests are being answered, which is all that may wait",
                f"send it again in {wait} s",
                {"Retry-After": str(wait)},
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def do(self, function: Callable[[], T], gone: Callable[[], Awaitable[object]]) -> T:
        """Call a function in the thread of predictions, after those that wait already.

        Args:
            function: what to do.
            gone: returns once the client has closed the connection; what was not begun by then is left out.

        Raises:
            RequestError: the server stops, or the client is gone, even if only before the end.
        """

        def timed() -> T:
            if self._stopped.is_set():
                raise _stopping()
            start = time.perf_counter()
            result = function()
            self._seconds += (time.perf_counter() - start - self._seconds) / 4
            return result

        begun = self._thread.submit(timed)
        left = asyncio.ensure_future(gone())
        try:
            result = asyncio.wrap_future(begun)
            waiting: set[asyncio.Future[Any]] = {result, left}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not result.done() and begun.cancel():
                raise _closed()
            if result.cancelled():
                raise _stopping()
            found = await result
            if left.done():
                raise _closed()
            return found
        finally:
            left.cancel()

    def stop(self) -> None:
        """Refuse what is not begun; it may be called from any thread, and from a handler of a signal."""
        self._stopped.set()

    def close(self) -> None:
        """Wait for what is being predicted, and end."""
        self.stop()
        self._thread.shutdown(wait=True, cancel_futures=True)


def _stopping() -> RequestError:
    wait = {"Retry-After": str(MOST_WAIT)}
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops", "send it again when it is back", wait)


def _closed() -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, "the client has closed the connection")
