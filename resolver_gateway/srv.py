"""A DNS answer's bytes, understood: upstreams and how long they hold, or that there are none.

Whatever is not the answer to the question asked is `NotOurs`, whatever the question's name does
not own is dropped, and nothing here raises on any bytes.
"""

import ipaddress
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from resolver_gateway.balancer import Ballot, Upstream, upstream

A, NS, CNAME, SOA, TXT, AAAA, SRV = 1, 2, 5, 6, 16, 28, 33
IN: Final = 1
NOERROR, NXDOMAIN = 0, 3
RCODES: Final = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}

EDNS_SIZE: Final = 1232
"""Octets of a UDP answer we take: fits the smallest IPv6 MTU, so it is never fragmented."""

MAX_TTL: Final = 3600.0
"""Seconds; a forged or mistaken TTL of 68 years must not outlive a restart's patience."""

TTL_WITHOUT_SOA: Final = 1.0
"""Seconds a negative answer holds that says no TTL (RFC 2308, section 5 forbids to cache it)."""

MAX_RECORDS: Final = 4096
"""Records read of one answer; a TCP answer of 64 KiB has no more than that of 16 octets."""

MAX_UPSTREAMS: Final = 1024
MAX_POINTERS: Final = 64
MAX_CNAMES: Final = 8

# DNS names here are lower-case text with a final dot, octets as Latin-1; see `_read_name`.


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where a service is, for *ttl* seconds; at least one upstream."""

    upstreams: tuple[Upstream, ...]
    ttl: float
    source: str = "dns"
    """`dns`, or `fallback` for one from the environment."""
    ballot: Ballot = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ballot", Ballot(self.upstreams))

    def like(self, before: "Resolution") -> "Resolution":
        """This one, with the ballot of *before* where it has the same upstreams: whose turn it is
        goes on."""
        if before.upstreams == self.upstreams:
            object.__setattr__(self, "ballot", before.ballot)
        return self


@dataclass(frozen=True, slots=True)
class Absent:
    """No instance, for *ttl* seconds: NODATA when the name *exists*, else NXDOMAIN."""

    exists: bool
    ttl: float


@dataclass(frozen=True, slots=True)
class Incomplete:
    """SRV records whose targets have no address here: look up *targets*, then `complete()`."""

    records: tuple["SrvRecord", ...]
    addresses: Mapping[str, tuple[str, ...]]
    targets: tuple[str, ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The server answered, but not the question: SERVFAIL, REFUSED, a referral."""

    reason: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """TC: the same question again over TCP."""


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Not an answer to our question: go on waiting."""

    reason: str


Answer = Resolution | Absent | Incomplete | Failed
Reply = Answer | Truncated | NotOurs


class SrvRecord(NamedTuple):
    target: str
    port: int
    priority: int
    weight: int


class Record(NamedTuple):
    owner: str
    type: int
    ttl: float
    data: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, with the exact bytes that were sent: an answer must repeat them."""

    name: str
    """Lower case, with its final dot."""
    qtype: int
    wire: bytes
    """Name in the case that was sent, type, class."""


def mixed_case(name: str, bits: int) -> str:
    """*name* with its letters' case taken from *bits*: the 0x20 trick, so that who cannot see
    the question must guess them too (draft-vixie-dnsext-dns0x20)."""
    letters = []
    for letter in name:
        if letter.isalpha():
            letter = letter.upper() if bits & 1 else letter
            bits >>= 1
        letters.append(letter)
    return "".join(letters)


def question(name: str, qtype: int, case: int) -> Question:
    """The question for *name*; *case* are the random bits for its letters."""
    labels = mixed_case(name.lower(), case).removesuffix(".").split(".")
    wire = b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels)
    return Question(name.lower(), qtype, wire + b"\0" + struct.pack("!HH", qtype, IN))


def query(asked: Question, query_id: int, *, edns: bool = True) -> bytes:
    """The packet that asks it: RD set (a resolver may stand between), EDNS of 1232 octets."""
    header = struct.pack("!HHHHHH", query_id, 0x0100, 1, 0, 0, edns)
    option = struct.pack("!BHHIH", 0, 41, EDNS_SIZE, 0, 0) if edns else b""
    return header + asked.wire + option


def parse_srv_response(
    packet: bytes, asked: Question, query_id: int, service: str, zone: str, tls_name: str = ""
) -> Reply:
    """What *packet* says to the SRV question *asked* about *service*.  Total."""
    message = _read_message(packet, asked, query_id)
    if not isinstance(message, _Message):
        return message
    owners = _aliases(message.answers, asked.name, zone)
    records = [r for r in message.answers if r.type == SRV and r.owner in owners]
    if not records:
        return _negative(message, asked.name)
    found = [SrvRecord(*r.data) for r in records][:MAX_UPSTREAMS]  # type: ignore[arg-type]
    # A target outside the zone is none of ours: an answer must not point the gateway at hosts
    # that never signed in.  "." says that there is no such service (RFC 2782).
    found = [record for record in found if record.target.endswith("." + zone)]
    ttl = min(r.ttl for r in records)
    if not found:
        return Absent(True, ttl)
    targets = {record.target for record in found}
    glue = [
        r
        for r in (*message.answers, *message.additional)
        if r.type in (A, AAAA) and r.owner in targets
    ]
    addresses = _by_owner(glue)
    ttl = min([ttl, *(r.ttl for r in glue)])
    missing = tuple(sorted(targets - addresses.keys()))
    incomplete = Incomplete(tuple(found), addresses, missing, ttl)
    return incomplete if missing else complete(incomplete, service, {}, tls_name)


