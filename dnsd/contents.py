"""A zone as records: what a transfer carries, the same on every replica at the same serial.

Names are written in the form with hyphens, and also as the service or instance was first
registered where that differs.  TTLs are those of a dnsd whose store is there.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from dnsd import query
from dnsd.compiler import records_of
from dnsd.zone import (
    APEX_TTL,
    EXPIRE,
    NEGATIVE_TTL,
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

Services = Mapping[str, Service]
"""Folded name → service; nobody changes one that stands here."""

_ADDRESSES = (query.A, query.AAAA)
_TYPES = (*_ADDRESSES, query.SRV, query.TXT)


class RR(NamedTuple):
    """A record: its owner uncompressed, and the rest from its type on."""

    owner: bytes
    rest: bytes

    @property
    def size(self) -> int:
        return len(self.owner) + len(self.rest)


class Source(NamedTuple):
    """A zone, the canonical one in which targets live, and who hears what does not compile."""

    zone: Zone
    canonical: Zone
    problem: Callable[[str, str], None]


def soa_rr(zone: Zone, serial: int) -> RR:
    """The SOA of *zone* at *serial*."""
    numbers = (serial, zone.refresh, zone.retry, EXPIRE, NEGATIVE_TTL)
    rdata = b"".join(
        (
            to_wire(f"{zone.servers[0][0]}.{zone.apex}"),
            to_wire(f"hostmaster.{zone.apex}"),
            *(n.to_bytes(4, "big") for n in numbers),
        )
    )
    return _rr(zone.apex, query.SOA, NEGATIVE_TTL, rdata)


def apex_rrs(source: Source) -> Iterator[RR]:
    """What no change touches: the name servers and their addresses."""
    zone = source.zone
    for label, _ in zone.servers:
        yield _rr(zone.apex, query.NS, APEX_TTL, to_wire(f"{label}.{zone.apex}"))
    for label, _ in zone.servers:
        owner = to_wire(f"{label}.{zone.apex}")
        for qtype in _ADDRESSES:
            yield from _rrs([owner], apex_rrset(zone, AtServer(label), qtype), 0)


def _rrs(owners: Collection[bytes], rrset: Rrset | None, salt: int) -> list[RR]:
    """*rrset* at each of *owners*, as a question gets it."""
    if rrset is None:
        return []
    # What a question gets begins with a pointer to it.
    found = [record[2:] for record in records_of(rrset, salt)]
    return [RR(owner, rest) for owner in owners for rest in found]


def _rr(owner: str, qtype: int, ttl: int, rdata: bytes) -> RR:
    fixed = qtype.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big")
    return RR(to_wire(owner), fixed + len(rdata).to_bytes(2, "big") + rdata)


def service_rrs(
    source: Source, service: Service, unchanged: Collection[str] = frozenset()
) -> Iterator[RR]:
    """All records of *service*, save those at the names of the *unchanged* instances."""
    instances = service.instances
    salt = max((i.revision for i in instances.values()), default=0)
    for place, owners in _places(source.zone, service, unchanged):
        for qtype in _TYPES if isinstance(place, AtService | AtInstance) else (query.SRV,):
            try:
                rrset = service_rrset(source.canonical, service, place, qtype, MAX_RECORD_TTL)
                found = _rrs(owners, rrset, salt)
            except Exception as error:  # as when it is asked for: the others are sent
                source.problem(names.fold(service.name), f"not transferred: {error!r}")
                continue
            yield from found


def _places(
    zone: Zone, service: Service, unchanged: Collection[str]
) -> Iterator[tuple[Place, list[bytes]]]:
    """Every place that may have records, with its owner names."""
    # A name server has the name before a service of the same spelling.
    spelled = [form for form in _forms(service.name) if not zone.server(form)]
    apexes = [f"{form}.{zone.apex}" for form in spelled]
    yield AtService(), [to_wire(apex) for apex in apexes]
    ports = dict.fromkeys((p.name, p.protocol) for p in ports_of(service))
    for name, protocol in ports:
        yield AtPort(name, protocol), [to_wire(f"_{name}._{protocol}.{apex}") for apex in apexes]
    for protocol in dict.fromkeys(protocol for _, protocol in ports):
        # A service of 63 octets has no name of this kind.
        owners = [f"_{form}" for form in _forms(service.name) if len(form) < names.MAX_LABEL]
        yield (
            AtDefaultPort(protocol),
            [to_wire(f"{owner}._{protocol}.{zone.apex}") for owner in owners],
        )
    for instance in service.serving:
        if instance.id not in unchanged:
            forms = _forms(instance.registration.instance)
            yield AtInstance(instance.id), [to_wire(f"{f}.{a}") for a in apexes for f in forms]


def _forms(name: str) -> list[str]:
    """*name* with hyphens, and as it was registered if that is another."""
    return list(dict.fromkeys((names.fold(name), name.lower())))
