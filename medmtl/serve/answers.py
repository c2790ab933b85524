"""Answers that are errors: one line as JSON, as the command line would print it, and the status that fits."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from fastapi.responses import JSONResponse

from medmtl.errors import FULL, on_one_line

NONE: Mapping[str, str] = MappingProxyType({})


class RequestError(Exception):
    """A request that gets an error.

    Args:
        status: of HTTP.
        what: what is wrong.
        fix: what to do.
        headers: of the answer.
    """

    def __init__(self, status: HTTPStatus, what: str, fix: str = "", headers: Mapping[str, str] = NONE) -> None:
        self.line = on_one_line(f"{what}: {fix}" if fix else what)
        super().__init__(self.line)
        self.status, self.headers = status, dict(headers)


def error(status: int, line: str, headers: Mapping[str, str] = NONE) -> JSONResponse:
    """An error as an answer."""
    return JSONResponse({"error": line}, status, dict(headers))


def failed(failure: Exception) -> JSONResponse:
    """The answer where something failed that nobody expected."""
    if isinstance(failure, OSError) and failure.errno in FULL:
        return error(HTTPStatus.INSUFFICIENT_STORAGE, "the disk of the server is full")
    return error(HTTPStatus.INTERNAL_SERVER_ERROR, f"the server failed ({type(failure).__name__})")
