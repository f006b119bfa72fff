"""Every name that may be asked, and its answer: NODATA and NXDOMAIN are answers like others.

Answers are compiled at the first question after a change and kept until the next change of
their service, so that a thousand changes nobody asks about cost nothing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dnsd import query
from dnsd.compiler import (
    CompiledAnswer,
    SoaRecord,
    compile_rrset,
    compile_soa,
    without_glue,
)
from dnsd.query import Query
from dnsd.zone import (
    MAX_ZONE,
    PROTOCOLS,
    STALE_TTL,
    AtApex,
    AtServer,
    Between,
    Place,
    Zone,
    apex_rrset,
    default_place,
    place_in,
    ports_of,
    service_rrset,
    to_wire,
)
from registry import names
from registry.catalog import Catalog, Service
from registry.model import MAX_RECORD_TTL

State = Literal["loading", "fresh", "away", "stale"]
"""`loading`: nothing known yet; `away`: known, but the store cannot be asked; `stale`: the same
for longer than a bound, which answers then say."""

ZONE_WIDE = ""
"""The group of answers that any change may touch."""

MAX_DEPTH = 3
"""Labels that a name of ours has below its apex: `_port._proto.<svc>`."""

MAX_NAMES = 65536
"""Names as they are spelled in questions that lead straight to their answer; when there are
more, all are forgotten."""

SERVICE_TYPES = frozenset({query.A, query.AAAA, query.SRV, query.TXT, query.ANY})
"""Types that some name of a service may have: all others are NODATA without a look."""

SERVFAIL = CompiledAnswer(query.SERVFAIL, False)


@dataclass(frozen=True, slots=True)
class ServedZone:
    """A zone with all of it that no change touches."""

    zone: Zone
    wire: bytes
    labels: int
    soa: SoaRecord
    nxdomain: CompiledAnswer

    @classmethod
    def of(cls, zone: Zone) -> "ServedZone":
        """ValueError when the apex leaves no room for names, or nobody serves it."""
        wire = to_wire(zone.apex)
        if len(wire) > MAX_ZONE:
            raise ValueError(f"{zone.apex} has {len(wire)} octets; at most {MAX_ZONE}")
        if not zone.servers:
            raise ValueError(f"{zone.apex} has no name server")
        soa = compile_soa(zone)
        nxdomain = CompiledAnswer(query.NXDOMAIN, True, soa=soa)
        return cls(zone, wire, len(zone.apex.split(".")), soa, nxdomain)


_Key = tuple[bytes, Place | AtApex | AtServer | None, int]
"""Apex, place (None: NODATA anywhere in the group), type."""


@dataclass(slots=True)
class _Protocols:
    """How many services have a port of which protocol; brought up to date when asked."""

    dirty: set[str] = field(default_factory=set)
    known: dict[str, frozenset[str]] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)

    def settle(self, catalog: Catalog) -> None:
        while self.dirty:
            name = self.dirty.pop()
            service = catalog.service(name)
            ports = () if service is None else ports_of(service)
            new = frozenset(port.protocol for port in ports)
            old = self.known.pop(name, frozenset())
            self.count.subtract(old)
            self.count.update(new)
            if new:
                self.known[name] = new


class AnswerTable:
    """Answers for *zones* from what *catalog* gives; the first zone is the canonical one.

    Whoever changes the catalog calls `invalidate` or `reset` before the next look-up.
    *problem* hears of what could not be compiled or did not fit: (service, what).
    """

    def __init__(
        self,
        zones: Sequence[Zone],
        catalog: Callable[[], Catalog],
        *,
        state: State = "loading",
        problem: Callable[[str, str], None] = lambda service, what: None,
    ) -> None:
        self.zones = sorted(map(ServedZone.of, zones), key=lambda z: -len(z.wire))
        self.state: State = state
        self.serial = bytearray(4)
        """Low 32 bits of the catalog's revision; the same object always, so it may be joined in."""
        self.revision = 0
        """The catalog's revision when it was last said to have changed."""
        self._canonical = zones[0]
        self._catalog = catalog
        self._problem = problem
        self._answers: dict[str, dict[_Key, CompiledAnswer]] = {}
        self._names: dict[tuple[bytes, int], CompiledAnswer] = {}
        self._names_of: dict[str, list[tuple[bytes, int]]] = {}
        self._protocols = _Protocols()
        self.reset(state)

    def __repr__(self) -> str:
        compiled = sum(map(len, self._answers.values()))
        return f"<AnswerTable {self.state}, {compiled} answers of {len(self._answers)} groups>"

    def reset(self, state: State) -> None:
        """Forget every compiled answer: the catalog was replaced, or the state is another."""
        self.state = state
        self._answers.clear()
        self._names.clear()
        self._names_of.clear()
        catalog = self._catalog()
        self._protocols.dirty.update(self._protocols.known)
        self._protocols.dirty.update(name for name, _ in catalog.services())
        self._take_serial(catalog)

    def invalidate(self, services: Collection[str]) -> None:
        """Forget the answers of *services* (folded names), and those that any change touches."""
        for group in (*services, ZONE_WIDE):
            self._answers.pop(group, None)
            for name in self._names_of.pop(group, ()):
                self._names.pop(name, None)
        self._protocols.dirty.update(services)
        self._take_serial(self._catalog())

    def _take_serial(self, catalog: Catalog) -> None:
        self.revision = catalog.revision
        self.serial[:] = (catalog.revision & 0xFFFFFFFF).to_bytes(4, "big")

    def zone_of(self, asked: Query) -> ServedZone | None:
        """The deepest of our zones that holds the name; None when none does."""
        key = asked.key
        for served in self.zones:
            # Octets may look alike within a label: the apex must begin at one.
            if key.endswith(served.wire) and len(key) - len(served.wire) in asked.labels:
                return served
        return None

    def known(self, asked: Query) -> CompiledAnswer | None:
        """The answer to *asked* if the same was looked up since the last change; else None."""
        return self._names.get((asked.key, asked.qtype))

    def lookup(self, served: ServedZone, asked: Query) -> CompiledAnswer:
        """The answer to *asked*, whose name lies in *served*.  Total."""
        answer = self._find(served, asked)
        if answer.group is not None:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
                self._names_of.clear()
            name = asked.key, asked.qtype
            self._names[name] = answer
            self._names_of.setdefault(answer.group, []).append(name)
        return answer

    def _find(self, served: ServedZone, asked: Query) -> CompiledAnswer:
        depth = len(asked.labels) - served.labels
        if depth == 0:
            return self._apex(served, AtApex(), asked.qtype)
        if depth > MAX_DEPTH:
            return served.nxdomain
        key = asked.key
        top = _label(key, asked.labels[depth - 1])
        if served.zone.server(top):
            return self._apex(served, AtServer(top), asked.qtype) if depth == 1 else served.nxdomain
        if top.startswith("_"):
            labels = [_label(key, at) for at in asked.labels[: depth - 1]]
            return self._below_protocol(served, labels, top[1:], asked.qtype)
        service = self._catalog().service(top)
        if service is None:
            return served.nxdomain
        place = place_in(service, tuple(_label(key, at) for at in asked.labels[: depth - 1]))
        return self._service(served, names.fold(top), service, place, asked.qtype)

    def _below_protocol(
        self, served: ServedZone, labels: list[str], protocol: str, qtype: int
    ) -> CompiledAnswer:
        """`_tcp.Z` and `_<svc>._tcp.Z`."""
        if protocol not in PROTOCOLS or len(labels) > 1:
            return served.nxdomain
        catalog = self._catalog()
        if not labels:
            self._protocols.settle(catalog)
            exists = self._protocols.count[protocol] > 0
            return self._nodata(served, ZONE_WIDE) if exists else served.nxdomain
        (label,) = labels
        service = catalog.service(label[1:]) if label.startswith("_") else None
        if service is None:
            return served.nxdomain
        place = default_place(service, protocol)
        return self._service(served, names.fold(label[1:]), service, place, qtype)

    def _apex(self, served: ServedZone, place: AtApex | AtServer, qtype: int) -> CompiledAnswer:
        answers = self._answers.setdefault(ZONE_WIDE, {})
        key = served.wire, place, qtype
        if (answer := answers.get(key)) is None:
            rrset = apex_rrset(served.zone, place, qtype)
            if rrset is None:
                return self._nodata(served, ZONE_WIDE)
            answer = answers[key] = compile_rrset(rrset, ZONE_WIDE, served.soa, 0)
        return answer

    def _service(
        self, served: ServedZone, group: str, service: Service, place: Place | None, qtype: int
    ) -> CompiledAnswer:
        if place is None:
            return served.nxdomain
        if isinstance(place, Between) or qtype not in SERVICE_TYPES:
            return self._nodata(served, group)
        answers = self._answers.setdefault(group, {})
        key = served.wire, place, qtype
        if (answer := answers.get(key)) is None:
            answer = self._compile(served, group, service, place, qtype)
            if answer is None:
                return self._nodata(served, group)
            answers[key] = answer
        return answer

    def _compile(
        self, served: ServedZone, group: str, service: Service, place: Place, qtype: int
    ) -> CompiledAnswer | None:
        """The answer, None for NODATA.  What cannot be compiled takes no other service with it."""
        max_ttl = MAX_RECORD_TTL if self.state == "fresh" else STALE_TTL
        try:
            rrset = service_rrset(self._canonical, service, place, qtype, max_ttl)
            if rrset is None:
                return None
            salt = max(i.revision for i in service.instances.values())
            answer = compile_rrset(rrset, group, served.soa, salt)
        except Exception as error:  # whatever stands in the store, the others must be served
            self._problem(group, f"not compiled: {error!r}")
            return SERVFAIL
        if answer.left_out:
            self._problem(group, f"{answer.left_out} records do not fit one message")
        return without_glue(answer) if qtype == query.ANY else answer

    def _nodata(self, served: ServedZone, group: str) -> CompiledAnswer:
        answers = self._answers.setdefault(group, {})
        key: _Key = (served.wire, None, 0)
        if (answer := answers.get(key)) is None:
            answer = CompiledAnswer(query.NOERROR, True, group, soa=served.soa)
            answers[key] = answer
        return answer


def _label(name: bytes, at: int) -> str:
    """The label at *at*, octet for octet."""
    return name[at + 1 : at + 1 + name[at]].decode("latin-1")
