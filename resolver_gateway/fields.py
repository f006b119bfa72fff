"""One line of a head: a field by the strict grammar, what it means to us, and its line rebuilt.

The grammar is RFC 9112's without what it only tolerates: no bare CR or LF, no folded lines, no
space before a colon.  What goes on is built from what was read here, never copied.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from resolver_gateway.remembered import SECRETS

MAX_HEAD: Final = 32 * 1024
"""Octets of a head, both directions: four times what nginx takes, half of Envoy's 60 KiB."""

MAX_FIELDS: Final = 100
"""Fields of a head, both directions; HAProxy's default is 101."""

MAX_LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length: less than 2^63, so that no next hop's integer overflows."""

MAX_REMEMBERED: Final = 2048
"""Lines kept with their meaning (clients and services repeat theirs); all are forgotten at once
when there are more, so that a stranger who varies every line costs only the memory of these."""

MAX_REMEMBERED_LINE: Final = 256
"""Longer lines are read anew each time: they are cookies and tokens, and they differ."""

MAX_NAMES: Final = 1024
"""Names of fields kept with what they mean, as they are spelled; forgotten as lines are."""

# What a line means to us; PLAIN is 0 so that the loops test it first and cheapest.
PLAIN, HOST, LENGTH, TRANSFER, CONNECTION, UPGRADE, EXPECT, TE, FORWARDING, VIA, REQUEST_ID = range(
    11
)
DROPPED, UNDERSCORE, MAX_FORWARDS, KEEP_ALIVE, REFUSED = range(11, 16)

REQUEST_KINDS: Final[Mapping[bytes, int]] = {
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

RESPONSE_KINDS: Final[Mapping[bytes, int]] = {
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": DROPPED,
    b"x-callboard-error": DROPPED,
    b"trailer": DROPPED,
}

TWINS: Final = frozenset(REQUEST_KINDS) | {b"authorization", b"cookie", b"content-type"}
"""CGI, WSGI and their like read `X_Forwarded_For` as `X-Forwarded-For`; such names are dropped."""

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
"""A tab is no control character; octets past ASCII are what RFC 9110 calls obs-text."""

_LINE: Final = re.compile(rb"(" + TOKEN + rb"):(" + VALUE + rb")")
_TOKENS: Final = re.compile(TOKEN)
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9._~%!$&'()*+;=-]++)(?::[0-9]{0,5})?")

BROKEN: Final = re.compile(rb"\r[^\n]|[^\r]\n|\A\n|\x00")
"""In a head that is not complete yet: bytes that no continuation could make right."""


class Line(NamedTuple):
    """One field as read: what it means, its name in lower case, its value, its line rebuilt."""

    kind: int
    name: bytes
    value: bytes
    rebuilt: bytes


class LineReader:
    """Reads field lines, and remembers what the common ones mean."""

    def __init__(self, kinds: Mapping[bytes, int], *, request: bool) -> None:
        self._kinds = kinds
        self._request = request
        self.remembered: dict[bytes, Line] = {}
        self._names: dict[bytes, tuple[bytes, int]] = {}

    def __repr__(self) -> str:
        return f"<LineReader {len(self.remembered)} lines remembered>"

    def read(self, line: bytes) -> Line:
        """*line* (without its CRLF) as a field; kind REFUSED carries the reason as its value."""
        match = _LINE.fullmatch(line)
        if match is None:
            return _refused(explain(line))
        name, value = match.groups()
        value = value.strip(b" \t")
        lower, kind = self._names.get(name) or self._named(name)
        if kind == HOST and not is_host(value):
            return _refused("Host is not a host name with an optional port")
        found = Line(kind, lower, value, b"%b: %b\r\n" % (name, value))
        if len(line) <= MAX_REMEMBERED_LINE and lower not in SECRETS:
            if len(self.remembered) >= MAX_REMEMBERED:
                self.remembered.clear()
            self.remembered[line] = found
        return found

    def _named(self, name: bytes) -> tuple[bytes, int]:
        """*name* in lower case, and what it means."""
        lower = name.lower()
        if self._request and b"_" in lower:
            kind = UNDERSCORE
        elif self._request and lower.startswith(b"x-forwarded-"):
            kind = FORWARDING
        else:
            kind = self._kinds.get(lower, PLAIN)
        if len(name) <= MAX_REMEMBERED_LINE:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[name] = lower, kind
        return lower, kind


def _refused(reason: str) -> Line:
    return Line(REFUSED, b"", reason.encode(), b"")


def explain(line: bytes) -> str:
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


def is_host(value: bytes) -> bool:
    """Whether *value* can stand in Host: a name or an address, and a port or none."""
    return _HOST.fullmatch(value) is not None


def length_of(value: bytes) -> int | None:
    """The number in a Content-Length; None when it is none, or greater than any body."""
    if not value.isdigit():
        return None
    if len(value) > MAX_LENGTH_DIGITS:
        value = value.lstrip(b"0") or b"0"
    return int(value) if len(value) <= MAX_LENGTH_DIGITS else None


@lru_cache(256)
def words(value: bytes) -> tuple[bytes, ...]:
    """The members of a comma-separated list, in lower case; empty ones do not count."""
    members = (member.strip(b" \t").lower() for member in value.split(b","))
    return tuple(member for member in members if member)


_OF_THE_HOP: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})


def without_named(lines: list[bytes], names: Collection[bytes]) -> list[bytes]:
    """Rebuilt *lines* but those that `Connection` names (lower case)."""
    gone = {name for name in names if name not in _OF_THE_HOP}
    if not gone:
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in gone]


def read_trailer(line: bytes) -> Line:
    """*line* as a field of a trailer section; nothing of it is remembered."""
    return LineReader(REQUEST_KINDS, request=True).read(line)
