"""What a name below a service means: the grammar of owners, read from the right.

payments                          the service
pay-1.payments                    one of its instances
v2.version.eu-1.zone.payments     those with that version in that zone
eu-1.prefer.payments              all, those of that zone first
_http._tcp.                       before any of these: that port of theirs
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from registry import names
from registry.catalog import Service
from registry.model import Instance, Port

SELECTORS = ("tag", "version", "zone", "state")
PREFER = "prefer"

ALIAS = "service"
"""`<svc>.service.Z` is `<svc>.Z`, and so is all below it."""

MAX_SELECTORS = 8
"""Selectors in one name; names with more do not exist.  Whoever asks for every combination of a
service's values has an answer compiled for each."""

PROTOCOLS = ("tcp", "udp")


class Whom(NamedTuple):
    """Which instances of a service a name is about: those of whom everything here is true.

    `selectors` are (selector, folded value), each once and in order, so that one choice is
    written in one way; `prefer` is a zone whose instances come before the others.
    """

    instance: str = ""
    selectors: tuple[tuple[str, str], ...] = ()
    prefer: str = ""


EVERYONE = Whom()


@dataclass(frozen=True, slots=True)
class AtService:
    """`<svc>`, or some of it."""

    whom: Whom = EVERYONE


@dataclass(frozen=True, slots=True)
class AtPort:
    """`_<port>._<proto>.` before a service, some of it, or an instance."""

    port: str
    protocol: str
    whom: Whom = EVERYONE


@dataclass(frozen=True, slots=True)
class AtDefaultPort:
    """`_<svc>._<proto>`."""

    protocol: str


@dataclass(frozen=True, slots=True)
class AtInstance:
    """`<instance>.<svc>`."""

    id: str


@dataclass(frozen=True, slots=True)
class AtListed:
    """An instance as it is browsed to: `<instance>.<svc>` in one label before `_<port>._<proto>`
    (RFC 6763, section 4.1)."""

    id: str
    port: str
    protocol: str


@dataclass(frozen=True, slots=True)
class AtSubtype:
    """`_<svc>._sub._<port>._<proto>`: the service's instances, for browsing (RFC 6763, 7.1)."""

    port: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Between:
    """An empty non-terminal: no records of its own, some below (RFC 8020, section 3.1)."""

    whom: Whom = EVERYONE


Place = AtService | AtPort | AtDefaultPort | AtInstance | AtListed | AtSubtype | Between
"""Where in a service's part of the tree a name stands."""

_AT_SERVICE = AtService()


class Facets:
    """What names below a service can be about, gathered once a change, when it is asked."""

    __slots__ = ("_ports", "_service", "_values")

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ports: frozenset[tuple[str, str]] | None = None
        self._values: frozenset[tuple[str, str]] | None = None

    @property
    def ports(self) -> frozenset[tuple[str, str]]:
        """(name, protocol) of every port that an instance has, in whatever state."""
        if self._ports is None:
            self._ports = frozenset((p.name, p.protocol) for p in ports_of(self._service))
        return self._ports

    @property
    def protocols(self) -> frozenset[str]:
        return frozenset(protocol for _, protocol in self.ports)

    @property
    def values(self) -> frozenset[tuple[str, str]]:
        """(selector, value) of which some instance in DNS is one."""
        if self._values is None:
            self._values = frozenset(
                pair for instance in self._service.serving for pair in values_of(instance)
            )
        return self._values

    def has(self, values: Iterable[tuple[str, str]]) -> bool:
        """Whether each of *values* is one of some instance."""
        return all(value in self.values for value in values)


def values_of(instance: Instance) -> Iterator[tuple[str, str]]:
    """(selector, value as it stands in a label) of *instance*."""
    r = instance.registration
    yield from (("tag", value_label(tag)) for tag in r.tags)
    if r.version:
        yield "version", value_label(r.version)
    if r.zone:
        yield "zone", value_label(r.zone)
    yield "state", value_label(instance.state)


def value_label(value: str) -> str:
    """`v1.0.1` as one label: `v1-0-1`."""
    return names.fold(value).replace(".", "-")


