"""A zone as records: what a transfer carries, the same on every replica at the same serial.

Names are written in the form with hyphens, and also as the service or instance was first
registered where that differs.  TTLs are those of a dnsd whose store is there.

A copy has no names that depend on the question: several selectors in one, `prefer`, values that
nobody has, and what is below `<svc>.service` but ports.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from dnsd import query, texts
from dnsd.compiler import records_of
from dnsd.places import (
    ALIAS,
    EVERYONE,
    AtDefaultPort,
    AtInstance,
    AtListed,
    AtPort,
    AtService,
    AtSubtype,
    Facets,
    Place,
)
from dnsd.reverse import owner_of
from dnsd.served import ServedZone
from dnsd.shared import AtAddress, AtType, Fact, SharedPlace, owner_labels
from dnsd.zone import (
    APEX_TTL,
    EXPIRE,
    NEGATIVE_TTL,
    SHARED_TTL,
    Pointers,
    Rrset,
    Txt,
    Zone,
    fixed_set,
    is_listed,
    listed_label,
    service_rrset,
    subtype_pointers,
    to_wire,
)
from registry import names
from registry.catalog import Service
from registry.model import MAX_RECORD_TTL, Instance

Services = Mapping[str, Service]
"""Folded name → service; nobody changes one that stands here."""

_ADDRESSES = (query.A, query.AAAA)
_FIXED_TYPES = (*_ADDRESSES, query.TXT, query.PTR)


class RR(NamedTuple):
    """A record: its owner uncompressed, and the rest from its type on."""

    owner: bytes
    rest: bytes

    @property
    def size(self) -> int:
        return len(self.owner) + len(self.rest)


class Source(NamedTuple):
    """A zone, the canonical one in which targets live, and who hears what does not compile."""

    served: ServedZone
    canonical: Zone
    problem: Callable[[str, str], None]

    @property
    def zone(self) -> Zone:
        return self.served.zone


def soa_rr(zone: Zone, serial: int) -> RR:
    """The SOA of *zone* at *serial*."""
    numbers = (serial, zone.refresh, zone.retry, EXPIRE, NEGATIVE_TTL)
    rdata = b"".join(
        (
            to_wire(f"{zone.servers[0][0]}.{zone.servers_in}"),
            to_wire(f"hostmaster.{zone.servers_in}"),
            *(n.to_bytes(4, "big") for n in numbers),
        )
    )
    return _rr(zone.apex, query.SOA, NEGATIVE_TTL, rdata)


def fixed_rrs(source: Source) -> Iterator[RR]:
    """What no change touches: name servers, their addresses, and where to browse."""
    zone = source.zone
    for label, _ in zone.servers:
        yield _rr(zone.apex, query.NS, APEX_TTL, to_wire(f"{label}.{zone.servers_in}"))
    for before, place in source.served.own:
        owner = before + source.served.wire
        for qtype in _FIXED_TYPES:
            found = fixed_set(zone, place, qtype)
            if isinstance(found, Pointers):
                yield from _pointer_rrs([owner], found)
            else:
                yield from _rrs([owner], found, 0)


def revision_rr(source: Source, revision: int) -> Iterator[RR]:
    """The TXT of `catalog` at *revision*; a reverse zone has none."""
    if not source.zone.home:
        rrset = Rrset(query.TXT, SHARED_TTL, (Txt(texts.catalog_strings(revision)),))
        yield from _rrs([to_wire(f"catalog.{source.zone.apex}")], rrset, 0)


def is_of(source: Source, place: SharedPlace) -> bool:
    """Whether the zone has *place*."""
    if isinstance(place, AtAddress):
        return bool(source.served.reverse) and place.digits.startswith(source.served.reverse)
    return not source.served.reverse


def shared_rr(source: Source, fact: Fact) -> RR:
    """The record of a set to which many services add."""
    place, target = fact
    if isinstance(place, AtAddress):
        owner, data = to_wire(owner_of(place.digits)), target
    else:
        apex = source.served.wire
        owner = to_wire(".".join(owner_labels(place)))[:-1] + apex
        data = target + (owner if isinstance(place, AtType) else apex)
    return RR(owner, _rest(query.PTR, SHARED_TTL, data))


def _pointer_rrs(owners: Collection[bytes], pointers: Pointers) -> Iterator[RR]:
    for owner in owners:
        for target in pointers.targets:
            yield RR(owner, _rest(query.PTR, pointers.ttl, target + pointers.parent))


def _rrs(owners: Collection[bytes], rrset: Rrset | None, salt: int) -> list[RR]:
    """*rrset* at each of *owners*, as a question gets it."""
    if rrset is None:
        return []
    # What a question gets begins with a pointer to it.
    found = [record[2:] for record in records_of(rrset, salt)]
    return [RR(owner, rest) for owner in owners for rest in found]


def _rr(owner: str, qtype: int, ttl: int, rdata: bytes) -> RR:
    return RR(to_wire(owner), _rest(qtype, ttl, rdata))


def _rest(qtype: int, ttl: int, rdata: bytes) -> bytes:
    fixed = qtype.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big")
    return fixed + len(rdata).to_bytes(2, "big") + rdata


def service_rrs(
    source: Source, service: Service, unchanged: Collection[str] = frozenset()
) -> Iterator[RR]:
    """The records of *service* alone, save those at the names of the *unchanged* instances."""
    name = names.fold(service.name)
    if source.zone.home or name in source.served.taken:
        return
    salt = max((i.revision for i in service.instances.values()), default=0)
    for place, owners in _places(source.zone, service, unchanged):
        for qtype in _types_at(place):
            try:
                if isinstance(place, AtSubtype):
                    pointers = subtype_pointers(source.zone, service, place)
                    found = list(_pointer_rrs(owners, pointers))
                else:
                    rrset = service_rrset(source.canonical, service, place, qtype, MAX_RECORD_TTL)
                    found = _rrs(owners, rrset, salt)
            except Exception as error:  # as when it is asked for: the others are sent
                source.problem(name, f"not transferred: {error!r}")
                continue
            yield from found


def _types_at(place: Place) -> tuple[int, ...]:
    match place:
        case AtService(whom) if whom != EVERYONE:
            return (*_ADDRESSES, query.SRV)
        case AtService() | AtInstance():
            return (*_ADDRESSES, query.SRV, query.TXT)
        case AtListed():
            return (query.SRV, query.TXT)
        case AtSubtype():
            return (query.PTR,)
        case _:
            return (query.SRV,)


def _places(
    zone: Zone, service: Service, unchanged: Collection[str]
) -> Iterator[tuple[Place, list[bytes]]]:
    """Every place that may have records, with its owner names."""
    forms = _forms(service.name)
    apexes = [f"{form}.{zone.apex}" for form in forms]
    aliases = [f"{form}.{ALIAS}.{zone.apex}" for form in forms]
    # A service of 63 octets has no name that begins with `_`.
    marked = [f"_{form}" for form in forms if len(form) < names.MAX_LABEL]
    facets = Facets(service)
    ports = sorted(facets.ports)
    yield AtService(), _owners("", apexes + aliases)
    for name, protocol in ports:
        yield AtPort(name, protocol), _owners(f"_{name}._{protocol}.", apexes + aliases)
        subtypes = [f"{label}._sub._{name}._{protocol}.{zone.apex}" for label in marked]
        yield AtSubtype(name, protocol), _owners("", subtypes)
    for protocol in sorted(facets.protocols):
        yield AtDefaultPort(protocol), _owners("", [f"{m}._{protocol}.{zone.apex}" for m in marked])
    for selector, value in sorted(facets.values):
        whom = EVERYONE._replace(selectors=((selector, value),))
        yield AtService(whom), _owners(f"{value}.{selector}.", apexes)
        for name, protocol in ports:
            before = f"_{name}._{protocol}.{value}.{selector}."
            yield AtPort(name, protocol, whom), _owners(before, apexes)
    for instance in service.serving:
        if instance.id not in unchanged:
            yield from _places_of(zone, names.fold(service.name), instance, apexes)


def _places_of(
    zone: Zone, service: str, instance: Instance, apexes: list[str]
) -> Iterator[tuple[Place, list[bytes]]]:
    own = [f"{form}.{apex}" for apex in apexes for form in _forms(instance.registration.instance)]
    yield AtInstance(instance.id), _owners("", own)
    whom = EVERYONE._replace(instance=instance.id)
    for port in instance.registration.ports:
        before = f"_{port.name}._{port.protocol}."
        yield AtPort(port.name, port.protocol, whom), _owners(before, own)
        if is_listed(service, instance.id):
            type_ = to_wire(before + zone.apex)
            label = listed_label(service, instance.id)
            yield AtListed(instance.id, port.name, port.protocol), [label + type_]


def _owners(before: str, below: list[str]) -> list[bytes]:
    """The names that *before* makes of those *below*; what is too long for one nobody can ask."""
    room = query.MAX_QNAME - 1 - len(before)
    return [to_wire(before + name) for name in below if len(name) <= room]


def _forms(name: str) -> list[str]:
    """*name* with hyphens, and as it was registered if that is another."""
    return list(dict.fromkeys((names.fold(name), name.lower())))
