"""Questions to DNS servers as octets, in every shape that we could think of, and their replies."""

import itertools
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from registry.runtime.config import HostPort
from tests.support.dns import header, opt, option, question


class Question(NamedTuple):
    """What is asked; `shape` names how, `tcp` over what."""

    name: bytes
    qtype: int
    shape: str
    tcp: bool = False

    def __str__(self) -> str:
        name = dns.name.from_wire(self.name, 0)[0]
        how = f"{self.shape}{' tcp' if self.tcp else ''}"
        return f"{name} {dns.rdatatype.to_text(dns.rdatatype.RdataType.make(self.qtype))} ({how})"

    @property
    def packet(self) -> bytes:
        return SHAPES[self.shape](self.name, self.qtype)


def query(
    name: bytes,
    qtype: int,
    *,
    flags: int = 0x0100,
    qclass: int = 1,
    more: bytes = b"",
    records: int = 0,
) -> bytes:
    """A query with *records* additional ones in *more*."""
    return header(flags, ar=records) + question(name, qtype, qclass) + more


def with_opt(**of_opt: int | bytes) -> Callable[[bytes, int], bytes]:
    """Queries with such an OPT record."""
    record = opt(**of_opt)  # type: ignore[arg-type]
    return lambda name, qtype: query(name, qtype, more=record, records=1)


def with_options(*options: bytes) -> Callable[[bytes, int], bytes]:
    return with_opt(rdata=b"".join(options))


COMMON: dict[str, Callable[[bytes, int], bytes]] = {
    "plain": query,
    "edns 1232": with_opt(size=1232),
    "edns 512 do": with_opt(size=512, flags=0x8000),
    "edns 4096": with_opt(size=4096),
}
"""How every name is asked."""

ODD: dict[str, Callable[[bytes, int], bytes]] = {
    "edns 0": with_opt(size=0),
    "edns 65535": with_opt(size=65535),
    "edns 1": with_opt(version=1),
    "edns 1 do": with_opt(version=1, flags=0x8000),
    "edns 1, broken options": with_opt(version=1, rdata=b"\0"),
    "edns flags": with_opt(flags=0x7FFF),
    "edns extended rcode": lambda n, t: query(
        n, t, more=b"\0\0\x29\x04\xd0\x01\0\0\0\0\0", records=1
    ),
    "two opt": lambda n, t: query(n, t, more=opt() + opt(), records=2),
    "opt with an owner": with_opt(owner=b"\1a\0"),
    "opt in answer": lambda n, t: header(0x0100, an=1) + question(n, t) + opt(),
    "unknown option": with_options(option(100), option(65001, b"abc"), option(100)),
    "option cut": with_opt(rdata=option(100, b"abc")[:-1]),
    "opt promised": lambda n, t: query(n, t, records=1),
    "opt cut": lambda n, t: query(n, t, more=opt()[:-1], records=1),
    "client subnet": with_options(option(8, b"\0\1\0\0")),
    "keepalive": with_options(option(11)),
    "padding": with_options(option(12, bytes(20))),
    "chain": with_options(option(13, b"\0")),
    "nsid": with_options(option(3)),
    "expire": with_options(option(9)),
    "cookie": with_options(option(10, b"12345678")),
    "wrong cookie": with_options(option(10, bytes(24))),
    "zoneversion": with_options(option(19)),
    "zoneversion with data": with_options(option(19, b"\0")),
    "cookie of 7": with_options(option(10, b"1234567")),
    "cookie of 41": with_options(option(10, bytes(41))),
    "no rd": lambda n, t: query(n, t, flags=0),
    "cd": lambda n, t: query(n, t, flags=0x0110),
    "ad": lambda n, t: query(n, t, flags=0x0120),
    "z": lambda n, t: query(n, t, flags=0x0140),
    "aa": lambda n, t: query(n, t, flags=0x0500),
    "ra": lambda n, t: query(n, t, flags=0x0180),
    "tc": lambda n, t: query(n, t, flags=0x0300),
    "rcode": lambda n, t: query(n, t, flags=0x0103),
    "class ch": lambda n, t: query(n, t, qclass=3),
    "class hs": lambda n, t: query(n, t, qclass=4),
    "class none": lambda n, t: query(n, t, qclass=254),
    "class any": lambda n, t: query(n, t, qclass=255),
    "class 0": lambda n, t: query(n, t, qclass=0),
    "iquery": lambda n, t: query(n, t, flags=0x0800),
    "status": lambda n, t: query(n, t, flags=0x1000),
    "opcode 3": lambda n, t: query(n, t, flags=0x1800),
    "notify": lambda n, t: query(n, 6, flags=0x2000),
    "update": lambda n, t: query(n, 6, flags=0x2800),
    "opcode 15": lambda n, t: query(n, t, flags=0x7800),
    "two questions": lambda n, t: header(0x0100, qd=2) + question(n, t) + question(n, t),
    "no question": lambda n, t: header(0x0100, qd=0),
    "no question, cookie": lambda n, t: (
        header(0x0100, qd=0, ar=1) + opt(rdata=option(10, b"12345678"))
    ),
    "octets behind": lambda n, t: query(n, t) + b"behind",
    "a record too many": lambda n, t: (
        header(0x0100, an=1) + question(n, t) + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x0a\0\0\1"
    ),
    "name cut": lambda n, t: header(0x0100) + n[:-1],
    "pointer to itself": lambda n, t: header(0x0100) + question(b"\xc0\x0c", t),
    "label of 64": lambda n, t: header(0x0100) + question(b"\x40" + b"a" * 64 + b"\0", t),
    "name of 256": lambda n, t: (
        header(0x0100) + question(b"".join([b"\x3f" + b"a" * 63] * 4) + b"\0", t)
    ),
}
"""How a few names are asked."""

