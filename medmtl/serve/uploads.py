"""Uploads: a form of a request, written to disk as it arrives, within bounds of size and time.

No name from outside becomes that of a file: files are numbered, and what the client calls them is a label.
"""

import asyncio
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from medmtl.errors import on_one_line
from medmtl.serve.answers import RequestError
from medmtl.serve.options import MEGABYTE, Options

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_PARTS = 16  # of a form
TEXT_BYTES = 1 << 16  # of a part that is no file
OVERHEAD = 1 << 17  # bytes of a form besides its file
LABEL = 120  # letters of a name
HOW = "send a form (multipart/form-data) with the scan as `file`"


@dataclass(frozen=True)
class Upload:
    """A file that arrived.

    Attributes:
        path: where it was written.
        label: what the client calls it, without folders and without what would break a line; only for messages.
    """

    path: Path
    label: str


@dataclass
class Form:
    """A form that arrived.

    Attributes:
        texts: name -> value of the parts that are no files.
        files: name -> file.
    """

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, Upload] = field(default_factory=dict)

    def file(self, name: str) -> Upload:
        """A file of the form.

        Raises:
            RequestError: it is not there.
        """
        if name not in self.files:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"the form holds no file named `{name}`", HOW)
        return self.files[name]


def label_of(name: str) -> str:
    """What a client calls a file, as a label: the last part of a path, on one line, not long."""
    last = on_one_line(name.replace("\\", "/").rpartition("/")[2]).strip()
    return last[-LABEL:] or "scan"


async def receive(request: Request, folder: Path, options: Options, files: Collection[str] = ("file",)) -> Form:
    """Read a form to its end.

    Args:
        request: whose body was not read yet.
        folder: of this request alone, where files are written.
        options: the most bytes and seconds.
        files: names of parts that are files; others are left out, but for texts.

    Raises:
        RequestError: it is none, too large, too slow, cut off, or malformed.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the request is no form with a file", HOW)
    most = options.upload_bytes + OVERHEAD
    promised = request.headers.get("content-length", "")
    if promised.isdigit() and int(promised) > most:
        raise _too_large(options)
    with _Parts(folder, files) as parts:
        try:
            parser = MultipartParser(parameters[b"boundary"], parts.callbacks)
            seen = 0
            async with asyncio.timeout(options.receive):
                async for piece in request.stream():
                    seen += len(piece)
                    if seen > most:
                        raise _too_large(options)
                    parser.write(piece)
        except FormParserError:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the form is malformed", HOW) from None
        except ClientDisconnect:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the request was cut off", "send it again") from None
        except TimeoutError:
            raise RequestError(
                HTTPStatus.REQUEST_TIMEOUT, f"the request did not arrive within {options.receive} s", "send less"
            ) from None
        if not parts.ended:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the form ends before its last boundary", "send it again")
        return parts.form


def _too_large(options: Options) -> RequestError:
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the request has more than {options.upload_bytes // MEGABYTE} MB",
        "crop or compress the scan, or raise --max-upload of medmtl serve",
    )


class _Parts:
    """Takes the parts of a form as they are parsed."""

    def __init__(self, folder: Path, files: Collection[str]) -> None:
        self._folder, self._files = folder, files
        self.form, self.ended = Form(), False
        self._count = 0
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name = ""
        self._text: bytearray | None = None
        self._stream: IO[bytes] | None = None
        self._open = ExitStack()
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._start,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def __enter__(self) -> "_Parts":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _begin(self) -> None:
        self._count += 1
        if self._count > MOST_PARTS:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"the form has more than {MOST_PARTS} parts", HOW)
        self._disposition = b""

    def _end_header(self) -> None:
        if bytes(self._header).strip().lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _start(self) -> None:
        _, given = parse_options_header(self._disposition)
        self._name = given.get(b"name", b"").decode("utf-8", "replace")
        self._text = self._stream = None
        if b"filename" not in given:
            self._text = bytearray()
        elif self._name in self._files:
            if self._name in self.form.files:
                raise RequestError(HTTPStatus.BAD_REQUEST, f"the form holds two files `{self._name}`", "zip a series")
            path = self._folder / f"upload-{len(self.form.files)}"
            self._stream = self._open.enter_context(path.open("xb"))
            label = label_of(given[b"filename"].decode("utf-8", "replace"))
            self.form.files[self._name] = Upload(path, label)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._stream is not None:
            self._stream.write(memoryview(data)[start:end])
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > TEXT_BYTES:
                line = f"the part `{on_one_line(self._name)[:LABEL]}` of the form is too long"
                raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line, HOW)

    def _end(self) -> None:
        if self._stream is not None:
            self._stream.close()
        elif self._text is not None:
            self.form.texts[self._name] = self._text.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.ended = True
