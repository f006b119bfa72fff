"""A response's head, read by the grammar of requests: upstreams are trusted as little."""

import re
from typing import Final

from resolver_gateway import fields
from resolver_gateway.fields import (
    CONNECTION,
    KEEP_ALIVE,
    LENGTH,
    MAX_FIELDS,
    MAX_REMEMBERED_LINE,
    REFUSED,
    RESPONSE_KINDS,
    TRANSFER,
    UPGRADE,
    LineReader,
)
from resolver_gateway.remembered import Remembered
from resolver_gateway.request import Refusal

MAX_STARTS: Final = 256
"""Status lines kept; an upstream that varies its reason phrase is read each time after that."""

_STATUS: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: (" + fields.VALUE + rb"))?")


class ResponseHead:
    """A response as understood; *line* is its status line, rebuilt as ours.

    Shared by all responses whose heads are the same, so never changed.
    """

    length: int | None = None
    length_line = b""
    """Its Content-Length, rebuilt; empty when it has none."""
    chunked = False
    idle_seconds: float | None = None
    """How long the upstream keeps an idle connection, where it says so (`Keep-Alive: timeout`)."""
    upgrade = b""
    block = b""
    """The lines that go on as they are, rebuilt, in their order."""
    framed = b""
    """The whole head as most clients get it: kept connection, the upstream's own length."""

    def __init__(self, status: int, line: bytes, minor: int) -> None:
        self.status = status
        self.line = line
        self.minor = minor
        self.keep_alive = minor == 1

    def __repr__(self) -> str:
        return f"<ResponseHead {self.line!r}, {len(self.block)} octets>"


class ResponseParser:
    """Reads heads of responses; one for all connections."""

    def __init__(self) -> None:
        self._reader = LineReader(RESPONSE_KINDS, request=False)
        self._starts: dict[bytes, tuple[int, bytes, int]] = {}
        self.remembered: Remembered[ResponseHead] = Remembered()

    def __repr__(self) -> str:
        return f"<ResponseParser {self.remembered!r}>"

    def parse(self, head: bytes) -> ResponseHead | Refusal:
        """The response of *head*, its last empty line included.  Total."""
        known = self.remembered.get(head)
        if known is not None:
            return known
        found = self._read(head[:-4].split(b"\r\n"))
        if type(found) is ResponseHead:
            length = found.length_line if found.status != 204 else b""
            found.framed = b"%b%b%b\r\n" % (found.line, found.block, length)
            self.remembered.keep(head, found)
        return found

    def _read(self, lines: list[bytes]) -> ResponseHead | Refusal:
        start = self._starts.get(lines[0]) or self._start(lines[0])
        if start is None:
            return _malformed("its first line is no status line of HTTP/1")
        if len(lines) > MAX_FIELDS + 1:
            return _malformed(f"it has more than {MAX_FIELDS} fields")
        response = ResponseHead(*start)
        plain: list[bytes] = []
        named: list[bytes] = []
        transfer: bytes | None = None
        remembered = self._reader.remembered
        for line in lines[1:]:
            kind, _, value, rebuilt = remembered.get(line) or self._reader.read(line)
            if not kind:
                plain.append(rebuilt)
            elif kind == LENGTH:
                if response.length is not None:
                    return _malformed("Content-Length is given twice")
                response.length = fields.length_of(value)
                if response.length is None:
                    return _malformed("Content-Length is not a number")
                response.length_line = b"Content-Length: %d\r\n" % response.length
            elif kind == CONNECTION:
                named += fields.words(value)
            elif kind == TRANSFER:
                if transfer is not None:
                    return _malformed("Transfer-Encoding is given twice")
                transfer = value.lower()
            elif kind == UPGRADE:
                response.upgrade = value
            elif kind == KEEP_ALIVE:
                response.idle_seconds = _keep_alive_timeout(value)
            elif kind == REFUSED:
                return _malformed(value.decode("latin-1"))
        _connection(response, plain, named)
        response.block = b"".join(plain)
        return (None if transfer is None else _body(response, transfer)) or response

    def _start(self, line: bytes) -> tuple[int, bytes, int] | None:
        match = _STATUS.fullmatch(line)
        if match is None:
            return None
        minor, status, reason = match.groups()
        rebuilt = b"HTTP/1.1 %b %b\r\n" % (status, (reason or b"").strip(b" \t"))
        found = int(status), rebuilt, 0 if minor == b"0" else 1
        if len(line) <= MAX_REMEMBERED_LINE and len(self._starts) < MAX_STARTS:
            self._starts[line] = found
        return found


def _malformed(detail: str) -> Refusal:
    return Refusal(502, "upstream-protocol", f"the upstream's answer is not HTTP: {detail}")


def _connection(response: ResponseHead, plain: list[bytes], named: list[bytes]) -> None:
    """What `Connection` says of this hop; an upstream may have its own fields removed."""
    if b"upgrade" not in named:
        response.upgrade = b""
    if not named:
        return
    if b"keep-alive" in named:
        response.keep_alive = True
    if b"close" in named:
        response.keep_alive = False
    plain[:] = fields.without_named(plain, named)


def _body(response: ResponseHead, transfer: bytes) -> Refusal | None:
    if response.length is not None:
        return _malformed("Content-Length and Transfer-Encoding are given together")
    if response.minor == 0 or transfer != b"chunked":
        return _malformed("its Transfer-Encoding is not chunked, or it is HTTP/1.0")
    response.chunked = True
    return None


def _keep_alive_timeout(value: bytes) -> float | None:
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit() and len(number) < 7:
            return float(number)
    return None