def complete(
    found: Incomplete,
    service: str,
    looked_up: Mapping[str, tuple[tuple[str, ...], float]],
    tls_name: str = "",
) -> Resolution | Failed:
    """The resolution, with what was looked up for the missing targets: addresses and TTL each.

    Its upstreams have an order of their own: servers turn theirs, which says nothing.
    """
    upstreams: list[Upstream] = []
    ttl = found.ttl
    for record in found.records:
        addresses = found.addresses.get(record.target)
        if addresses is None:
            addresses, own_ttl = looked_up.get(record.target, ((), found.ttl))
            ttl = min(ttl, own_ttl)
        if not addresses or not record.port:
            continue
        # One address an instance: two of them would give it twice its weight.
        upstreams.append(
            upstream(
                service,
                record.target.partition(".")[0],
                addresses[0],
                record.port,
                record.priority,
                record.weight,
                tls_name,
            )
        )
    if not upstreams:
        return Failed("no target has an address")
    return Resolution(tuple(sorted(upstreams, key=lambda u: u.key)), ttl)


def parse_address_response(
    packet: bytes, asked: Question, query_id: int, zone: str
) -> tuple[tuple[str, ...], float] | Failed | Truncated | NotOurs:
    """Addresses and TTL that *packet* gives to the A or AAAA question *asked*.  Total."""
    message = _read_message(packet, asked, query_id)
    if not isinstance(message, _Message):
        return message
    owners = _aliases(message.answers, asked.name, zone)
    records = [r for r in message.answers if r.type == asked.qtype and r.owner in owners]
    if records:
        found = tuple(str(r.data[0]) for r in records)
        return found, min(r.ttl for r in records)
    negative = _negative(message, asked.name)
    return negative if isinstance(negative, Failed) else ((), negative.ttl)


def parse_text_response(
    packet: bytes, asked: Question, query_id: int
) -> dict[str, str] | Failed | Truncated | NotOurs:
    """The `key=value` strings that *packet* gives to the TXT question *asked*.  Total."""
    message = _read_message(packet, asked, query_id)
    if not isinstance(message, _Message):
        return message
    texts = [r for r in message.answers if r.type == TXT and r.owner == asked.name]
    pairs = (bytes(s).partition(b"=") for r in texts for s in r.data)  # type: ignore[call-overload]
    return {key.decode("latin-1").lower(): value.decode("latin-1") for key, _, value in pairs}


def parse_serial_response(
    packet: bytes, asked: Question, query_id: int
) -> int | Failed | Truncated | NotOurs:
    """The serial that *packet* gives to the SOA question *asked*.  Total."""
    message = _read_message(packet, asked, query_id)
    if not isinstance(message, _Message):
        return message
    for record in message.answers:
        if record.type == SOA and record.owner == asked.name:
            serial = record.data[1]
            assert isinstance(serial, int)
            return serial
    return Failed("no SOA")


def parse_any_response(packet: bytes, asked: Question, query_id: int) -> bool:
    """Whether *packet* answers *asked* at all, with whatever result."""
    return not isinstance(_read_message(packet, asked, query_id), NotOurs)


@dataclass(frozen=True, slots=True)
class _Message:
    rcode: int
    authoritative: bool
    answers: list[Record]
    authority: list[Record]
    additional: list[Record]


def _read_message(
    packet: bytes, asked: Question, query_id: int
) -> _Message | Failed | Truncated | NotOurs:
    if len(packet) < 12:
        return NotOurs("shorter than a header")
    found_id, flags, questions, answers, authority, additional = struct.unpack_from("!6H", packet)
    if found_id != query_id:
        return NotOurs("another id")
    if not flags & 0x8000 or flags & 0x7800:
        return NotOurs("not an answer")
    rcode = flags & 0xF
    body = 12 + len(asked.wire)
    # An error without the question too: 16 bits of id are too few for a stranger to end the wait.
    if questions != 1 or packet[12:body] != asked.wire:
        return NotOurs("another question")
    if flags & 0x0200:
        return Truncated()
    if rcode not in (NOERROR, NXDOMAIN):
        return Failed(RCODES.get(rcode, f"RCODE{rcode}"))
    try:
        position, sections = body, []
        for count in (answers, authority, additional):
            records, position = _read_records(packet, position, min(count, MAX_RECORDS))
            sections.append(records)
    except _Malformed as error:
        return NotOurs(str(error))
    return _Message(rcode, bool(flags & 0x0400), *sections)


class _Malformed(ValueError):
    """Ends the reading of one packet; caught above, never seen outside."""


