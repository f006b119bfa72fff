"""Reads one DNS message: a query to answer, one to reject with a code, or one to drop.

Any bytes give one of the three and never an exception.  The order of the tests is that in
which a server has to judge: later ones may rely on what earlier ones have settled.
"""

from typing import NamedTuple

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH = 0, 1, 2, 3, 4, 5, 9
BADVERS, BADCOOKIE = 16, 23
"""Extended codes: four bits stand in the header, the rest in the OPT record (RFC 6891, 6.1.3)."""

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 16, 28, 33, 41
TSIG, IXFR, AXFR, ANY = 250, 251, 252, 255
IN, CH = 1, 3

NSID, EXPIRE, COOKIE, KEEPALIVE, ZONEVERSION = 3, 9, 10, 11, 19
MAX_QNAME = 255
"""Octets of a name on the wire, the root's included (RFC 1035, section 2.3.4)."""

MIN_UDP = 512
"""What every client takes without saying so (RFC 1035, section 2.3.4)."""

MAX_UDP = 1232
"""Fits IPv6's least MTU, so no answer is ever fragmented (RFC 9715, section 3.1)."""

HEADER = 12
_ONE_QUESTION = b"\0\1\0\0\0\0\0\0"
_ONE_QUESTION_AND_OPT = b"\0\1\0\0\0\0\0\1"


class Edns(NamedTuple):
    """What the asker's OPT record says: its buffer, version, DO bit and options.

    `reply` holds the options that go into ours.
    """

    size: int
    version: int
    do: bool
    options: bytes = b""
    reply: bytes = b""


class Query(NamedTuple):
    """One question to answer.

    `name` is the wire form as it came, `key` the same in lower case, `labels` the offsets in
    both at which a label begins (the root's included).  `plain`: nothing in the request beside
    the question and a usual OPT without options, no flag but RD and DO, and the name in lower
    case, so that the same octets may be
    answered from memory; `cookie` is the first COOKIE option, None without one.
    """

    id: bytes
    rd: bool
    name: bytes
    key: bytes
    labels: tuple[int, ...]
    qtype: int
    qclass: int
    question: bytes
    edns: Edns | None
    plain: bool
    cookie: bytes | None = None


class Reject(NamedTuple):
    """A message that is answered with a code alone; `question` is empty where it is not echoed.

    NOERROR is the code of one that asks for nothing but a cookie.
    """

    id: bytes
    opcode: int
    rd: bool
    rcode: int
    question: bytes
    edns: Edns | None


class Signed(NamedTuple):
    """A message whose last record, at `tsig_at`, is a signature: to be judged before the rest.

    `unverified` is what it gets where that is not good.
    """

    tsig_at: int
    unverified: Reject


class Drop(NamedTuple):
    """A message that is not answered at all; `reason` is a metric's label."""

    reason: str


Parsed = Query | Reject | Signed | Drop

SHORT = Drop("short")
RESPONSE = Drop("response")


class _Broken(Exception):
    """A record does not fit its message; *edns* is the OPT that was read whole before."""

    def __init__(self, edns: Edns | None) -> None:
        self.edns = edns


