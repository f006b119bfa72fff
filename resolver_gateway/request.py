"""A request's head, read by one strict grammar: what it asks, or why it is refused.

There is no second opinion about where a body ends: what two readers could read in two ways is
refused.  The bytes of a head are never passed on; `headers.py` builds the next one.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from resolver_gateway import fields
from resolver_gateway.fields import (
    CONNECTION,
    EXPECT,
    FORWARDING,
    HOST,
    LENGTH,
    MAX_FIELDS,
    MAX_FORWARDS,
    REFUSED,
    REQUEST_ID,
    REQUEST_KINDS,
    TE,
    TRANSFER,
    TWINS,
    UNDERSCORE,
    UPGRADE,
    VIA,
    Line,
    LineReader,
)
from resolver_gateway.remembered import Remembered

if TYPE_CHECKING:
    from resolver_gateway.routing import Named, Router

MAX_TARGET: Final = 8 * 1024
"""Octets of a request's target: RFC 9110, section 4.1 asks for 8000 at least."""

_NOT_NOMINATED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"via"}
    | {b"authorization", b"proxy-authorization"}
)
"""Fields that `Connection` may not name, beside the forwarding ones: having them removed in
between is how a client would strip what the upstream trusts (CVE-2024-45410 in Traefik)."""

_NOT_UPGRADED_TO: Final = frozenset({b"h2c", b"h2"})
"""HTTP/2 through an upgrade is a way around every rule here, since nobody reads it any more."""

_REQUEST: Final = re.compile(
    rb"(" + fields.TOKEN + rb") ([\x21\x22\x24-\x7e]++) HTTP/1\.([0-9])",
)
_OTHER_VERSION: Final = re.compile(rb"[^ ]+ [^ ]+ HTTP/[0-9]+(?:\.[0-9]+)?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_PROTOCOL: Final = re.compile(fields.TOKEN + rb"(?:/" + fields.TOKEN + rb")?")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_SLASH: Final = ord("/")


class Refusal(NamedTuple):
    """Why a head is not taken: what to answer, its cause in one word, and what is wrong."""

    status: int
    cause: str
    detail: str


class RequestHead:
    """A request as understood; shared by all requests whose heads are the same, so never changed.

    What most requests do not have stands as a default of the class: it costs them nothing.
    """

    host = b""
    length: int | None = None
    chunked = False
    has_body = False
    upgrade = b""
    """The protocols it asks to switch to, h2c left out; empty when there are none."""
    expects_continue = False
    takes_trailers = False
    forwarding: Sequence[Line] = ()
    via: Sequence[bytes] = ()
    request_id = b""
    max_forwards: int | None = None
    block = b""
    """The lines that go on as they are, rebuilt, in their order; with what frames the body."""
    route: "tuple[Router, Named, bytes] | None" = None
    """What a router knew of its target, noted there by whoever asked: one head, one route."""

    def __init__(self, method: bytes, target: bytes, minor: int) -> None:
        self.method = method
        self.target = target
        """In origin form (`/path?query`), or `*`."""
        self.minor = minor
        """0 or 1: HTTP/1.0 or 1.1; later minor versions are 1.1 to us (RFC 9110, section 2.5)."""
        self.keep_alive = minor == 1

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r}, {len(self.block)} octets>"

    def value(self, name: bytes) -> bytes | None:
        """The value of the first of the lines that go on called *name* (lower case), if any."""
        for line in self.block.split(b"\r\n"):
            found, _, value = line.partition(b": ")
            if found.lower() == name:
                return value
        return None


