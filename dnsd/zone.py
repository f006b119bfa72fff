"""A zone as data: its apex and fixed names, and which records a service's instances imply.

Records are values here, names are text; compiler.py makes octets of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dnsd import query, texts
from dnsd.places import (
    EVERYONE,
    AtDefaultPort,
    AtInstance,
    AtListed,
    AtPort,
    AtService,
    AtSubtype,
    Chosen,
    Place,
    chosen,
)
from registry import names
from registry.catalog import Service
from registry.model import Port, default_port

NEGATIVE_TTL = 5
"""Seconds that "no such name" or "no such type" may be kept: so that a recovery is seen as soon
as a loss.  0 would forbid keeping it at all (RFC 2308, section 5)."""

APEX_TTL = 60
"""Seconds for name servers and other fixed names, which no change of a service touches."""

SHARED_TTL = 5
"""Seconds for sets to which many services add their own: one for all, because the records of a
set have one TTL (RFC 2181, section 5.2) and no instance may set that of the others."""

REFRESH, RETRY, EXPIRE = 3600, 600, 86400
"""For secondaries (RFC 1912, section 2.2)."""

NOTIFIED_REFRESH, NOTIFIED_RETRY = 60, 15
"""For secondaries that are told of changes: what bounds a change whose telling got lost."""

STALE_TTL = 30
"""The most a record lives while the store is away (RFC 8767, section 4)."""

MAX_ZONE = 127
"""Octets of an apex on the wire: leaves room for the two longest labels before it."""


@dataclass(frozen=True, slots=True)
class Zone:
    """What we are authoritative for: the apex, dot and all, and (label, addresses) of servers.

    `refresh` and `retry` are for secondaries, in seconds.  `home` is there for a reverse zone:
    the zone of the instances' names, in which its name servers are too.
    """

    apex: str
    servers: tuple[tuple[str, tuple[str, ...]], ...]
    refresh: int = REFRESH
    retry: int = RETRY
    home: str = ""

    @property
    def servers_in(self) -> str:
        """The apex below which its name servers are."""
        return self.home or self.apex

    def server(self, label: str) -> tuple[str, ...]:
        """The addresses of the name server *label* of this zone; empty when there is none."""
        if self.home:
            return ()
        return next((addresses for name, addresses in self.servers if name == label), ())


def to_wire(name: str) -> bytes:
    """*name*, dotted and with its final dot, as labels; ValueError when it is no name."""
    labels = name.removesuffix(".").encode("ascii").split(b".") if name != "." else []
    return labels_to_wire(labels)


def labels_to_wire(labels: Sequence[bytes]) -> bytes:
    """A name of these labels, which may hold dots; ValueError when it is no name."""
    shown = b".".join(labels)[:80]
    if not all(0 < len(label) <= names.MAX_LABEL for label in labels):
        raise ValueError(f"{shown!r} has a label of 0 or more than {names.MAX_LABEL} octets")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > query.MAX_QNAME:
        raise ValueError(f"{shown!r} has more than {query.MAX_QNAME} octets")
    return wire


# --- records ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """An A or AAAA record; `weight` is for the order, not for the wire."""

    address: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Srv:
    """An SRV record with its target's addresses, which go into the additional section."""

    priority: int
    weight: int
    port: int
    target: str
    addresses: tuple[str, ...]
    addresses_ttl: int


@dataclass(frozen=True, slots=True)
class Txt:
    """A TXT record."""

    strings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Ns:
    """A name server: its label, its addresses, and the zone it is in where that is another."""

    label: str
    addresses: tuple[str, ...]
    home: str = ""


@dataclass(frozen=True, slots=True)
class Soa:
    """The start of authority; its serial is set when it is sent."""


Record = Address | Srv | Txt | Ns | Soa


@dataclass(frozen=True, slots=True)
class Rrset:
    """All records of one type at one name."""

    qtype: int
    ttl: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """What stands at a name that somebody browses to."""

    srv: Rrset
    txt: Rrset


@dataclass(frozen=True, slots=True)
class Pointers:
    """All PTR records at one name: labels on the wire, which `parent` follows.

    `parent_at` is where in a question for the name the parent stands; None where it does not.
    `listed` is what stands at each target, for the additional section.
    """

    ttl: int
    targets: tuple[bytes, ...]
    parent: bytes
    parent_at: int | None
    listed: tuple[Listed, ...] = ()


ANY_ORDER = (query.A, query.AAAA, query.SRV, query.PTR, query.SOA, query.TXT)
"""Which set stands for all when ANY is asked: the first there is (RFC 8482, section 4.1)."""


# --- fixed names -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AtApex:
    """The apex itself."""


@dataclass(frozen=True, slots=True)
class AtServer:
    """A name server of the zone."""

    label: str


@dataclass(frozen=True, slots=True)
class AtVersion:
    """`dns-version`: of the names that a zone has, as in Kubernetes."""


@dataclass(frozen=True, slots=True)
class AtBrowse:
    """`b._dns-sd._udp` and `lb._dns-sd._udp`: where to browse (RFC 6763, section 11).

    `labels` are those before the apex, on the wire.
    """

    labels: bytes


Fixed = AtApex | AtServer | AtVersion | AtBrowse
"""Names that no change of a service touches."""

BROWSING = ("b", "lb")
NOT_BROWSING = ("db", "r", "dr")
"""Further names of RFC 6763, section 11: they exist, without records."""