def ports_of(service: Service) -> Iterator[Port]:
    """Every port that an instance has, in whatever state; of an empty service, its last one's."""
    for instance in service.instances.values():
        yield from instance.registration.ports
    if service.last is not None:
        yield from service.last.registration.ports


def place_in(service: Service, facets: Facets, labels: tuple[str, ...]) -> Place | None:
    """What *labels*, in lower case and without the service's own, mean below it; None: nothing.

    NXDOMAIN for a name denies all below it, so a name exists if anything below it does.  A value
    that nobody has makes a name like any other, without records.
    """
    whom = EVERYONE
    left = list(labels)
    while left:
        label = left.pop()
        if label.startswith("_"):
            return _at_port(service, facets, whom, left, label[1:])
        if label in SELECTORS or label == PREFER:
            if whom.instance or _is_full(whom, label):
                return None
            if not left:
                return Between(whom)
            whom = _narrowed(whom, label, names.fold(left.pop()))
            continue
        instance = service.instances.get(names.fold(label)) if whom is EVERYONE else None
        if instance is None or not instance.in_dns:
            return None
        whom = Whom(instance.id)
    if whom is EVERYONE:
        return _AT_SERVICE
    return AtInstance(whom.instance) if whom.instance else AtService(whom)


def _is_full(whom: Whom, label: str) -> bool:
    return bool(whom.prefer) if label == PREFER else len(whom.selectors) >= MAX_SELECTORS


def _narrowed(whom: Whom, label: str, value: str) -> Whom:
    if label == PREFER:
        return whom._replace(prefer=value)
    return whom._replace(selectors=tuple(sorted({*whom.selectors, (label, value)})))


def _at_port(
    service: Service, facets: Facets, whom: Whom, labels: list[str], protocol: str
) -> Place | None:
    """What stands before `_<protocol>`: nothing, or a port of that name."""
    ports = facets.ports
    if whom.instance:
        of_one = service.instances[whom.instance].registration.ports
        ports = frozenset((port.name, port.protocol) for port in of_one)
    match labels:
        case []:
            return Between(whom) if any(p == protocol for _, p in ports) else None
        case [port] if port.startswith("_") and (port[1:], protocol) in ports:
            return AtPort(port[1:], protocol, whom)
    return None


# --- the instances chosen --------------------------------------------------------------------

SUSPECT_PENALTY = 1000
"""Added to the priority of an instance whose lease is over but which is kept for a while, so
that it is used only where no other is left."""

MAX_PRIORITY = 65535


class Chosen(NamedTuple):
    """An instance that is answered, with its priority in this answer."""

    instance: Instance
    priority: int


def chosen(service: Service, whom: Whom) -> list[Chosen]:
    """The instances in DNS that *whom* means, in the order of their ids."""
    if whom.instance:
        instance = service.instances[whom.instance]
        return [Chosen(instance, priority_of(instance))]
    wanted = frozenset(whom.selectors)
    found = [
        Chosen(instance, priority_of(instance))
        for instance in service.serving
        if not wanted or wanted.issubset(values_of(instance))
    ]
    return _preferring(found, whom.prefer) if whom.prefer else found


def priority_of(instance: Instance) -> int:
    """Its priority in DNS: worse while it is suspect."""
    priority = instance.registration.priority
    return min(MAX_PRIORITY, priority + SUSPECT_PENALTY) if _is_suspect(instance) else priority


def _preferring(found: list[Chosen], zone: str) -> list[Chosen]:
    """Those of *zone* as they are, all others behind the last of them; suspects are no locals."""
    local = {
        c.instance.id
        for c in found
        if value_label(c.instance.registration.zone) == zone and not _is_suspect(c.instance)
    }
    behind = max((c.priority for c in found if c.instance.id in local), default=-1) + 1
    return [
        c if c.instance.id in local else c._replace(priority=min(MAX_PRIORITY, c.priority + behind))
        for c in found
    ]


def _is_suspect(instance: Instance) -> bool:
    return instance.state == "suspect"