def parse_query(packet: bytes) -> Parsed:
    """What *packet* asks.  Total: every sequence of octets has its answer."""
    # 1. Too short for a header, or a response: answering those makes loops.
    if len(packet) < HEADER:
        return SHORT
    flags = packet[2]
    if flags & 0x80:
        return RESPONSE
    # 2. Another opcode than QUERY: its body is not ours to understand.
    rd = bool(flags & 1)
    if flags & 0x78:
        return Reject(packet[:2], flags >> 3 & 15, rd, NOTIMP, b"", _edns_of_any(packet))
    # 3. RFC 9619: one question, no more; none has a meaning only with a cookie.
    if packet[4:6] != b"\0\1":
        return _without_question(packet, rd)
    # 4. The question.
    labels = _labels(packet, HEADER)
    if labels is None:
        return Reject(packet[:2], 0, rd, FORMERR, b"", None)
    end = HEADER + labels[-1] + 5
    if end > len(packet):
        return Reject(packet[:2], 0, rd, FORMERR, b"", None)
    question = packet[HEADER:end]
    # 5. The records behind it, of which only OPT and TSIG say anything.
    tsig = 0
    edns: Edns | None = None
    bare = packet[4:12] == _ONE_QUESTION
    if packet[6:12] == b"\0\0\0\0\0\1" and _ends_with_opt(packet, end):
        edns, end = _edns(packet, end + 1, end + 11, len(packet)), len(packet)
    elif not bare:
        try:
            edns, tsig, end = _records(packet, end)
        except _Broken as broken:
            return Reject(packet[:2], 0, rd, FORMERR, question, broken.edns)
    # Options of a later version may have another form: it is the version that is wrong then.
    whole, cookie = (True, None) if edns is None or edns.version else cookie_in(edns.options)
    if not whole:
        return Reject(packet[:2], 0, rd, FORMERR, question, edns)
    # 6. A signature: whoever has the keys judges it, and takes it off (RFC 8945, section 5.2).
    if tsig:
        return Signed(tsig, Reject(packet[:2], 0, rd, NOTAUTH, question, edns))
    # 7. A version of EDNS that we do not speak.
    if edns is not None and edns.version:
        return Reject(packet[:2], 0, rd, BADVERS, question, edns)
    # 8. RFC 7873, section 5.2.2: a cookie has 8 octets, or 8 and 8 to 32 more.
    if cookie is not None and len(cookie) not in COOKIE_LENGTHS:
        return Reject(packet[:2], 0, rd, FORMERR, question, edns)
    name = question[:-4]
    key = name.lower()
    plain = (
        key == name
        and end == len(packet)
        and flags <= 1
        and packet[3] == 0
        and (bare or (edns is not None and not edns.options and _is_plain_opt(packet)))
    )
    qtype, qclass = question[-4] << 8 | question[-3], question[-2] << 8 | question[-1]
    return Query(packet[:2], rd, name, key, labels, qtype, qclass, question, edns, plain, cookie)


PLAIN_SIZES = frozenset({512, 1200, 1232, 4096})
"""Buffers that are offered often; whoever offers random ones shall not fill a memory."""


def _is_plain_opt(packet: bytes) -> bool:
    """Whether *packet* ends with its one OPT, of no options, and nothing in it is unusual."""
    return (
        packet[6:12] == b"\0\0\0\0\0\1"
        and packet[-8] << 8 | packet[-7] in PLAIN_SIZES
        and packet[-6] == 0
        and packet[-4] & 0x7F == 0
        and packet[-3] == 0
    )


COOKIE_LENGTHS = frozenset({8, *range(16, 41)})


def _without_question(packet: bytes, rd: bool) -> Reject:
    """RFC 7873, section 5.4: no question and a cookie asks for a cookie; else it is an error."""
    edns = _edns_of_any(packet)
    rcode = FORMERR
    if edns is not None and packet[4:6] == b"\0\0":
        whole, cookie = cookie_in(edns.options)
        if edns.version:
            rcode = BADVERS
        elif whole and cookie is not None and len(cookie) in COOKIE_LENGTHS:
            rcode = NOERROR
    return Reject(packet[:2], 0, rd, rcode, b"", edns)


def _labels(packet: bytes, start: int) -> tuple[int, ...] | None:
    """Offsets from *start* of the labels of the name there, the root's last.

    None when the name is cut, longer than 255 octets, or has a label that is no plain one:
    nothing stands before a question that a pointer could mean (RFC 1035, section 4.1.4).
    """
    offsets = []
    at = start
    size = len(packet)
    while at < size:
        offsets.append(at - start)
        length = packet[at]
        if length == 0:
            return tuple(offsets) if at - start < MAX_QNAME else None
        if length > 63:
            return None
        at += length + 1
    return None


