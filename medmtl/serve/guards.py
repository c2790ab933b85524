"""Guards around the application: who may ask, what browsers may do with an answer, and how a refusal is delivered."""

import asyncio
import ipaddress
import logging
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmtl.serve.answers import error

logger = logging.getLogger(__name__)

# Bytes and seconds of a refused request that are read after its answer: a client that first sends and then reads would
# not see the answer on a connection that is closed meanwhile. A larger request is cut off.
LINGER_BYTES, LINGER_SECONDS = 1 << 25, 3.0
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets requests through that a browser was not tricked into, and answers what goes wrong in one line.

    A page of another site may lead a browser here: by a form or script of its own (its `Origin` is another), or by
    giving its own name the address of this machine (the `Host` is that name).

    Args:
        app: the application.
        hosts: names by which the server is reached; addresses and `localhost` always are among them.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(Headers(scope=scope), receive, send)
        refusal = self._refusal(exchange.headers)
        try:
            if refusal is not None:
                await error(HTTPStatus.FORBIDDEN, refusal)(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except Exception as failure:  # which `failed` has answered, but for one in the middle of an answer
            logger.error("%s %s", scope["method"], scope["path"], exc_info=failure)
            if not exchange.answered:
                raise

    def _refusal(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _parts(f"//{host}")[0]
        if not (name in self._hosts or _is_address(name)):
            return f"the server is not reached by the name {name[:80]!r}: use its address, or --allow-host"
        if origin is not None and _parts(origin)[1] != host.lower():
            return "a page of another site may not ask this server: open its own page"
        return None


def _parts(address: str) -> tuple[str, str]:
    """Name of a machine, and the same with a port; both empty where it is no address."""
    try:
        found = urlsplit(address)
        return found.hostname or "", found.netloc.lower()
    except ValueError:
        return "", ""


class _Exchange:
    """A request and its answer.

    Attributes:
        answered: whether all of the answer was sent.
    """

    def __init__(self, headers: Headers, receive: Receive, send: Send) -> None:
        self.headers, self._receive, self._send = headers, receive, send
        self.answered = False
        self._read = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    async def receive(self) -> Message:
        message = await self._receive()
        self._read = self._read or message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if not self._read:
                headers["Connection"] = "close"
        elif not message.get("more_body", False):
            self.answered = True
            if not self._read:
                await self._send({**message, "more_body": True})
                await self._linger()
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Read some of what is still sent, and drop it."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._read and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
