"""A dnsd without sockets or store: a catalog that a test fills, and the responder over it."""

import ipaddress
import random
from collections.abc import Iterable, Sequence
from typing import Any

import dns.message
import dns.rdatatype

from dnsd.cookies import Cookies
from dnsd.memo import Memo
from dnsd.responder import Peer, Reply, Responder
from dnsd.reverse import zones_for
from dnsd.table import AnswerTable, State
from dnsd.zone import Zone
from registry.catalog import Catalog
from registry.changes import InstanceDown, InstanceUp, ServiceForgotten, ServiceSettings
from registry.model import Instance, Port, Registration
from tests.support import dns as asking

APEX = "svc.internal."
LOCAL = Peer(b"\x7f\0\0\1")
LOCAL_TCP = Peer(b"\x7f\0\0\1", tcp=True)
SERVERS = (("ns1", ("192.0.2.53", "2001:db8::53")),)


def instance(
    service: str = "payments",
    id: str = "pay-1",
    addresses: Sequence[str] = ("10.0.0.1",),
    ports: Iterable[Port] = (Port("http", 8080),),
    *,
    state: str = "serving",
    revision: int = 1,
    found: tuple[str, ...] = (),
    **more: Any,
) -> Instance:
    """An instance as the store holds it."""
    registration = Registration(service, id, tuple(ports), tuple(addresses), **more)
    return Instance(registration, revision, "lease", 0, state=state, found=found, listed_as=service)


def zones_of(zones: Sequence[str], reverse: Sequence[str] = ()) -> list[Zone]:
    """Zones with one name server, and those of the networks *reverse*."""
    apexes = zones_for(map(ipaddress.ip_network, reverse))
    return [
        *(Zone(apex, SERVERS) for apex in zones),
        *(Zone(apex, SERVERS, home=zones[0]) for apex in apexes),
    ]


class Dnsd:
    """The core of a server; `up`, `down`, `forget` and `set` change what it knows."""

    def __init__(
        self,
        *instances: Instance,
        zones: Sequence[str] = (APEX,),
        reverse: Sequence[str] = (),
        state: State = "fresh",
        seed: int = 1,
        cookies: Cookies | None = None,
        name: bytes = b"",
    ) -> None:
        self.catalog = Catalog()
        self.problems: list[tuple[str, str]] = []
        self.table = AnswerTable(
            zones_of(zones, reverse),
            lambda: self.catalog,
            state=state,
            problem=lambda service, what: self.problems.append((service, what)),
        )
        self.responder = Responder(self.table, random.Random(seed), cookies=cookies, name=name)
        self.memo = Memo(self.table.serial)
        for one in instances:
            self.up(one)

    def up(self, one: Instance) -> None:
        revision = self.catalog.revision + 1
        numbered = Instance(
            one.registration,
            revision,
            one.lease_id,
            0,
            state=one.state,
            found=one.found,
            listed_as=one.listed_as,
        )
        self._apply(InstanceUp(numbered, revision, revision - 1))

    def down(self, service: str, id: str) -> None:
        revision = self.catalog.revision + 1
        self._apply(InstanceDown(service, id, "deregistered", revision, revision - 1))

    def forget(self, service: str) -> None:
        revision = self.catalog.revision + 1
        self._apply(ServiceForgotten(service, revision, revision - 1))

    def set(self, service: str, answers: int) -> None:
        revision = self.catalog.revision + 1
        self._apply(ServiceSettings(service, answers, revision, revision - 1))

    def _apply(
        self, change: InstanceUp | InstanceDown | ServiceForgotten | ServiceSettings
    ) -> None:
        touched = self.catalog.apply(change)
        services = () if touched is None else (touched,)
        self.table.invalidate(services)
        self.memo.forget((*services, ""))

    def raw(self, packet: bytes, peer: Peer = LOCAL) -> bytes | None:
        """What leaves when *packet* arrives."""
        return self.responder.respond(packet, peer, 0.0)

    def reply(self, packet: bytes, peer: Peer = LOCAL) -> Reply:
        """The same with all that is known of it; it must not have failed within."""
        reply = self.responder.answer(packet, peer, 0.0)
        assert reply.error is None, reply.error
        return reply

    def dig(
        self,
        name: str,
        rtype: str | int = "A",
        *,
        edns: int | None = None,
        tcp: bool = False,
        **more: Any,
    ) -> dns.message.Message:
        """The answer as dnspython reads it; a name without a final dot is below the apex."""
        if not name.endswith("."):
            name = f"{name}.{APEX}"
        packet = asking.query(name, rtype, edns=edns, **more)
        reply = self.reply(packet, LOCAL_TCP if tcp else LOCAL).packet
        assert reply is not None
        return dns.message.from_wire(reply)


def query_of(name: str | bytes, rtype: str | int = "A") -> bytes:
    """A plain question; *name* may be octets that no text can say."""
    if isinstance(name, bytes):
        number = dns.rdatatype.RdataType.make(rtype)
        return asking.header() + asking.question(name, number)
    return asking.query(name, rtype)


def types_in(message: dns.message.Message) -> list[str]:
    """Owner and type of each additional set, in their order."""
    return [f"{s.name} {dns.rdatatype.to_text(s.rdtype)}" for s in message.additional]


def outcome(message: dns.message.Message) -> str:
    """`NOERROR`, `NODATA`, `NXDOMAIN`, `REFUSED` …"""
    rcode = dns.rcode.to_text(message.rcode())
    return "NODATA" if rcode == "NOERROR" and not message.answer else rcode


def rdatas(message: dns.message.Message) -> list[str]:
    """The answer's records without owner and TTL, in their order."""
    return [rdata.to_text() for rrset in message.answer for rdata in rrset]


def glue(message: dns.message.Message) -> list[str]:
    """Owner and address of the additional records, in their order."""
    return [f"{s.name} {rdata.to_text()}" for s in message.additional for rdata in s]
