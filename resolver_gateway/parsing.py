"""A head's bytes, read by one strict grammar: a request, a response, or why it is refused.

The grammar is RFC 9112's without what it only tolerates: no bare CR or LF, no folded lines, no
space before a colon, no second opinion about where a body ends.  What comes out is what
`headers.py` builds the next head from; the bytes themselves are never passed on.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

MAX_HEAD: Final = 32 * 1024
"""Octets of a head, both directions: four times what nginx takes, half of Envoy's 60 KiB."""

MAX_FIELDS: Final = 100
"""Fields of a head, both directions; HAProxy's default is 101."""

MAX_TARGET: Final = 8 * 1024
"""Octets of a request's target: RFC 9110, section 4.1 asks for 8000 at least."""

MAX_LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length: less than 2^63, so that no next hop's integer overflows."""

MAX_REMEMBERED: Final = 2048
"""Lines kept with their meaning (clients and services repeat theirs); all are forgotten at once
when there are more, so that a stranger who varies every line costs only the memory of these."""

MAX_REMEMBERED_LINE: Final = 256
"""Longer lines are read anew each time: they are cookies and tokens, and they differ."""

# What a line means to us; PLAIN is 0 so that the loops test it first and cheapest.
PLAIN, HOST, LENGTH, TRANSFER, CONNECTION, UPGRADE, EXPECT, TE, FORWARDING, VIA, REQUEST_ID = range(
    11
)
DROPPED, UNDERSCORE, MAX_FORWARDS, KEEP_ALIVE, REFUSED = range(11, 16)

_KINDS: Final = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"te": TE,
    b"forwarded": FORWARDING,
    b"x-real-ip": FORWARDING,
    b"x-client-ip": FORWARDING,
    b"x-cluster-client-ip": FORWARDING,
    b"true-client-ip": FORWARDING,
    b"via": VIA,
    b"x-request-id": REQUEST_ID,
    b"max-forwards": MAX_FORWARDS,
    # Hop by hop (RFC 9110, section 7.6.1); credentials for a proxy end at this one.
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": DROPPED,
    b"proxy-authorization": DROPPED,
    b"http2-settings": DROPPED,
    b"trailer": DROPPED,
}

_RESPONSE_KINDS: Final = {
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": DROPPED,
    b"x-callboard-error": DROPPED,
    b"trailer": DROPPED,
}

_SECRET: Final = frozenset({b"authorization", b"cookie", b"set-cookie", b"x-api-key"})
"""Never remembered, so that no core dump of an idle gateway holds them."""

_NOT_NOMINATED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"via", b"x-request-id"}
)
"""Fields that `Connection` may not name, beside the forwarding ones: having them removed in
between is how a client would strip what the upstream trusts (CVE-2024-45410 in Traefik)."""

