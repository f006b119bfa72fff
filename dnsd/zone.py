"""A zone as data: its apex and name servers, and which records a service's instances imply.

Records are values here, names are text; compiler.py makes octets of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dnsd import query
from registry import names
from registry.catalog import Service
from registry.model import Instance, Port, default_port

NEGATIVE_TTL = 5
"""Seconds that "no such name" or "no such type" may be kept: so that a recovery is seen as soon
as a loss.  0 would forbid keeping it at all (RFC 2308, section 5)."""

APEX_TTL = 60
"""Seconds for name servers and their addresses, which no change of a service touches."""

REFRESH, RETRY, EXPIRE = 3600, 600, 86400
"""For secondaries (RFC 1912, section 2.2)."""

NOTIFIED_REFRESH, NOTIFIED_RETRY = 60, 15
"""For secondaries that are told of changes: what bounds a change whose telling got lost."""

STALE_TTL = 30
"""The most a record lives while the store is away (RFC 8767, section 4)."""

SUSPECT_PENALTY = 1000
"""Added to the priority of an instance whose lease is over but which is kept for a while, so
that it is used only where no other is left."""

MAX_ZONE = 127
"""Octets of an apex on the wire: leaves room for the two longest labels before it."""

MAX_STRING = 255
"""Octets of one character-string of a TXT record (RFC 1035, section 3.3)."""

PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class Zone:
    """What we are authoritative for: the apex, dot and all, and (label, addresses) of servers.

    `refresh` and `retry` are for secondaries, in seconds.
    """

    apex: str
    servers: tuple[tuple[str, tuple[str, ...]], ...]
    refresh: int = REFRESH
    retry: int = RETRY

    def server(self, label: str) -> tuple[str, ...]:
        """The addresses of the name server *label*; empty when there is none."""
        return next((addresses for name, addresses in self.servers if name == label), ())


def to_wire(name: str) -> bytes:
    """*name*, dotted and with its final dot, as labels; ValueError when it is no name."""
    labels = name.removesuffix(".").encode("ascii").split(b".") if name != "." else []
    if not all(0 < len(label) <= names.MAX_LABEL for label in labels):
        raise ValueError(f"{name[:80]!r} has a label of 0 or more than {names.MAX_LABEL} octets")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > query.MAX_QNAME:
        raise ValueError(f"{name[:80]!r} has more than {query.MAX_QNAME} octets")
    return wire


# --- owners: what a name below an apex means ------------------------------------------------


@dataclass(frozen=True, slots=True)
class AtApex:
    """The apex itself."""


@dataclass(frozen=True, slots=True)
class AtServer:
    """A name server of the zone."""

    label: str


@dataclass(frozen=True, slots=True)
class AtService:
    """`<svc>`: all that serve."""


@dataclass(frozen=True, slots=True)
class AtPort:
    """`_<port>._<proto>.<svc>`."""

    port: str
    protocol: str


@dataclass(frozen=True, slots=True)
class AtDefaultPort:
    """`_<svc>._<proto>`."""

    protocol: str


@dataclass(frozen=True, slots=True)
class AtInstance:
    """`<instance>.<svc>`."""

    id: str


@dataclass(frozen=True, slots=True)
class Between:
    """An empty non-terminal: no records of its own, some below (RFC 8020, section 3.1)."""


Place = AtService | AtPort | AtDefaultPort | AtInstance | Between
"""Where in a service's part of the tree a name stands."""


def place_in(service: Service, labels: tuple[str, ...]) -> Place | None:
    """What *labels*, in lower case and without the service's own, mean below it; None: nothing.

    NXDOMAIN for a name denies all below it, so a name exists if anything below it does.
    """
    match labels:
        case ():
            return AtService()
        case (label,) if label.startswith("_"):
            return Between() if label[1:] in _protocols(service) else None
        case (label,):
            instance = service.instances.get(names.fold(label))
            return AtInstance(instance.id) if instance is not None and instance.in_dns else None
        case (port, protocol) if port.startswith("_") and protocol.startswith("_"):
            if any(p.name == port[1:] and p.protocol == protocol[1:] for p in ports_of(service)):
                return AtPort(port[1:], protocol[1:])
    return None


def default_place(service: Service, protocol: str) -> Place | None:
    """What `_<svc>._<protocol>` means; None when the service has no port of that protocol."""
    return AtDefaultPort(protocol) if protocol in _protocols(service) else None


def ports_of(service: Service) -> Iterator[Port]:
    """Every port that an instance has, in whatever state; of an empty service, its last one's."""
    for instance in service.instances.values():
        yield from instance.registration.ports
    if service.last is not None:
        yield from service.last.registration.ports


def _protocols(service: Service) -> Iterator[str]:
    return (port.protocol for port in ports_of(service))


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
    """A name server: its label below the apex, and its addresses."""

    label: str
    addresses: tuple[str, ...]


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


