"""The bytes of an image file, unpacked where they are compressed, and read to their end, so that checksums count."""

import io
import os
import zlib
from pathlib import Path
from typing import Any

GZIP = b"\x1f\x8b"  # first bytes of a member
EITHER = 47  # windowBits of zlib that takes gzip and zlib streams, and checks the sum of both
MOST_RATIO = 1032  # deflate makes no more bytes of one
PIECE = 1 << 17  # bytes read at a time
MOST_SURPLUS = 1 << 20  # bytes after the last voxel that are taken for padding


class Unpacked(io.RawIOBase):
    """What a gzip or zlib stream holds. Seeking back starts it again, so that reading in order costs least.

    As fast as `gzip.GzipFile`, which takes no zlib streams, and no garbage after the last member, as gzip itself does.

    Args:
        file: the compressed file, whose first byte of the stream is next.

    Attributes:
        most: bytes that it can hold at most.
    """

    def __init__(self, file: "Plain") -> None:
        self._file = file
        self._start = file.tell()
        self.most = (file.most - self._start) * MOST_RATIO
        self._restart()

    def _restart(self) -> None:
        self._file.seek(self._start)
        self._inflate = zlib.decompressobj(EITHER)
        self._place, self._ended = 0, False

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Number of the next unpacked byte."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an unpacked byte; past the end there are none.

        Raises:
            OSError, EOFError: see `read`.
        """
        if whence == os.SEEK_END:
            raise io.UnsupportedOperation("the end of a compressed stream is not known before it is read")
        wanted = offset + (self._place if whence == os.SEEK_CUR else 0)
        if wanted < self._place:
            self._restart()
        while self._place < wanted and self._next(min(wanted - self._place, PIECE)):
            pass
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Unpack the next bytes: as many as are wanted, fewer at the end alone.

        Raises:
            OSError: the stream is damaged.
            EOFError: the file ends within it.
        """
        pieces = []
        left = size if size >= 0 else self.most
        while left > 0:
            piece = self._next(left)
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes; see `read`."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and (piece := self._next(len(view) - filled)):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def finish(self, last: int) -> None:
        """Unpack the rest, with its checksum.

        Args:
            last: bytes that must be there; some more are taken for padding.

        Raises:
            OSError: the stream is damaged, or goes on for long after them.
            EOFError: it ends before them.
        """
        self.seek(max(last, self._place))
        if self._place < last:
            raise EOFError("its data end before its last voxel")
        while self._next(PIECE):
            if self._place > last + MOST_SURPLUS:
                raise OSError("its data go on for long after its last voxel")

    def _next(self, most: int) -> bytes:
        """Some of the next bytes, `most` at most; none at the end."""
        try:
            while not self._ended:
                if self._inflate.eof:
                    self._next_member()
                    continue
                packed = self._inflate.unconsumed_tail or self._file.read(PIECE)
                piece = self._inflate.decompress(packed, most)
                if piece:
                    self._place += len(piece)
                    return piece
                if not packed and not self._inflate.eof:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
        except zlib.error as error:
            raise OSError(f"its compressed data are damaged: {str(error).rpartition(': ')[2]}") from None
        return b""

    def _next_member(self) -> None:
        """Go on with the next member of a gzip file; what follows the last one is none of it, as for gzip itself."""
        rest = self._inflate.unused_data
        rest += self._file.read(len(GZIP)) if len(rest) < len(GZIP) else b""
        if not rest.startswith(GZIP):
            self._ended = True
            return
        self._file.seek(-len(rest), os.SEEK_CUR)
        self._inflate = zlib.decompressobj(EITHER)


class Plain(io.FileIO):
    """A file that is not compressed, as `Unpacked`: `most` is its size."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.most = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as are wanted, fewer at the end alone: a system call gives 2 GiB at most."""
        if size is None or size < 0:
            return self.readall()
        pieces = []
        while size > 0 and (piece := super().read(size)):
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self, last: int) -> None:
        """Nothing: there is no checksum."""


class Held(io.BytesIO):
    """Bytes in memory, as `Unpacked`: what was read of several files, each to its end."""

    @property
    def most(self) -> int:
        """Their number."""
        return self.getbuffer().nbytes

    def finish(self, last: int) -> None:
        """Nothing: it was done before."""


Stream = Unpacked | Plain | Held


def open_stream(path: Path) -> Unpacked | Plain:
    """Open a file by its first bytes, whatever its name says.

    Raises:
        OSError: it cannot be opened.
    """
    plain = Plain(path)
    packed = plain.read(len(GZIP)) == GZIP
    plain.seek(0)
    return Unpacked(plain) if packed else plain
