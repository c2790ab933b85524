"""Requests whose bodies come piece by piece, as from a network."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp


def ask(
    app: ASGIApp, headers: Sequence[tuple[str, str]], receive: Callable[[], Awaitable[dict]], path: str = "/predict"
) -> tuple[int, bytes]:
    """Status and body of the answer to a POST whose body comes from `receive`, as a network gives it."""
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in headers)],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "http_version": "1.1",
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
