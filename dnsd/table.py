"""Every name that may be asked, and its answer: NODATA and NXDOMAIN are answers like others.

Answers are compiled at the first question after a change and kept until the next change of
their service, so that a thousand changes nobody asks about cost nothing.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dnsd import query, texts
from dnsd.compiler import (
    CompiledAnswer,
    compile_pointers,
    compile_rrset,
    without_glue,
)
from dnsd.places import (
    ALIAS,
    EVERYONE,
    PROTOCOLS,
    AtDefaultPort,
    AtListed,
    AtPort,
    AtService,
    AtSubtype,
    Between,
    Facets,
    Place,
    Whom,
    place_in,
)
from dnsd.query import Query
from dnsd.reverse import FULL, owner_of, read
from dnsd.served import ServedZone, before_apex
from dnsd.shared import (
    CATALOG,
    AtAddress,
    AtCatalog,
    AtType,
    AtTypes,
    Shared,
    SharedPlace,
    owner_labels,
)
from dnsd.zone import (
    SHARED_TTL,
    STALE_TTL,
    AtApex,
    Fixed,
    Listed,
    Pointers,
    Rrset,
    Txt,
    Zone,
    fixed_set,
    is_listed,
    listed_set,
    service_rrset,
    subtype_pointers,
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

MAX_NAMES = 65536
"""Names as they are spelled in questions that lead straight to their answer; when there are
more, all are forgotten."""

MAX_COMPILED = 96 << 20
"""Octets of compiled answers, roughly; of more, the groups that were asked first are forgotten.
SRV and A of 10,000 services with ten instances each take 67 MB."""

MAX_BROWSED = 64
"""Targets of a PTR answer beside which their SRV, TXT and addresses are sent: far more than a
datagram holds."""

SERVICE_TYPES = frozenset({query.A, query.AAAA, query.SRV, query.PTR, query.TXT, query.ANY})
"""Types that some name of a service may have: all others are NODATA without a look."""

CHOSEN_TYPES = frozenset({query.A, query.AAAA, query.SRV, query.ANY})
"""The same where a name chooses among the instances, or says which port."""

SERVFAIL = CompiledAnswer(query.SERVFAIL, False)


_Key = tuple[bytes, Place | Fixed | SharedPlace | None, int]
"""Apex, place (None: NODATA anywhere in the group), type."""


@dataclass(slots=True)
class _Group:
    """What was found out about a service since its last change, or about the whole zone."""

    answers: dict[_Key, CompiledAnswer] = field(default_factory=dict)
    names: list[tuple[bytes, int]] = field(default_factory=list)
    facets: Facets | None = None
    size: int = 0


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
        self.zones = sorted((ServedZone.of(z, zones) for z in zones), key=lambda z: -len(z.wire))
        self.state: State = state
        self.serial = bytearray(4)
        """Low 32 bits of the catalog's revision; the same object always, so it may be joined in."""
        self.revision = 0
        """The catalog's revision when it was last said to have changed."""
        self.taken = frozenset().union(*(z.taken for z in self.zones))
        self.shared = Shared(
            to_wire(zones[0].apex), [z.reverse for z in self.zones if z.reverse], self.taken
        )
        self._by_apex = {z.wire: z for z in self.zones}
        self._depths = sorted({z.labels for z in self.zones}, reverse=True)
        self._canonical = zones[0]
        self._catalog = catalog
        self._problem = problem
        self._groups: dict[str, _Group] = {}
        self._names: dict[tuple[bytes, int], CompiledAnswer] = {}
        self._size = 0
        self._indexed: Catalog | None = None
        self.reset(state)

    def __repr__(self) -> str:
        compiled = sum(len(group.answers) for group in self._groups.values())
        return f"<AnswerTable {self.state}, {compiled} answers of {len(self._groups)} groups>"

    def reset(self, state: State) -> None:
        """Forget every compiled answer: the catalog was replaced, or the state is another."""
        self.state = state
        self._groups.clear()
        self._names.clear()
        self._size = 0
        catalog = self._catalog()
        if catalog is not self._indexed:
            self._indexed = catalog
            self.shared.restart(catalog)
            self._say_taken(self.taken)
        self._take_serial(catalog)

    def invalidate(self, services: Collection[str]) -> None:
        """Forget the answers of *services* (folded names), and those that any change touches."""
        for name in (*services, ZONE_WIDE):
            if name in self._groups:
                self._forget(name)
        self.shared.touch(services)
        if not self.taken.isdisjoint(services):
            self._say_taken(self.taken.intersection(services))
        self._take_serial(self._catalog())

    def _forget(self, name: str) -> None:
        group = self._groups.pop(name)
        self._size -= group.size
        for spelled in group.names:
            self._names.pop(spelled, None)

    def _say_taken(self, services: Collection[str]) -> None:
        for name in services:
            if self._catalog().service(name) is not None:
                self._problem(name, "not answered: a name server or a zone has the name")

    def _take_serial(self, catalog: Catalog) -> None:
        self.revision = catalog.revision
        self.serial[:] = (catalog.revision & 0xFFFFFFFF).to_bytes(4, "big")

    def settle(self, most: int = -1) -> bool:
        """Bring the sets up to date to which many services add, for *most* of those that
        changed; whether that was all.  Whoever asks for them does it too."""
        return self.shared.settle(self._catalog(), most)

    def zone_of(self, asked: Query) -> ServedZone | None:
        """The deepest of our zones that holds the name; None when none does."""
        key, labels = asked.key, asked.labels
        for depth in self._depths:
            if depth <= len(labels):
                served = self._by_apex.get(key[labels[-depth] :])
                if served is not None:
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
                for group in self._groups.values():
                    group.names.clear()
            name = asked.key, asked.qtype
            self._names[name] = answer
            self._group(answer.group).names.append(name)
            while self._size > MAX_COMPILED:
                self._forget(next(iter(self._groups)))
        return answer

    def _group(self, name: str) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
        return group

    # --- from a name to a place -------------------------------------------------------------

    def _find(self, served: ServedZone, asked: Query) -> CompiledAnswer:
        depth = len(asked.labels) - served.labels
        before = asked.key[: asked.labels[depth]]
        fixed = served.fixed.get(before)
        if fixed is not None:
            return self._fixed(served, fixed, asked.qtype)
        if depth == 1:
            labels: tuple[str, ...] = (before[1:].decode("latin-1"),)
        else:
            labels = tuple([_label(before, at) for at in asked.labels[:depth]])
        if served.reverse:
            answer = self._address(served, labels, asked.qtype)
        else:
            answer = self._below(served, labels, asked.qtype)
        if answer is served.nxdomain and before in served.between:
            return self._nodata(served, ZONE_WIDE)
        return answer

    def _below(self, served: ServedZone, labels: tuple[str, ...], qtype: int) -> CompiledAnswer:
        """What the first zone and those like it have at *labels*."""
        top = labels[-1]
        if top.startswith("_"):
            return self._below_protocol(served, labels[:-1], top[1:], qtype)
        if top == ALIAS:
            if len(labels) == 1:
                exists = len(self._catalog()) > 0
                return self._nodata(served, ZONE_WIDE) if exists else served.nxdomain
            labels = labels[:-1]
            top = labels[-1]
        service = self._service_named(top)
        if service is None:
            return served.nxdomain
        name = names.fold(top)
        place = place_in(service, self._facets(name, service), labels[:-1])
        return self._service(served, name, service, place, qtype)

    def _service_named(self, label: str) -> Service | None:
        service = self._catalog().service(label)
        if service is not None and self.taken and names.fold(label) in self.taken:
            return None
        return service

    def _facets(self, name: str, service: Service) -> Facets:
        group = self._group(name)
        if group.facets is None:
            group.facets = Facets(service)
        return group.facets

    def _below_protocol(
        self, served: ServedZone, labels: tuple[str, ...], protocol: str, qtype: int
    ) -> CompiledAnswer:
        """`_tcp.Z`, `_<svc>._tcp.Z` and `_<port>._tcp.Z`, and what is browsed to below that."""
        if protocol not in PROTOCOLS:
            return served.nxdomain
        if not labels:
            self.settle()
            exists = self.shared.protocols[protocol] > 0
            return self._nodata(served, ZONE_WIDE) if exists else served.nxdomain
        if not labels[-1].startswith("_"):
            return served.nxdomain
        name = labels[-1][1:]
        if len(labels) == 1:
            return self._service_or_type(served, name, protocol, qtype)
        self.settle()
        if (name, protocol) not in self.shared.ports:
            return served.nxdomain
        return self._browsed(served, labels[:-1], name, protocol, qtype)

    def _service_or_type(
        self, served: ServedZone, name: str, protocol: str, qtype: int
    ) -> CompiledAnswer:
        """`_<name>._<protocol>.Z`: SRV where *name* is a service's, PTR where it is a port's."""
        service = self._service_named(name)
        if service is not None and protocol in self._facets(names.fold(name), service).protocols:
            place = AtDefaultPort(protocol)
            answer = self._service(served, names.fold(name), service, place, qtype)
            if qtype not in (query.PTR, query.ANY) or answer.soa is None:
                return answer
        self.settle()
        if (name, protocol) in self.shared.ports:
            if qtype in (query.PTR, query.ANY):
                return self._pointers(served, AtType(name, protocol), qtype)
        elif service is None or protocol not in self._facets(names.fold(name), service).protocols:
            return served.nxdomain
        return self._nodata(served, ZONE_WIDE)

    def _browsed(
        self, served: ServedZone, labels: tuple[str, ...], port: str, protocol: str, qtype: int
    ) -> CompiledAnswer:
        """What stands below a type: instances, and its subtypes, one for each service."""
        place: Place
        match labels:
            case ("_sub",):
                return self._nodata(served, ZONE_WIDE)
            case (first, "_sub") if first.startswith("_"):
                service, place = self._service_named(first[1:]), AtSubtype(port, protocol)
            case (label,):
                id, _, label = label.partition(".")
                service, id = self._service_named(label), names.fold(id)
                place = AtListed(id, port, protocol)
                if service is not None and not _serves(service, id, port, protocol):
                    return served.nxdomain
            case _:
                return served.nxdomain
        if service is None:
            return served.nxdomain
        name = names.fold(service.name)
        if (port, protocol) not in self._facets(name, service).ports:
            return served.nxdomain
        return self._service(served, name, service, place, qtype)

    def _address(self, served: ServedZone, labels: tuple[str, ...], qtype: int) -> CompiledAnswer:
        """A reverse name: that of an address, of a network with some, or nobody's."""
        digits = read(served.reverse, labels[::-1])
        if digits is None:
            return served.nxdomain
        self.settle()
        if len(digits) < FULL[digits[0]]:
            exists = self.shared.has_address_in(digits)
            return self._nodata(served, ZONE_WIDE) if exists else served.nxdomain
        if digits not in self.shared.sets.addresses:
            return served.nxdomain
        return self._pointers(served, AtAddress(digits), qtype)

    # --- from a place to an answer ----------------------------------------------------------

    def _fixed(
        self, served: ServedZone, place: Fixed | AtCatalog | AtTypes, qtype: int
    ) -> CompiledAnswer:
        if isinstance(place, AtCatalog | AtTypes):
            self.settle()
            return self._pointers(served, place, qtype)
        if isinstance(place, AtApex) and served.reverse and qtype in (query.PTR, query.ANY):
            # It may be the zone of a single address.
            self.settle()
            if served.reverse in self.shared.sets.addresses:
                return self._pointers(served, AtAddress(served.reverse), qtype)
        answers = self._group(ZONE_WIDE).answers
        key = served.wire, place, qtype
        if (answer := answers.get(key)) is None:
            found = fixed_set(served.zone, place, qtype)
            if found is None:
                return self._nodata(served, ZONE_WIDE)
            if isinstance(found, Pointers):
                answer = compile_pointers(found, ZONE_WIDE)
            else:
                answer = compile_rrset(found, ZONE_WIDE, served.soa, 0)
            self._keep(ZONE_WIDE, key, answer)
        return answer

    def _pointers(self, served: ServedZone, place: SharedPlace, qtype: int) -> CompiledAnswer:
        """The answer at a name to which many services add; what changed is settled."""
        if qtype == query.TXT and place == CATALOG:
            return self._revision(served)
        targets = self.shared.sets.shown(place) if qtype in (query.PTR, query.ANY) else ()
        if not targets:
            if qtype == query.ANY and place == CATALOG:
                return self._revision(served)
            return self._nodata(served, ZONE_WIDE)
        answers = self._group(ZONE_WIDE).answers
        key = served.wire, place, qtype
        if (answer := answers.get(key)) is None:
            answer = compile_pointers(self._pointers_at(served, place, targets), ZONE_WIDE)
            left_out = self.shared.sets.count(place) - len(targets)
            if left_out:
                self._problem(_shown(place), f"{left_out} records do not fit one message")
                answer = replace(answer, left_out=left_out)
            if qtype == query.ANY:
                answer = without_glue(answer)
            self._keep(ZONE_WIDE, key, answer)
        return answer

    def _pointers_at(
        self, served: ServedZone, place: SharedPlace, targets: tuple[bytes, ...]
    ) -> Pointers:
        match place:
            case AtAddress():
                return Pointers(SHARED_TTL, targets, b"", None)
            case AtCatalog() | AtTypes():
                at = len(before_apex(owner_labels(place)))
                return Pointers(SHARED_TTL, targets, served.wire, at)
            case AtType(port, protocol):
                parent = before_apex(owner_labels(place)) + served.wire
                return self._with_listed(Pointers(SHARED_TTL, targets, parent, 0), port, protocol)

    def _revision(self, served: ServedZone) -> CompiledAnswer:
        key = served.wire, CATALOG, query.TXT
        answer = self._group(ZONE_WIDE).answers.get(key)
        if answer is None:
            rrset = Rrset(query.TXT, SHARED_TTL, (Txt(texts.catalog_strings(self.revision)),))
            answer = compile_rrset(rrset, ZONE_WIDE, served.soa, 0)
            self._keep(ZONE_WIDE, key, answer)
        return answer

    def _with_listed(self, pointers: Pointers, port: str, protocol: str) -> Pointers:
        """*pointers* with what stands at each target, unless there are many."""
        if not 0 < len(pointers.targets) <= MAX_BROWSED:
            return pointers
        listed: list[Listed] = []
        for target in pointers.targets:
            id, _, name = _label(target, 0).partition(".")
            service = self._service_named(name)
            found = None if service is None else self._listed(service, id, port, protocol)
            if found is None:
                return pointers
            listed.append(found)
        return replace(pointers, listed=tuple(listed))

    def _listed(self, service: Service, id: str, port: str, protocol: str) -> Listed | None:
        try:
            return listed_set(self._canonical, service, id, port, protocol, self._max_ttl)
        except Exception:  # asked for itself it is SERVFAIL; here it is left out
            return None

    @property
    def _max_ttl(self) -> int:
        return MAX_RECORD_TTL if self.state == "fresh" else STALE_TTL

    def _service(
        self, served: ServedZone, group: str, service: Service, place: Place | None, qtype: int
    ) -> CompiledAnswer:
        if place is None:
            return served.nxdomain
        keeps, keeps_nodata, types = True, True, SERVICE_TYPES
        if isinstance(place, AtService | AtPort | Between) and place.whom is not EVERYONE:
            # Any label may stand for a value: nothing is kept of those that say nothing.
            whom, facets, types = place.whom, self._facets(group, service), CHOSEN_TYPES
            if not facets.has(whom.selectors):
                return served.nodata
            keeps_nodata = not whom.selectors
            if whom.prefer and not facets.has((("zone", whom.prefer),)):
                place, keeps, keeps_nodata = replace(place, whom=_anywhere(whom)), False, False
        answer = None
        if not isinstance(place, Between) and qtype in types:
            answer = self._compiled(served, group, service, place, qtype)
        if answer is None:
            return self._nodata(served, group) if keeps_nodata else served.nodata
        return answer if keeps else replace(answer, group=None)

    def _compiled(
        self, served: ServedZone, group: str, service: Service, place: Place, qtype: int
    ) -> CompiledAnswer | None:
        key = served.wire, place, qtype
        answer = self._group(group).answers.get(key)
        if answer is None:
            answer = self._compile(served, group, service, place, qtype)
            if answer is not None:
                self._keep(group, key, answer)
        return answer

    def _compile(
        self, served: ServedZone, group: str, service: Service, place: Place, qtype: int
    ) -> CompiledAnswer | None:
        """The answer, None for NODATA.  What cannot be compiled takes no other service with it."""
        try:
            if isinstance(place, AtSubtype) and qtype in (query.PTR, query.ANY):
                pointers = self._subtype(served, service, place)
                return None if pointers is None else compile_pointers(pointers, group)
            rrset = service_rrset(self._canonical, service, place, qtype, self._max_ttl)
            if rrset is None:
                return None
            salt = max(i.revision for i in service.instances.values())
            answer = compile_rrset(rrset, group, served.soa, salt, service.answers)
        except Exception as error:  # whatever stands in the store, the others must be served
            self._problem(group, f"not compiled: {error!r}")
            return SERVFAIL
        if answer.left_out:
            self._problem(group, f"{answer.left_out} records do not fit one message")
        return without_glue(answer) if qtype == query.ANY else answer

    def _subtype(self, served: ServedZone, service: Service, place: AtSubtype) -> Pointers | None:
        pointers = subtype_pointers(served.zone, service, place)
        if not pointers.targets:
            return None
        return self._with_listed(pointers, place.port, place.protocol)

    def _nodata(self, served: ServedZone, group: str) -> CompiledAnswer:
        answers = self._group(group).answers
        key: _Key = (served.wire, None, 0)
        if (answer := answers.get(key)) is None:
            answer = answers[key] = replace(served.nodata, group=group)
        return answer

    def _keep(self, name: str, key: _Key, answer: CompiledAnswer) -> None:
        group = self._group(name)
        group.answers[key] = answer
        cost = _cost(answer)
        group.size += cost
        self._size += cost


def _cost(answer: CompiledAnswer) -> int:
    """Octets that an answer takes in memory, roughly: measured on lists of small objects."""
    glues = sum(map(len, (answer.glue, *answer.further)))
    return 500 + 60 * len(answer.records) + 350 * glues + answer.size + answer.glue_size


def _anywhere(whom: Whom) -> Whom:
    return whom._replace(prefer="")


def _serves(service: Service, id: str, port: str, protocol: str) -> bool:
    """Whether somebody can browse to that port of the instance."""
    instance = service.instances.get(id)
    return (
        instance is not None
        and instance.in_dns
        and is_listed(names.fold(service.name), id)
        and any((p.name, p.protocol) == (port, protocol) for p in instance.registration.ports)
    )


def _shown(place: SharedPlace) -> str:
    """*place* as a name in the log."""
    match place:
        case AtAddress(digits):
            return owner_of(digits)
        case _:
            return ".".join(owner_labels(place))


def _label(name: bytes, at: int) -> str:
    """The label at *at*, octet for octet."""
    return name[at + 1 : at + 1 + name[at]].decode("latin-1")
