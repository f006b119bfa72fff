"""Where a body ends: by its length, by its chunks, or by the end of the connection.

Each decoder is fed bytes as they come and hands back the body's bytes with whatever follows it.
Any split of the stream yields the same body.
"""

import re
from typing import Final, NamedTuple

from resolver_gateway import parsing

MAX_CHUNK_DIGITS: Final = 15
"""Hexadecimal digits of a chunk's size: below 2^60, so no reader's integer overflows."""

MAX_CHUNK_LINE: Final = 512
"""Octets of a chunk's size line with its extensions, which are dropped; a longer one is refused
(CVE-2023-39326: extensions as a way to send much for little)."""

MAX_EXTENSIONS: Final = 16 * 1024
"""Octets of all extensions of one body."""

MAX_TRAILERS: Final = 8 * 1024
"""Octets of all trailer lines of one body."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")


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

    trailers: tuple[parsing.Line, ...] = ()

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

    trailers: tuple[parsing.Line, ...] = ()

    def feed(self, data: bytes) -> Part:
        return Part(data, False)


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1): sizes strict, extensions dropped, trailers read."""

    __slots__ = (
        "_extensions",
        "_held",
        "_lines",
        "_remaining",
        "_state",
        "_trailer_size",
        "trailers",
    )

    def __init__(self) -> None:
        self._state = self._size
        self._held = b""
        self._remaining = 0
        self._extensions = 0
        self._trailer_size = 0
        self._lines: list[bytes] = []
        self.trailers: tuple[parsing.Line, ...] = ()

    def feed(self, data: bytes) -> Part:
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        position = 0
        while True:
            step = self._state(data, position, pieces)
            if isinstance(step, str):
                return Part(b"".join(pieces), False, b"", step)
            if step < 0:
                return Part(pieces[0] if len(pieces) == 1 else b"".join(pieces), False)
            position = step
            if self._state == self._done:
                return Part(b"".join(pieces), True, data[position:])

    # Each state reads from *position* and returns where the next begins, -1 for more data, or
    # a problem.

    def _line(self, data: bytes, position: int, limit: int) -> bytes | str | None:
        """The line at *position*; None when it has not ended yet, then it is held."""
        end = data.find(b"\r\n", position)
        if end < 0:
            held = data[position:]
            if len(held) > limit:
                return "a line of a chunked body is too long"
            if parsing.BROKEN.search(held):
                return "a CR or LF stands alone in a chunked body"
            self._held = held
            return None
        if end - position > limit:
            return "a line of a chunked body is too long"
        return data[position:end]

    def _size(self, data: bytes, position: int, pieces: list[bytes]) -> int | str:
        line = self._line(data, position, MAX_CHUNK_LINE)
        if not isinstance(line, bytes):
            return line or -1
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            return "a chunk's size is not a hexadecimal number"
        self._extensions += len(match[2])
        if self._extensions > MAX_EXTENSIONS:
            return "the chunks' extensions are too long"
        self._remaining = int(match[1], 16)
        self._state = self._data if self._remaining else self._trailer
        return position + len(line) + 2

    def _data(self, data: bytes, position: int, pieces: list[bytes]) -> int | str:
        piece = data[position : position + self._remaining]
        if piece:
            pieces.append(piece)
            self._remaining -= len(piece)
        if self._remaining:
            return -1
        self._state = self._end_of_chunk
        return position + len(piece)

    def _end_of_chunk(self, data: bytes, position: int, pieces: list[bytes]) -> int | str:
        end = data[position : position + 2]
        if end == b"\r\n":
            self._state = self._size
            return position + 2
        if not b"\r\n".startswith(end):
            return "a chunk is longer than its size"
        self._held = end
        return -1

    def _trailer(self, data: bytes, position: int, pieces: list[bytes]) -> int | str:
        line = self._line(data, position, MAX_TRAILERS)
        if not isinstance(line, bytes):
            return line or -1
        if line:
            self._lines.append(line)
            self._trailer_size += len(line)
            if len(self._lines) > parsing.MAX_FIELDS or self._trailer_size > MAX_TRAILERS:
                return "the trailers are too long"
            return position + len(line) + 2
        if self._lines:
            trailers = parsing.read_fields(self._lines)
            if trailers is None:
                return "a trailer is no field"
            self.trailers = tuple(trailers)
        self._state = self._done
        return position + 2

    def _done(self, data: bytes, position: int, pieces: list[bytes]) -> int | str:
        raise AssertionError("a body that is done is not fed")


Body = LengthBody | ChunkedBody | EndlessBody


def chunk(data: bytes) -> bytes:
    """*data* (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body, with *trailers* as rebuilt lines."""
    return b"0\r\n" + b"".join(trailers) + b"\r\n" if trailers else LAST_CHUNK