class RequestParser:
    """Reads heads of requests; one for all connections."""

    def __init__(self) -> None:
        self._reader = LineReader(REQUEST_KINDS, request=True)
        self.remembered: Remembered[RequestHead] = Remembered()

    def __repr__(self) -> str:
        return f"<RequestParser {self.remembered!r}>"

    def parse(self, head: bytes) -> RequestHead | Refusal:
        """The request of *head*, its last empty line included.  Total."""
        known = self.remembered.get(head)
        if known is not None:
            return known
        found = self._read(head[:-4].split(b"\r\n"))
        if type(found) is RequestHead:
            self.remembered.keep(head, found)
        return found

    def _read(self, lines: list[bytes]) -> RequestHead | Refusal:
        start = _REQUEST.fullmatch(lines[0])
        if start is None:
            return refused_start(lines[0])
        if len(lines) > MAX_FIELDS + 1:
            return Refusal(431, "too-many-fields", f"a request has at most {MAX_FIELDS} fields")
        method, target, minor = start.groups()
        if len(target) > MAX_TARGET:
            return target_too_long()
        request = RequestHead(method, target, 0 if minor == b"0" else 1)
        plain: list[bytes] = []
        special: list[Line] = []
        host = None
        remembered = self._reader.remembered
        for line in lines[1:]:
            found = remembered.get(line) or self._reader.read(line)
            kind = found[0]
            if not kind:
                plain.append(found[3])
            elif kind == HOST and host is None:  # a second one is refused below
                request.host = host = found[2]
            else:
                special.append(found)
        if special and (refusal := _apply(request, plain, special)) is not None:
            return refusal
        request.block = b"".join(plain)
        if target[0] != _SLASH or method == b"CONNECT":
            return _in_origin_form(request)
        if host is None and request.minor:
            return _bad("Host is missing")
        return request


def start_problem(line: bytes) -> Refusal | None:
    """Why no request begins with *line*; None when one may."""
    return None if _REQUEST.fullmatch(line) else refused_start(line)


def refused_start(line: bytes) -> Refusal:
    """Why *line*, which is no request line, is none."""
    if len(line) > MAX_TARGET and b" " not in line[:MAX_TARGET].partition(b" ")[2]:
        return target_too_long()
    if _OTHER_VERSION.fullmatch(line):
        return Refusal(505, "version-not-supported", "HTTP/1.1 and HTTP/1.0 are spoken here")
    if b"#" in line:
        return _bad("the target has a fragment, which is never sent")
    return _bad("the request line is not METHOD TARGET HTTP/1.1, with one space between each")


def target_too_long() -> Refusal:
    return Refusal(414, "target-too-long", f"a target has at most {MAX_TARGET} octets")


def _bad(detail: str) -> Refusal:
    return Refusal(400, "bad-request", detail)


def _apply(request: RequestHead, plain: list[bytes], special: list[Line]) -> Refusal | None:
    """Let the lines that mean something to us do so; a Refusal when they contradict."""
    nominated: list[bytes] = []
    transfer: bytes | None = None
    upgrade: list[bytes] = []
    for line in special:
        kind, _, value, _ = line
        if kind == CONNECTION:
            nominated += fields.words(value)
        elif kind == LENGTH:
            if request.length is not None:
                return _bad("Content-Length is given twice")
            request.length = fields.length_of(value)
            if request.length is None:
                return _bad("Content-Length is not a number")
        elif kind == TRANSFER:
            if transfer is not None:
                return _bad("Transfer-Encoding is given twice")
            transfer = value.lower()
        elif kind == FORWARDING:
            request.forwarding = [*request.forwarding, line]
        elif kind == REQUEST_ID:
            request.request_id = value if _REQUEST_ID.fullmatch(value) else b""
        elif kind == UPGRADE:
            upgrade += [protocol.strip(b" \t") for protocol in value.split(b",")]
        elif kind == TE:
            request.takes_trailers = request.takes_trailers or b"trailers" in value.lower()
        elif kind == EXPECT:
            # Others are for nobody: RFC 9110, 10.1.1 lets us refuse them, nginx serves them.
            request.expects_continue = b"100-continue" in fields.words(value)
        elif kind == VIA:
            request.via = [*request.via, value]
        elif kind == MAX_FORWARDS:
            if (refusal := _max_forwards(request, plain, line)) is not None:
                return refusal
        elif kind == UNDERSCORE:
            _keep_if_alone(plain, line, special)
        elif kind == HOST:
            return _bad("Host is given twice")
        elif kind == REFUSED:
            return _bad(value.decode("latin-1"))
    refusal = _checked_body(request, transfer)
    if refusal is None:
        refusal = _connection(request, plain, nominated, upgrade)
    if refusal is None:
        _frame(request, plain)
    return refusal


def _max_forwards(request: RequestHead, plain: list[bytes], line: Line) -> Refusal | None:
    """It counts for two methods (RFC 9110, section 7.6.2); for others it is a field like any."""
    if request.method not in (b"OPTIONS", b"TRACE"):
        plain.append(line.rebuilt)
        return None
    if not line.value.isdigit() or len(line.value) > 9 or request.max_forwards is not None:
        return _bad("Max-Forwards is not a number")
    request.max_forwards = int(line.value)
    return None