def fixed_set(zone: Zone, place: Fixed, qtype: int) -> Rrset | Pointers | None:
    """The records at a fixed name; None when there are none of that type."""
    if qtype == query.ANY:
        found = (fixed_set(zone, place, t) for t in ANY_ORDER)
        return next((rrset for rrset in found if rrset is not None), None)
    records: tuple[Record, ...] = ()
    match place, qtype:
        case AtApex(), query.SOA:
            return Rrset(query.SOA, NEGATIVE_TTL, (Soa(),))
        case AtApex(), query.NS:
            records = tuple(Ns(label, found, zone.home) for label, found in zone.servers)
        case AtApex(), query.TXT if not zone.home:
            records = (Txt(texts.apex_strings(zone.apex)),)
        case AtServer(label), query.A | query.AAAA:
            records = tuple(map(Address, of_family(zone.server(label), qtype)))
        case AtVersion(), query.TXT:
            records = (Txt((texts.SCHEMA_VERSION.encode(),)),)
        case AtBrowse(labels), query.PTR:
            at = None if zone.home else len(labels)
            return Pointers(APEX_TTL, (b"",), to_wire(zone.servers_in), at)
    return Rrset(qtype, APEX_TTL, records) if records else None


# --- what a service implies --------------------------------------------------------------------


def service_rrset(
    zone: Zone, service: Service, place: Place, qtype: int, max_ttl: int
) -> Rrset | None:
    """The records of *service* at *place* but PTR; None when there are none of that type.

    *zone* is the canonical one, in which targets live, whatever zone was asked.
    """
    if qtype == query.ANY:
        found = (service_rrset(zone, service, place, t, max_ttl) for t in ANY_ORDER)
        return next((rrset for rrset in found if rrset is not None), None)
    picks = _picks(service, place)
    if not picks:
        return None
    ttl = min(max_ttl, *(pick.instance.registration.record_ttl for pick in picks))
    records: list[Record] = []
    match place, qtype:
        case AtService() | AtInstance(), query.A | query.AAAA:
            records.extend(_addresses(picks, qtype))
        case AtService(whom), query.TXT if whom == EVERYONE:
            records.append(Txt(texts.service_strings(service)))
        case AtInstance() | AtListed(), query.TXT:
            records.append(Txt(texts.instance_strings(picks[0].instance)))
        case AtSubtype(), _:
            pass
        case _, query.SRV:
            records.extend(_services(zone, place, picks, max_ttl))
    return Rrset(qtype, ttl, tuple(records)) if records else None


def _picks(service: Service, place: Place) -> list[Chosen]:
    match place:
        case AtService(whom) | AtPort(_, _, whom):
            return chosen(service, whom)
        case AtInstance(id) | AtListed(id):
            return chosen(service, EVERYONE._replace(instance=id))
        case _:
            return chosen(service, EVERYONE)


def subtype_pointers(zone: Zone, service: Service, place: AtSubtype) -> Pointers:
    """The instances of *service* that can be browsed to at *place* of *zone*."""
    name = names.fold(service.name)
    ids = [
        instance.id
        for instance in service.serving
        if _has_port(instance.registration.ports, place.port, place.protocol)
        and is_listed(name, instance.id)
    ]
    parent = to_wire(f"_{place.port}._{place.protocol}.{zone.apex}")
    targets = tuple(listed_label(name, id) for id in ids)
    before = 1 + 1 + len(name) + 1 + len("_sub")
    return Pointers(SHARED_TTL, targets, parent, before)


def listed_set(
    zone: Zone, service: Service, id: str, port: str, protocol: str, max_ttl: int
) -> Listed | None:
    """What stands where an instance is browsed to; None when there is no such instance."""
    place = AtListed(id, port, protocol)
    srv = service_rrset(zone, service, place, query.SRV, max_ttl)
    txt = service_rrset(zone, service, place, query.TXT, max_ttl)
    return Listed(srv, txt) if srv is not None and txt is not None else None


def is_listed(service: str, id: str) -> bool:
    """Whether the instance has a name to be browsed to by: it must fit one label."""
    return len(id) + 1 + len(service) <= names.MAX_LABEL


def listed_label(service: str, id: str) -> bytes:
    """That label on the wire: unique, because ids are so for each service."""
    label = f"{id}.{service}".encode("ascii")
    return bytes((len(label),)) + label


def of_family(addresses: tuple[str, ...], qtype: int) -> list[str]:
    """Those of *addresses* that a record of that type can hold."""
    return [a for a in addresses if (":" in a) == (qtype == query.AAAA)]


def _addresses(picks: list[Chosen], qtype: int) -> Iterator[Address]:
    """Those of the lowest priority present; of instances on one address the weights are added."""
    best = min(pick.priority for pick in picks)
    weights: dict[str, int] = {}
    for instance, priority in picks:
        if priority == best:
            for address in of_family(instance.addresses, qtype):
                weights[address] = weights.get(address, 0) + instance.registration.weight
    return (Address(address, weight) for address, weight in weights.items())


def _services(zone: Zone, place: Place, picks: list[Chosen], max_ttl: int) -> Iterator[Srv]:
    for instance, priority in picks:
        r = instance.registration
        port = _port_at(place, r.ports)
        if port is not None:
            yield Srv(
                priority,
                r.weight,
                port,
                names.instance_owner(instance.id, instance.service, zone.apex),
                instance.addresses,
                min(max_ttl, r.record_ttl),
            )


def _port_at(place: Place, ports: tuple[Port, ...]) -> int | None:
    match place:
        case AtPort(name, protocol) | AtListed(_, name, protocol):
            return next((p.number for p in ports if (p.name, p.protocol) == (name, protocol)), None)
        case AtDefaultPort(protocol):
            if not any(p.protocol == protocol for p in ports):
                return None
            return default_port(ports, protocol).number
        case _:
            return default_port(ports).number


def _has_port(ports: tuple[Port, ...], name: str, protocol: str) -> bool:
    return any((p.name, p.protocol) == (name, protocol) for p in ports)