_ANY_ORDER = (query.A, query.AAAA, query.SRV, query.SOA, query.TXT)
"""Which set stands for all when ANY is asked: the first there is (RFC 8482, section 4.1)."""


def apex_rrset(zone: Zone, place: AtApex | AtServer, qtype: int) -> Rrset | None:
    """The records at the apex or a name server; None when there are none of that type."""
    if qtype == query.ANY:
        found = (apex_rrset(zone, place, t) for t in _ANY_ORDER)
        return next((rrset for rrset in found if rrset is not None), None)
    records: tuple[Record, ...] = ()
    match place, qtype:
        case AtApex(), query.SOA:
            return Rrset(query.SOA, NEGATIVE_TTL, (Soa(),))
        case AtApex(), query.NS:
            records = tuple(Ns(label, addresses) for label, addresses in zone.servers)
        case AtServer(label), query.A | query.AAAA:
            records = tuple(map(Address, of_family(zone.server(label), qtype)))
    return Rrset(qtype, APEX_TTL, records) if records else None


def service_rrset(
    zone: Zone, service: Service, place: Place, qtype: int, max_ttl: int
) -> Rrset | None:
    """The records of *service* at *place*; None when there are none of that type.

    *zone* is the canonical one, in which targets live, whatever zone was asked.
    """
    if qtype == query.ANY:
        found = (service_rrset(zone, service, place, t, max_ttl) for t in _ANY_ORDER)
        return next((rrset for rrset in found if rrset is not None), None)
    match place:
        case AtInstance(instance_id):
            instances = [service.instances[instance_id]]
        case _:
            instances = service.serving
    if not instances:
        return None
    ttl = min(max_ttl, *(i.registration.record_ttl for i in instances))
    records: list[Record] = []
    match place, qtype:
        case AtService() | AtInstance(), query.A | query.AAAA:
            records.extend(_addresses(instances, qtype))
        case AtService() | AtInstance(), query.TXT:
            records.extend(dict.fromkeys(Txt(_strings(i)) for i in instances))
        case AtService() | AtInstance() | AtDefaultPort() | AtPort(), query.SRV:
            records.extend(_services(zone, place, instances, max_ttl))
    return Rrset(qtype, ttl, tuple(records)) if records else None


def priority_of(instance: Instance) -> int:
    """Its priority in DNS: worse while it is suspect."""
    priority = instance.registration.priority
    return min(65535, priority + SUSPECT_PENALTY) if instance.state == "suspect" else priority


def of_family(addresses: tuple[str, ...], qtype: int) -> list[str]:
    """Those of *addresses* that a record of that type can hold."""
    return [a for a in addresses if (":" in a) == (qtype == query.AAAA)]


def _addresses(instances: list[Instance], qtype: int) -> Iterator[Address]:
    """Those of the lowest priority present; of instances on one address the weights are added."""
    best = min(map(priority_of, instances))
    weights: dict[str, int] = {}
    for instance in instances:
        if priority_of(instance) == best:
            for address in of_family(instance.addresses, qtype):
                weights[address] = weights.get(address, 0) + instance.registration.weight
    return (Address(address, weight) for address, weight in weights.items())


def _services(zone: Zone, place: Place, instances: list[Instance], max_ttl: int) -> Iterator[Srv]:
    for instance in instances:
        port = _port_at(place, instance.registration.ports)
        if port is not None:
            r = instance.registration
            yield Srv(
                priority_of(instance),
                r.weight,
                port,
                names.instance_owner(instance.id, instance.service, zone.apex),
                instance.addresses,
                min(max_ttl, r.record_ttl),
            )


def _port_at(place: Place, ports: tuple[Port, ...]) -> int | None:
    match place:
        case AtPort(name, protocol):
            return next((p.number for p in ports if (p.name, p.protocol) == (name, protocol)), None)
        case AtDefaultPort(protocol):
            if not any(p.protocol == protocol for p in ports):
                return None
            return default_port(ports, protocol).number
        case _:
            return default_port(ports).number


def _strings(instance: Instance) -> tuple[bytes, ...]:
    """`key=value` strings (RFC 6763, section 6.4): who it is, where, and its metadata.

    Ours come first, because the first of two equal keys counts; what does not fit one string,
    or has a key that could not be read back, is left out.
    """
    r = instance.registration
    pairs = [("svc", instance.service), ("id", instance.id)]
    pairs += [(k, v) for k, v in (("version", r.version), ("zone", r.zone)) if v]
    pairs += [("tags", ",".join(r.tags))] if r.tags else []
    pairs += [
        (key, value)
        for key, value in sorted(r.metadata.items())
        if key.isascii() and key.isprintable() and "=" not in key
    ]
    strings = (f"{key}={value}".encode() for key, value in pairs)
    return tuple(s for s in strings if len(s) <= MAX_STRING)