def _keep_if_alone(plain: list[bytes], line: Line, special: list[Line]) -> None:
    """A name with `_` goes on unless something would take it for its `-` twin."""
    twin = line.name.replace(b"_", b"-")
    if twin in TWINS or twin.startswith(b"x-forwarded-"):
        return
    present = {rebuilt.partition(b":")[0].lower() for rebuilt in plain}
    if twin not in present and all(other.name != twin for other in special):
        plain.append(line.rebuilt)


def _checked_body(request: RequestHead, transfer: bytes | None) -> Refusal | None:
    """Where the body ends, if every reader must agree about it (RFC 9112, section 6.3)."""
    request.has_body = bool(request.length)
    if transfer is None:
        return None
    if request.length is not None:
        return _bad("Content-Length and Transfer-Encoding are given together")
    if request.minor == 0:
        return _bad("HTTP/1.0 has no Transfer-Encoding")
    if transfer != b"chunked":
        if transfer.replace(b" ", b"").endswith(b",chunked"):
            return Refusal(501, "not-implemented", "chunked is the only transfer coding known")
        return _bad("Transfer-Encoding is not chunked")
    request.chunked = request.has_body = True
    return None


def _connection(
    request: RequestHead, plain: list[bytes], nominated: list[bytes], upgrade: list[bytes]
) -> Refusal | None:
    """What `Connection` says of this hop, and the removal of the fields it names."""
    if not nominated:
        request.takes_trailers = False  # TE counts only when Connection names it
        return None
    for name in nominated:
        if name in _NOT_NOMINATED or REQUEST_KINDS.get(name) == FORWARDING:
            return _bad(f"Connection names {name.decode('latin-1')}")
        if name.startswith(b"x-forwarded-"):
            return _bad("Connection names a forwarding field")
    if b"keep-alive" in nominated:
        request.keep_alive = True
    if b"close" in nominated:
        request.keep_alive = False
    if b"upgrade" in nominated and request.minor and not request.has_body:
        request.upgrade = b", ".join(p for p in upgrade if _may_be_upgraded_to(p))
    if b"te" not in nominated:
        request.takes_trailers = False
    if b"expect" in nominated:
        request.expects_continue = False
    if b"x-request-id" in nominated:
        request.request_id = b""
    if b"max-forwards" in nominated:
        request.max_forwards = None
    plain[:] = fields.without_named(plain, nominated)
    return None


def _may_be_upgraded_to(protocol: bytes) -> bool:
    return _PROTOCOL.fullmatch(protocol) is not None and protocol.lower() not in _NOT_UPGRADED_TO


def _frame(request: RequestHead, plain: list[bytes]) -> None:
    """The lines about this hop that the next head has, made anew."""
    if request.chunked:
        plain.append(b"Transfer-Encoding: chunked\r\n")
    elif request.length is not None:
        plain.append(b"Content-Length: %d\r\n" % request.length)
    if request.upgrade:
        plain.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % request.upgrade)
    elif request.takes_trailers:
        plain.append(b"Connection: te\r\nTE: trailers\r\n")
    # It is about a body, and HTTP/1.0 has none of it (RFC 9110, section 10.1.1).
    request.expects_continue = bool(request.expects_continue and request.has_body and request.minor)
    if request.expects_continue:
        plain.append(b"Expect: 100-continue\r\n")
    if request.max_forwards is not None:
        plain.append(b"Max-Forwards: %d\r\n" % max(0, request.max_forwards - 1))


def _in_origin_form(request: RequestHead) -> Refusal | RequestHead:
    """*request* with its target in origin form; a Refusal when it has none (RFC 9112, 3.2)."""
    target = request.target
    if request.method == b"CONNECT":
        return Refusal(405, "method-not-allowed", "this is a gateway, not a tunnel: no CONNECT")
    if target == b"*" and request.method == b"OPTIONS":
        return request if request.host or not request.minor else _bad("Host is missing")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not fields.is_host(absolute[1]):
        return _bad("the target is neither a path nor a whole URL")
    if not request.host:
        if request.minor:
            return _bad("Host is missing")
        request.host = absolute[1]
    if absolute[1].lower() != request.host.lower():
        return _bad("the target names another host than Host")
    request.target = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
    return request