SHAPES = COMMON | ODD


def names_of(apex: str, owners: Iterable[dns.name.Name]) -> tuple[list[bytes], list[bytes]]:
    """(names that exist, those between included; names that nearly do) of a zone."""
    there = {dns.name.from_text(apex)}
    for owner in owners:
        while owner not in there:
            there.add(owner)
            owner = owner.parent()
    near = {name for owner in there for name in misses(owner, dns.name.from_text(apex))}
    return sorted(map(wire, there)), sorted(map(wire, near - there))


def wire(name: dns.name.Name) -> bytes:
    """*name* as octets."""
    octets = name.to_wire()
    assert octets is not None
    return octets


def misses(owner: dns.name.Name, apex: dns.name.Name) -> Iterator[dns.name.Name]:
    """Names beside and below *owner*."""
    yield dns.name.Name((b"x", *owner.labels))
    yield dns.name.Name((b"*", *owner.labels))
    yield dns.name.Name((b"_x", b"_tcp", *owner.labels))
    if owner == apex:
        return
    label, rest = owner.labels[0], owner.labels[1:]
    others = (
        label[:-1],
        label[1:],
        label[:62] + b"x",
        label + b"\0",
        label.replace(b"e", b"\xe9"),
        label.swapcase(),
        label.replace(b"-", b"_"),
        label[:1] + label[1:].replace(b"_", b"-"),
    )
    for other in others:
        if 0 < len(other) < 64:
            yield dns.name.Name((other, *rest))
    if len(rest) > len(apex.labels):
        # A dot within a label is none between two.
        yield dns.name.Name((label[:30] + b"." + rest[0][:30], *rest[1:]))


# --- answers ---------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What of a reply is compared."""

    rcode: str
    aa: bool
    tc: bool
    answer: frozenset[str] = frozenset()
    soa: frozenset[str] = frozenset()
    opt: bool = False


SILENCE = Seen("silence", aa=False, tc=False)


def seen(packet: bytes) -> Seen:
    """*packet*, which must be a DNS message without anything behind it."""
    message = dns.message.from_wire(packet)
    assert message.flags & dns.flags.QR
    negative = not message.answer
    return Seen(
        dns.rcode.to_text(message.rcode()),
        bool(message.flags & dns.flags.AA),
        bool(message.flags & dns.flags.TC),
        frozenset(records(message.answer)),
        frozenset(r for r in records(message.authority) if negative and " SOA " in r),
        message.edns >= 0,
    )


def records(section: Iterable[dns.rrset.RRset]) -> Iterator[str]:
    for rrset in section:
        for line in rrset.to_text().lower().splitlines():
            yield line.replace(" in soa ", " in SOA ")


ANSWER_SECONDS = 5.0
"""How long an answer is waited for that has to come."""

PEER_SECONDS, PEER_TRIES, PEER_PAUSE = 1.0, 5, 0.2
"""The same of a peer, which is asked again after a pause: NSD loses questions, and connections,
while it replaces its processes."""

SILENCE_SECONDS = 0.3
"""How long a peer is waited for that is known to say nothing."""


class Asking:
    """Asks dnsd and a peer the same, one question at a time."""

    def __init__(self, dnsd: HostPort, peer: HostPort) -> None:
        self._dnsd, self._peer = dnsd, peer
        self._numbers = itertools.cycle(range(1, 65536))

    def __enter__(self) -> Self:
        self._to_dnsd, self._to_peer = _connected(self._dnsd), _connected(self._peer)
        return self

    def __exit__(self, *exc: object) -> None:
        self._to_dnsd.close()
        self._to_peer.close()

    def ask(self, asked: Question, *, silent: bool = False) -> tuple[Seen, Seen]:
        """What dnsd and the peer say; *silent*: the peer is known not to answer this."""
        packet = struct.pack("!H", next(self._numbers)) + asked.packet[2:]
        seconds, tries = (SILENCE_SECONDS, 1) if silent else (PEER_SECONDS, PEER_TRIES)
        ours = self._exchange(asked, packet, self._to_dnsd, self._dnsd, ANSWER_SECONDS)
        theirs = self._exchange(asked, packet, self._to_peer, self._peer, seconds)
        while theirs is None and (tries := tries - 1):
            time.sleep(PEER_PAUSE)
            theirs = self._exchange(asked, packet, self._to_peer, self._peer, seconds)
        return _seen_or_silent(ours), _seen_or_silent(theirs)

    def _exchange(
        self, asked: Question, packet: bytes, sock: socket.socket, server: HostPort, seconds: float
    ) -> bytes | None:
        if asked.tcp:
            return _over_tcp(server, packet, seconds)
        sock.send(packet)
        return _received(sock, packet, seconds)


def _connected(server: HostPort) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((server.host, server.port))
    return sock


def _seen_or_silent(reply: bytes | None) -> Seen:
    return SILENCE if reply is None else seen(reply)


def _received(sock: socket.socket, packet: bytes, seconds: float) -> bytes | None:
    """The reply to *packet*; None when none comes in time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            reply = sock.recv(65535)
        except TimeoutError:
            return None
        if reply[:2] == packet[:2]:
            return reply
    return None


def _over_tcp(server: HostPort, packet: bytes, seconds: float) -> bytes | None:
    """The reply on a connection of its own; None when the server closes it or says nothing."""
    with socket.create_connection((server.host, server.port), timeout=seconds) as sock:
        sock.sendall(struct.pack("!H", len(packet)) + packet)
        with sock.makefile("rb") as stream:
            try:
                (size,) = struct.unpack("!H", stream.read(2))
                return stream.read(size)
            except (TimeoutError, ConnectionError, struct.error):
                return None
