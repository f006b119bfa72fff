"""Where a body ends: by its length, by its chunks, or by the end of the connection.

Each decoder is fed bytes as they come and hands back the body's bytes with whatever follows it.
Any split of the stream yields the same body.
"""

import re
from typing import Final, NamedTuple

from resolver_gateway import fields

MAX_CHUNK_DIGITS: Final = 15
"""Hexadecimal digits of a chunk's size that count (zeros before them do not): below 2^60, so that
no reader's integer overflows."""

MAX_CHUNK_LINE: Final = 512
"""Octets of a chunk's size line with its extensions, which are dropped; a longer one is refused
(CVE-2023-39326: extensions as a way to send much for little)."""

MAX_EXTENSIONS: Final = 16 * 1024
"""Octets of all extensions of one body."""

MAX_TRAILERS: Final = 8 * 1024
"""Octets of all trailer lines of one body."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]++)((?:[ \t]*+;" + fields.VALUE + rb")?+)\r\n")

LAST_CHUNK: Final = b"0\r\n\r\n"


class Part(NamedTuple):
    """What feeding gave: the body's *data*, whether the body is *done*, and what came after it.

    *problem* says what is wrong with the framing; nothing after it can be trusted.
    """

    data: bytes
    done: bool
    rest: bytes = b""
    problem: str = ""


class LengthBody:
    """A body of *remaining* octets, at least one."""

    __slots__ = ("remaining",)

    trailers: tuple[fields.Line, ...] = ()

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining

    def feed(self, data: bytes) -> Part:
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return Part(data, False)
        end, self.remaining = self.remaining, 0
        return Part(data[:end], True, data[end:])


class EndlessBody:
    """A response's body that only the end of its connection ends."""

    __slots__ = ()

    trailers: tuple[fields.Line, ...] = ()

    def feed(self, data: bytes) -> Part:
        return Part(data, False)


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1): sizes strict, extensions dropped, trailers read."""

    __slots__ = ("_extensions", "_held", "_lines", "_missing", "_trailer_size", "trailers")

    def __init__(self) -> None:
        self._held = b""
        """The beginning of a line, or of a chunk's end, that has not come whole."""
        self._missing = 0
        """Octets of the chunk under way that are to come, with the CRLF that ends it."""
        self._extensions = 0
        self._trailer_size = 0
        self._lines: list[fields.Line] | None = None
        """The trailers so far; None before the last chunk."""
        self.trailers: tuple[fields.Line, ...] = ()

    def feed(self, data: bytes) -> Part:
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        position = 0
        problem = ""
        while not problem and self._lines is None:
            # 1. Within a chunk: its octets, then its CRLF.
            # 2. Between chunks: a size line, which may be the last.
            if self._missing:
                position, problem = self._data(data, position, pieces)
                if self._missing:
                    break
                continue
            found = _SIZE_LINE.match(data, position)
            if found is None:
                problem = self._hold(data, position, MAX_CHUNK_LINE)
                break
            position = found.end()
            problem = self._size(found[1], found[2], position - found.start())
        if problem:
            return Part(b"".join(pieces), False, b"", problem)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._lines is None:
            return Part(body, False)
        return self._read_trailers(body, data, position, self._lines)

    def _size(self, digits: bytes, extensions: bytes, octets: int) -> str:
        """Take a size line; the problem with it, if there is one."""
        if octets > MAX_CHUNK_LINE:
            return "a line of a chunked body is too long"
        if len(digits) > MAX_CHUNK_DIGITS and len(digits.lstrip(b"0")) > MAX_CHUNK_DIGITS:
            return "a chunk is too long"
        self._extensions += len(extensions)
        if self._extensions > MAX_EXTENSIONS:
            return "the chunks' extensions are too long"
        size = int(digits, 16)
        if size:
            self._missing = size + 2
        else:
            self._lines = []
        return ""

    def _data(self, data: bytes, position: int, pieces: list[bytes]) -> tuple[int, str]:
        """Take octets of the chunk under way; where they end, and what is wrong with its end."""
        end = position + self._missing - 2
        if len(data) < end + 2:
            piece = data[position:end]
            if piece:
                pieces.append(piece)
            self._missing -= len(piece)
            self._held = data[end:]  # a CR at most
            return len(data), "" if self._held in (b"", b"\r") else _CHUNK_TOO_LONG
        if end > position:
            pieces.append(data[position:end])
        self._missing = 0
        return end + 2, "" if data[end : end + 2] == b"\r\n" else _CHUNK_TOO_LONG

    def _hold(self, data: bytes, position: int, limit: int) -> str:
        """No line ends where one should: keep its beginning, or say what is wrong with it."""
        line = data[position : position + limit + 2]
        end = line.find(b"\r\n")
        if end >= 0:
            return "a chunk's size is not a hexadecimal number"
        if len(line) > limit:
            return "a line of a chunked body is too long"
        if fields.BROKEN.search(line):
            return "a CR or LF stands alone in a chunked body"
        self._held = line
        return ""

    def _read_trailers(
        self, body: bytes, data: bytes, position: int, lines: list[fields.Line]
    ) -> Part:
        while True:
            end = data.find(b"\r\n", position)
            if end < 0:
                problem = self._hold(data, position, MAX_TRAILERS)
                return Part(body, False, b"", problem)
            if end == position:
                self.trailers = tuple(lines)
                return Part(body, True, data[position + 2 :])
            self._trailer_size += end - position
            if len(lines) == fields.MAX_FIELDS or self._trailer_size > MAX_TRAILERS:
                return Part(body, False, b"", "the trailers are too long")
            line = fields.read_trailer(data[position:end])
            if line.kind == fields.REFUSED:
                return Part(body, False, b"", line.value.decode("latin-1"))
            lines.append(line)
            position = end + 2


_CHUNK_TOO_LONG: Final = "a chunk is longer than its size"

Body = LengthBody | ChunkedBody | EndlessBody


def chunk(data: bytes) -> bytes:
    """*data* (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body, with *trailers* as rebuilt lines."""
    return b"0\r\n" + b"".join(trailers) + b"\r\n" if trailers else LAST_CHUNK