def _records(packet: bytes, at: int) -> tuple[Edns | None, int, int]:
    """(OPT, where a TSIG begins or 0, end) of the records from *at*; _Broken when they do not fit.

    Other records are skipped, whatever they are (they mean nothing in a query).
    """
    answers, authorities, additionals = (packet[i] << 8 | packet[i + 1] for i in (6, 8, 10))
    total = answers + authorities + additionals
    edns: Edns | None = None
    tsig = 0
    broken = False
    for i in range(total):
        owner = at
        at = _skip_name(packet, at)
        if at < 0 or at + 10 > len(packet):
            raise _Broken(edns)
        rtype = packet[at] << 8 | packet[at + 1]
        rdata = at + 10
        end = rdata + (packet[at + 8] << 8 | packet[at + 9])
        if end > len(packet):
            raise _Broken(edns)
        additional = i >= answers + authorities
        if rtype == OPT:
            # RFC 6891, section 6.1.1: one, among the additional records, owned by the root.
            broken = broken or edns is not None or not additional or packet[owner] != 0
            edns = edns or _edns(packet, at, rdata, end)
        elif rtype == TSIG:
            # RFC 8945, section 5.2: one, the very last.
            broken = broken or tsig > 0 or not additional or i + 1 < total
            tsig = owner
        at = end
    if broken:
        raise _Broken(edns)
    return edns, tsig, at


def _ends_with_opt(packet: bytes, at: int) -> bool:
    """Whether one OPT of the root, whole, stands at *at* and nothing behind it: the usual case."""
    return (
        packet[at : at + 3] == b"\0\0\x29"
        and len(packet) >= at + 11
        and packet[at + 9] << 8 | packet[at + 10] == len(packet) - at - 11
    )


def _edns(packet: bytes, at: int, rdata: int, end: int) -> Edns:
    return Edns(
        size=packet[at + 2] << 8 | packet[at + 3],
        version=packet[at + 5],
        do=bool(packet[at + 6] & 0x80),
        options=packet[rdata:end],
    )


def _skip_name(packet: bytes, at: int) -> int:
    """Where the name at *at* ends, pointers allowed but not followed; -1 when it does not."""
    start, size = at, len(packet)
    while at < size and at - start < MAX_QNAME:
        length = packet[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            return at + 2
        if length > 63:
            return -1
        at += length + 1
    return -1


def cookie_in(options: bytes) -> tuple[bool, bytes | None]:
    """(whether the list of options is whole, the first COOKIE in it or None)."""
    at, size, cookie = 0, len(options), None
    while at < size:
        if at + 4 > size:
            return False, cookie
        code = options[at] << 8 | options[at + 1]
        end = at + 4 + (options[at + 2] << 8 | options[at + 3])
        if end > size:
            return False, cookie
        if code == COOKIE and cookie is None:
            cookie = options[at + 4 : end]
        at = end
    return True, cookie


def options_in(edns: Edns | None) -> list[tuple[int, bytes]]:
    """Code and data of each option of *edns*, whose list is whole."""
    options = b"" if edns is None else edns.options
    found, at = [], 0
    while at < len(options):
        end = at + 4 + (options[at + 2] << 8 | options[at + 3])
        found.append((options[at] << 8 | options[at + 1], options[at + 4 : end]))
        at = end
    return found


def _edns_of_any(packet: bytes) -> Edns | None:
    """The OPT of a message that is rejected unread, if it happens to parse; else None."""
    at = HEADER
    for _ in range(packet[4] << 8 | packet[5]):
        at = _skip_name(packet, at) + 4
        if at < HEADER or at > len(packet):
            return None
    try:
        return _records(packet, at)[0]
    except _Broken:
        return None


def limit_of(edns: Edns | None, *, tcp: bool) -> int:
    """The most octets that a reply to this asker may have (RFC 6891, sections 6.2.3 to 6.2.5)."""
    if tcp:
        return 65535
    if edns is None:
        return MIN_UDP
    return min(max(edns.size, MIN_UDP), MAX_UDP)