def _read_records(packet: bytes, position: int, count: int) -> tuple[list[Record], int]:
    records = []
    for _ in range(count):
        owner, position = _read_name(packet, position)
        if position + 10 > len(packet):
            raise _Malformed("a record is cut short")
        rtype, rclass, ttl, length = struct.unpack_from("!HHIH", packet, position)
        position += 10
        end = position + length
        if end > len(packet):
            raise _Malformed("a record is cut short")
        # RFC 2181, section 8: a TTL with its first bit set is 0.
        seconds = 0.0 if ttl & 0x80000000 else min(float(ttl), MAX_TTL)
        if rclass == IN and (data := _read_data(packet, position, end, rtype)) is not None:
            records.append(Record(owner, rtype, seconds, data))
        position = end
    return records, position


def _read_data(packet: bytes, position: int, end: int, rtype: int) -> tuple[object, ...] | None:
    if rtype == A and end - position == 4:
        return (str(ipaddress.IPv4Address(packet[position:end])),)
    if rtype == AAAA and end - position == 16:
        return (str(ipaddress.IPv6Address(packet[position:end])),)
    if rtype == SRV and end - position >= 7:
        priority, weight, port = struct.unpack_from("!HHH", packet, position)
        target, after = _read_name(packet, position + 6)
        return (target, port, priority, weight) if after == end else None
    if rtype == TXT:
        return _read_strings(packet[position:end])
    if rtype in (CNAME, NS):
        target, after = _read_name(packet, position)
        return (target,) if after == end else None
    if rtype == SOA:
        _, after = _read_name(packet, position)
        _, after = _read_name(packet, after)
        if after + 20 != end:
            return None
        serial, _, _, _, minimum = struct.unpack_from("!5I", packet, after)
        return minimum, serial
    return None


def _read_strings(data: bytes) -> tuple[object, ...] | None:
    strings, position = [], 0
    while position < len(data):
        strings.append(data[position + 1 : position + 1 + data[position]])
        position += 1 + data[position]
    return tuple(strings) if position == len(data) else None


def _read_name(packet: bytes, position: int) -> tuple[str, int]:
    """The name at *position* in lower case, and where it ends; pointers only backwards."""
    labels: list[str] = []
    after = -1
    size = 0
    for _ in range(MAX_POINTERS + 128):
        if position >= len(packet):
            raise _Malformed("a name is cut short")
        length = packet[position]
        if length >= 0xC0:
            if position + 1 >= len(packet):
                raise _Malformed("a pointer is cut short")
            target = (length & 0x3F) << 8 | packet[position + 1]
            if target >= position:
                raise _Malformed("a pointer points forwards")
            after = position + 2 if after < 0 else after
            position = target
            continue
        if length > 63:
            raise _Malformed("a label of unknown kind")
        position += 1
        if length == 0:
            return ".".join(labels) + ".", position if after < 0 else after
        label = packet[position : position + length]
        size += length + 1
        if len(label) < length or size > 254:
            raise _Malformed("a name is too long")
        # A dot inside a label must not read as two labels.
        labels.append(label.lower().replace(b".", b"\\").decode("latin-1"))
        position += length
    raise _Malformed("a name has too many pointers")


def _aliases(answers: Iterable[Record], name: str, zone: str) -> set[str]:
    """*name* and what its CNAMEs within the zone lead to."""
    owners = {name}
    targets = {r.owner: str(r.data[0]) for r in answers if r.type == CNAME}
    for _ in range(MAX_CNAMES):
        name = targets.get(name, "")
        if not name.endswith("." + zone) or name in owners:
            break
        owners.add(name)
    return owners


def _negative(message: _Message, name: str) -> Absent | Failed:
    """No record of the type: for how long that holds (RFC 2308), unless it is a referral."""
    soas = [
        r
        for r in message.authority
        if r.type == SOA and (name == r.owner or name.endswith("." + r.owner) or r.owner == ".")
    ]
    if soas:
        ttl = min(min(r.ttl, float(r.data[0])) for r in soas)  # type: ignore[arg-type]
        return Absent(message.rcode != NXDOMAIN, min(ttl, MAX_TTL))
    referral = any(r.type == NS for r in message.authority)
    if message.rcode == NOERROR and referral and not message.authoritative:
        return Failed("a referral: the server is not authoritative and does not recurse")
    return Absent(message.rcode != NXDOMAIN, TTL_WITHOUT_SOA)


def _by_owner(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Addresses by owner, IPv4 first: what most services listen on."""
    found: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda r: r.type):
        found.setdefault(record.owner, []).append(str(record.data[0]))
    return {owner: tuple(addresses) for owner, addresses in found.items()}


def srv_name(name: str, zone: str) -> str:
    """`payments` → `_http._tcp.payments.svc.internal.`; one with a port keeps it."""
    if name.startswith("_"):
        return f"{name}.{zone}"
    return f"_http._tcp.{name}.{zone}"


def reaches(serial: int, wanted: int) -> bool:
    """Whether *serial* is *wanted* or later, as serials are compared (RFC 1982)."""
    return (serial - wanted) & 0xFFFFFFFF < 0x80000000
