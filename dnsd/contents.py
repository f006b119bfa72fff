"""A zone as records: what a transfer carries, the same on every replica at the same serial.

Names are written in the form with hyphens, and also as the service or instance was first
registered where that differs.  TTLs are those of a dnsd whose store is there.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from dnsd import query
from dnsd.compiler import compile_rrset
from dnsd.table import ServedZone
from dnsd.zone import (
    NEGATIVE_TTL,
    AtApex,
    AtDefaultPort,
    AtInstance,
    AtPort,
    AtServer,
    AtService,
    Place,
    Rrset,
    Zone,
    apex_rrset,
    ports_of,
    service_rrset,
    to_wire,
)
from registry import names
from registry.catalog import Service
from registry.model import MAX_RECORD_TTL

EXPIRE_OPTION = 9
"""EDNS EXPIRE (RFC 7314)."""

Services = Mapping[str, Service]
"""Folded name → service.  Nobody changes a service that stands here."""


class RR(NamedTuple):
    """A record: its owner uncompressed, and the rest from its type on."""

    owner: bytes
    rest: bytes

    @property
    def size(self) -> int:
        return len(self.owner) + len(self.rest)


class Source(NamedTuple):
    """A zone, the canonical one in which targets live, and who hears what did not compile."""

    served: ServedZone
    canonical: Zone
    problem: Callable[[str, str], None] = lambda service, what: None


def soa_rr(zone: Zone, serial: int) -> RR:
    """The SOA of *zone* at *serial*."""
    rdata = b"".join(
        (
            to_wire(f"{zone.servers[0][0]}.{zone.apex}"),
            to_wire(f"hostmaster.{zone.apex}"),
            serial.to_bytes(4, "big"),
            *(n.to_bytes(4, "big") for n in (zone.refresh, zone.retry, zone.expire)),
            NEGATIVE_TTL.to_bytes(4, "big"),
        )
    )
    return _rr(to_wire(zone.apex), query.SOA, NEGATIVE_TTL, rdata)


def apex_rrs(zone: Zone) -> Iterator[RR]:
    """What no change touches: the name servers and their addresses."""
    apex = to_wire(zone.apex)
    rrset = apex_rrset(zone, AtApex(), query.NS)
    for label, addresses in zone.servers:
        name = to_wire(f"{label}.{zone.apex}")
        assert rrset is not None and addresses, "a zone has name servers, and they addresses"
        yield _rr(apex, query.NS, rrset.ttl, name)
    for label, _ in zone.servers:
        for qtype in (query.A, query.AAAA):
            yield from _records(apex_rrset(zone, AtServer(label), qtype))