_TWINS: Final = frozenset(_KINDS) | {b"authorization", b"cookie", b"content-type"}
"""CGI, WSGI and their like read `X_Forwarded_For` as `X-Forwarded-For`; such names are dropped."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_LINE: Final = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*+)")
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]++) HTTP/1\.([0-9])")
_STATUS: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_OTHER_VERSION: Final = re.compile(rb"[^ ]+ [^ ]+ HTTP/[0-9]+(?:\.[0-9]+)?")
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9._~%!$&'()*+;=-]++)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_TOKENS: Final = re.compile(_TOKEN)
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
BROKEN: Final = re.compile(rb"\r[^\n]|[^\r]\n|\A\n|\x00")
"""In a head that is not complete yet: bytes that no continuation could make right."""


class Refusal(NamedTuple):
    """Why a head is not taken: what to answer, its cause in one word, and what is wrong."""

    status: int
    cause: str
    detail: str


class Line(NamedTuple):
    """One field as read: what it means, its name in lower case, its value, its line rebuilt."""

    kind: int
    name: bytes
    value: bytes
    rebuilt: bytes


class RequestHead:
    """A request as understood; *fields* are the lines that go on, rebuilt, in their order.

    What most requests do not have stands as a default of the class: it costs them nothing.
    """

    host = b""
    length: int | None = None
    chunked = False
    upgrade = b""
    expects_continue = False
    takes_trailers = False
    forwarding: Sequence[Line] = ()
    via: Sequence[bytes] = ()
    request_id = b""
    max_forwards: int | None = None
    has_more = False
    """Whether any of the above but *host* was given."""

    def __init__(self, method: bytes, target: bytes, minor: int, fields: list[bytes]) -> None:
        self.method = method
        self.target = target
        """In origin form (`/path?query`), or `*`."""
        self.minor = minor
        """0 or 1: HTTP/1.0 or 1.1; later minor versions are 1.1 to us (RFC 9110, section 2.5)."""
        self.fields = fields
        self.keep_alive = minor == 1

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r}, {len(self.fields)} fields>"

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)


class ResponseHead:
    """A response as understood; *line* is its status line, rebuilt as ours."""

    length: int | None = None
    length_line = b""
    """Its Content-Length, rebuilt; empty when it has none."""
    chunked = False
    idle_seconds: float | None = None
    """How long the upstream keeps an idle connection, where it says so (`Keep-Alive: timeout`)."""
    upgrade = b""

    def __init__(self, status: int, line: bytes, minor: int, fields: list[bytes]) -> None:
        self.status = status
        self.line = line
        self.minor = minor
        self.fields = fields
        self.keep_alive = minor == 1

    def __repr__(self) -> str:
        return f"<ResponseHead {self.line!r}, {len(self.fields)} fields>"


class LineReader:
    """Reads field lines, and remembers what the common ones mean."""

    def __init__(self, kinds: dict[bytes, int], *, request: bool) -> None:
        self._kinds = kinds
        self._request = request
        self.remembered: dict[bytes, Line] = {}

    def __repr__(self) -> str:
        return f"<LineReader {len(self.remembered)} lines remembered>"

    def read(self, line: bytes) -> Line:
        """*line* (without its CRLF) as a field; kind REFUSED carries the reason as its value."""
        match = _LINE.fullmatch(line)
        if match is None:
            return Line(REFUSED, b"", explain_line(line).encode(), b"")
        name, value = match[1], match[2].strip(b" \t")
        lower = name.lower()
        kind = self._kind(lower)
        if kind == HOST and _HOST.fullmatch(value) is None:
            return Line(REFUSED, b"", b"Host is not a host name with an optional port", b"")
        found = Line(kind, lower, value, b"%b: %b\r\n" % (name, value))
        if len(line) <= MAX_REMEMBERED_LINE and lower not in _SECRET:
            if len(self.remembered) >= MAX_REMEMBERED:
                self.remembered.clear()
            self.remembered[line] = found
        return found

    def _kind(self, lower: bytes) -> int:
        if self._request:
            if b"_" in lower:
                return UNDERSCORE
            if lower.startswith(b"x-forwarded-"):
                return FORWARDING
        return self._kinds.get(lower, PLAIN)


def explain_line(line: bytes) -> str:
    """What is wrong with a line that is no field; named so that its sender can find it."""
    name, colon, value = line.partition(b":")
    if line[:1] in (b" ", b"\t"):
        return "a field is folded over two lines"
    if not colon:
        return "a line of the head has no colon"
    if name.rstrip(b" \t") != name:
        return "there is white space between a field's name and its colon"
    if _TOKENS.fullmatch(name) is None:
        return "a field's name has characters that no token has"
    if b"\r" in value or b"\n" in value:
        return "a CR or LF stands alone"
    return "a field's value has control characters"


class RequestParser:
    """Reads heads of requests; one for all connections."""

    def __init__(self) -> None:
        self._reader = LineReader(_KINDS, request=True)

    def parse(self, head: bytes) -> RequestHead | Refusal:
        """The request whose head is *head*, without the empty line that ended it.  Total."""
        lines = head.split(b"\r\n")
        start = _REQUEST.fullmatch(lines[0])
        if start is None:
            return _refused_start(lines[0])
        if len(lines) > MAX_FIELDS + 1:
            return Refusal(431, "too-many-fields", f"a request has at most {MAX_FIELDS} fields")
        method, target, minor = start.groups()
        if len(target) > MAX_TARGET:
            return Refusal(414, "target-too-long", f"a target has at most {MAX_TARGET} octets")
        fields: list[bytes] = []
        request = RequestHead(method, target, 0 if minor == b"0" else 1, fields)
        host = None
        special: list[Line] = []
        remembered = self._reader.remembered
        for line in lines[1:]:
            found = remembered.get(line) or self._reader.read(line)
            kind = found[0]
            if not kind:
                fields.append(found[3])
            elif kind == 1 and host is None:  # HOST; a second one is refused below
                request.host = host = found[2]
            else:
                special.append(found)
        if special and (refusal := _apply(request, special)) is not None:
            return refusal
        if target[0] != _SLASH or method == b"CONNECT":
            return _in_origin_form(request)
        if host is None and request.minor:
            return _bad("Host is missing")
        return request


_SLASH: Final = ord("/")


def _refused_start(line: bytes) -> Refusal:
    if len(line) > MAX_TARGET and b" " not in line[:MAX_TARGET].partition(b" ")[2]:
        return Refusal(414, "target-too-long", f"a target has at most {MAX_TARGET} octets")
    if _OTHER_VERSION.fullmatch(line):
        return Refusal(505, "version-not-supported", "HTTP/1.1 and HTTP/1.0 are spoken here")
    if b"#" in line:
        return _bad("the target has a fragment, which is never sent")
    return _bad("the request line is not METHOD TARGET HTTP/1.1, with one space between each")


def _bad(detail: str) -> Refusal:
    return Refusal(400, "bad-request", detail)


def _apply(request: RequestHead, special: list[Line]) -> Refusal | None:
    """Let the lines that mean something to us do so; a Refusal when they contradict."""
    request.has_more = True
    nominated: set[bytes] = set()
    transfer: bytes | None = None
    upgrade = b""
    for kind, name, value, rebuilt in special:
        if kind == CONNECTION:
            nominated.update(t.strip(b" \t").lower() for t in value.split(b","))
        elif kind == LENGTH:
            if request.length is not None:
                return _bad("Content-Length is given twice")
            if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
                return _bad("Content-Length is not a number")
            request.length = int(value)
        elif kind == TRANSFER:
            if transfer is not None:
                return _bad("Transfer-Encoding is given twice")
            transfer = value.lower()
        elif kind == FORWARDING:
            request.forwarding = [*request.forwarding, Line(kind, name, value, rebuilt)]
        elif kind == REQUEST_ID:
            request.request_id = value if _REQUEST_ID.fullmatch(value) else b""
        elif kind == UPGRADE:
            upgrade = value
        elif kind == TE:
            request.takes_trailers = request.takes_trailers or b"trailers" in value.lower()
        elif kind == EXPECT:
            if value.lower() != b"100-continue":
                return Refusal(417, "expectation-failed", "only 100-continue can be expected")
            request.expects_continue = request.minor == 1
        elif kind == VIA:
            request.via = [*request.via, value]
        elif kind == MAX_FORWARDS:
            if not value.isdigit() or len(value) > 9:
                return _bad("Max-Forwards is not a number")
            request.max_forwards = int(value)
        elif kind == UNDERSCORE:
            _keep_if_alone(request, Line(kind, name, value, rebuilt), special)
        elif kind == HOST:
            return _bad("Host is given twice")
        elif kind == REFUSED:
            return _bad(value.decode("latin-1"))
    return _checked_body(request, transfer) or _connection(request, nominated, upgrade)


def _keep_if_alone(request: RequestHead, line: Line, special: list[Line]) -> None:
    """A name with `_` goes on unless something would take it for its `-` twin."""
    twin = line.name.replace(b"_", b"-")
    if twin in _TWINS or twin.startswith(b"x-forwarded-"):
        return
    present = {rebuilt.partition(b":")[0].lower() for rebuilt in request.fields}
    if twin not in present and all(other.name != twin for other in special):
        request.fields.append(line.rebuilt)


def _checked_body(request: RequestHead, transfer: bytes | None) -> Refusal | None:
    """Where the body ends, if every reader must agree about it (RFC 9112, section 6.3)."""
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
    request.chunked = True
    return None


def _connection(request: RequestHead, nominated: set[bytes], upgrade: bytes) -> Refusal | None:
    """What `Connection` says of this hop, and the removal of the fields it names."""
    if not nominated:
        request.takes_trailers = False  # TE counts only when Connection names it
        return None
    for name in nominated:
        if name in _NOT_NOMINATED or _KINDS.get(name) == FORWARDING:
            return _bad(f"Connection names {name.decode('latin-1')}")
        if name.startswith(b"x-forwarded-"):
            return _bad("Connection names a forwarding field")
    if b"keep-alive" in nominated:
        request.keep_alive = True
    if b"close" in nominated:
        request.keep_alive = False
    if b"upgrade" in nominated and request.minor == 1 and not request.has_body:
        request.upgrade = upgrade if upgrade.lower() not in (b"h2c", b"h2") else b""
    if b"te" not in nominated:
        request.takes_trailers = False
    removed = nominated - {b"close", b"keep-alive", b"upgrade", b"te", b""}
    if removed:
        request.fields[:] = without(request.fields, removed)
    return None


def without(fields: list[bytes], names: set[bytes]) -> list[bytes]:
    """*fields* (rebuilt lines) but those called one of *names*."""
    return [line for line in fields if line.partition(b":")[0].lower() not in names]


def _in_origin_form(request: RequestHead) -> Refusal | RequestHead:
    """*request* with its target in origin form; a Refusal when it has none (RFC 9112, 3.2)."""
    target = request.target
    if request.method == b"CONNECT":
        return Refusal(405, "method-not-allowed", "this is a gateway, not a tunnel: no CONNECT")
    if target == b"*" and request.method == b"OPTIONS":
        return request if request.host or not request.minor else _bad("Host is missing")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or _HOST.fullmatch(absolute[1]) is None:
        return _bad("the target is neither a path nor a whole URL")
    if not request.host:
        if request.minor:
            return _bad("Host is missing")
        request.host = absolute[1]
    if absolute[1].lower() != request.host.lower():
        return _bad("the target names another host than Host")
    request.target = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
    return request


class ResponseParser:
    """Reads heads of responses; upstreams are trusted no more than clients."""

    def __init__(self) -> None:
        self._reader = LineReader(_RESPONSE_KINDS, request=False)
        self._starts: dict[bytes, tuple[int, bytes, int]] = {}

    def parse(self, head: bytes) -> ResponseHead | Refusal:
        """The response whose head is *head*, without the empty line that ended it.  Total."""
        lines = head.split(b"\r\n")
        start = self._starts.get(lines[0]) or self._start(lines[0])
        if start is None:
            return _malformed("its first line is no status line of HTTP/1")
        if len(lines) > MAX_FIELDS + 1:
            return _malformed(f"it has more than {MAX_FIELDS} fields")
        fields: list[bytes] = []
        response = ResponseHead(*start, fields)
        remembered = self._reader.remembered
        connection = transfer = b""
        for line in lines[1:]:
            found = remembered.get(line) or self._reader.read(line)
            kind, _, value, rebuilt = found
            if not kind:
                fields.append(rebuilt)
            elif kind == LENGTH:
                if response.length is not None:
                    return _malformed("Content-Length is given twice")
                if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
                    return _malformed("Content-Length is not a number")
                response.length = int(value)
                response.length_line = rebuilt
            elif kind == CONNECTION:
                connection += b"," + value.lower()
            elif kind == TRANSFER:
                transfer += b"," + value.lower()
            elif kind == UPGRADE:
                response.upgrade = value
            elif kind == KEEP_ALIVE:
                response.idle_seconds = _keep_alive_timeout(value)
            elif kind == REFUSED:
                return _malformed(value.decode("latin-1"))
        if connection:
            _response_connection(response, connection)
        return (_response_body(response, transfer) if transfer else None) or response

    def _start(self, line: bytes) -> tuple[int, bytes, int] | None:
        match = _STATUS.fullmatch(line)
        if match is None:
            return None
        minor, status, reason = match.groups()
        rebuilt = b"HTTP/1.1 %b %b\r\n" % (status, (reason or b"").strip(b" \t"))
        found = int(status), rebuilt, 0 if minor == b"0" else 1
        if len(line) <= MAX_REMEMBERED_LINE and len(self._starts) < MAX_REMEMBERED:
            self._starts[line] = found
        return found


def _malformed(detail: str) -> Refusal:
    return Refusal(502, "upstream-protocol", f"the upstream's answer is not HTTP: {detail}")


def _response_connection(response: ResponseHead, value: bytes) -> None:
    named = {token.strip(b" \t") for token in value.split(b",")}
    if b"keep-alive" in named:
        response.keep_alive = True
    if b"close" in named:
        response.keep_alive = False
    if b"upgrade" not in named:
        response.upgrade = b""
    # An upstream may have its own fields removed, but not our framing of them.
    if removed := named - {b"close", b"keep-alive", b"upgrade", b""}:
        response.fields[:] = without(response.fields, removed)


def _response_body(response: ResponseHead, transfer: bytes) -> Refusal | None:
    if response.length is not None:
        return _malformed("Content-Length and Transfer-Encoding are given together")
    if response.minor == 0 or transfer != b",chunked":
        return _malformed("its Transfer-Encoding is not chunked, or it is HTTP/1.0")
    response.chunked = True
    return None


def _keep_alive_timeout(value: bytes) -> float | None:
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit() and len(number) < 7:
            return float(number)
    return None


def read_fields(lines: list[bytes]) -> list[Line] | None:
    """Trailer lines as fields; None when one of them is none."""
    reader = LineReader(_KINDS, request=True)
    found = [reader.read(line) for line in lines]
    return None if any(line.kind == REFUSED for line in found) else found
