"""Zone transfers: who gets one, of what, and the messages that it takes (RFC 5936, RFC 1995).

A transfer is an iterator of finished messages that makes them as they are wanted, from the
services as they were when it began; it pauses often, so that questions are not kept waiting.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import NamedTuple, TypeVar

from dnsd import query, reading
from dnsd.contents import (
    RR,
    Services,
    Source,
    fixed_rrs,
    is_of,
    revision_rr,
    service_rrs,
    shared_rr,
    soa_rr,
)
from dnsd.journal import HALF, SERIALS, Difference, Journal, distance
from dnsd.keyring import Key
from dnsd.query import HEADER, Query, Reject, limit_of
from dnsd.served import ServedZone
from dnsd.shared import Sets, Shared, Tally
from dnsd.table import AnswerTable
from dnsd.wire import MAX_POINTER, NOT_READY, PROHIBITED, opt_record, refuse
from dnsd.zone import Zone
from registry.catalog import Service

MAX_MESSAGE = 16384
"""Octets of one message of a transfer: so that compression pointers reach everywhere in it."""

SLICE = 64
"""Records between two pauses: about half a millisecond."""

MAX_DIFFERENCE = 4 << 20
"""Octets of a difference that is sent as one.  It is made before its first message leaves, and
whoever lacks more than this may as well have the zone."""

MAX_UDP_INSTANCES = 64
"""Of the services concerned, so that what cannot fit a datagram is not even begun."""

_QR, _AA = 0x80, 0x04

T = TypeVar("T")


class Denied(NamedTuple):
    """No transfer: the code to answer, and an extended one."""

    rcode: int
    ede: int | None = None


class Single(NamedTuple):
    """All of the answer in one message."""

    packet: bytes


def asked_serial(packet: bytes, asked: Query) -> int | None:
    """The serial that an IXFR query says it has; None where it does not say (RFC 1995, 3)."""
    try:
        for record in reading.records(packet):
            if record.section == reading.AUTHORITY:
                _, at = reading.read_name(packet, record.rdata)
                _, at = reading.read_name(packet, at)
                if (record.rtype, record.owner) != (query.SOA, asked.key) or at + 4 > record.end:
                    return None
                return int.from_bytes(packet[at : at + 4], "big")
    except ValueError:
        pass
    return None


class Packer:
    """Packs records into messages of at most *limit* octets, each with the question."""

    def __init__(self, asked: Query, limit: int) -> None:
        self._asked = asked
        self._limit = limit
        self._opt = opt_record(asked.edns, query.NOERROR, None)
        self._begin()

    def _begin(self) -> None:
        self._records: list[bytes] = []
        self._count = 0
        self._at = HEADER + len(self._asked.question)
        self._names: dict[bytes, bytes] = {}
        # RFC 5936, section 3.4: names keep their case, so the question is pointed at only
        # where it is spelled as the zone is.
        if self._asked.name == self._asked.key:
            for at in self._asked.labels[:-1]:
                self._names[self._asked.key[at:]] = _pointer(HEADER + at)

    @property
    def size(self) -> int:
        """Octets of the message if it ended here."""
        return self._at + len(self._opt)

    def add(self, rr: RR) -> bytes | None:
        """Add *rr*; the message before it where it has no room in that any more."""
        full = None
        if self._count and self.size + rr.size > self._limit:
            full = self.finish()
        record = self._compressed(rr.owner) + rr.rest
        self._records.append(record)
        self._count += 1
        self._at += len(record)
        return full

    def _compressed(self, owner: bytes) -> bytes:
        at = 0
        while owner[at]:
            pointer = self._names.get(owner[at:])
            if pointer is not None:
                return owner[:at] + pointer
            if self._at + at <= MAX_POINTER:
                self._names[owner[at:]] = _pointer(self._at + at)
            at += owner[at] + 1
        return owner

    def finish(self) -> bytes:
        """The message; the next begins.  Only the first has an OPT (RFC 5936, section 2.2.5)."""
        message = b"".join(
            (
                self._asked.id,
                bytes((_QR | _AA | self._asked.rd, query.NOERROR, 0, 1)),
                self._count.to_bytes(2, "big"),
                b"\0\0\0",
                b"\1" if self._opt else b"\0",
                self._asked.question,
                *self._records,
                self._opt,
            )
        )
        self._opt = b""
        self._begin()
        return message


def _pointer(at: int) -> bytes:
    return (0xC000 | at).to_bytes(2, "big")


class Transfers:
    """Answers AXFR and IXFR for the zones of *table*, from *journal*.

    *canonical* is the zone in which targets live.  *settled* tells whether the catalog is what
    the store said; while it holds more than that, its content is not that of its serial, and
    nobody gets it.
    """

    def __init__(
        self,
        table: AnswerTable,
        canonical: Zone,
        journal: Journal,
        *,
        settled: Callable[[], bool] = lambda: True,
        problem: Callable[[str, str], None] = lambda service, what: None,
    ) -> None:
        self.journal = journal
        self._table = table
        self._canonical = canonical
        self._settled = settled
        self._problem = problem

    @property
    def revision(self) -> int | None:
        """The revision whose content would be sent; None while none would."""
        if self._table.state == "loading" or not self._settled():
            return None
        return self._table.revision

    def version(self, source: Source, revision: int) -> "Version":
        """All that a transfer of *source* sends, as it is now, at *revision*."""
        self._table.settle()
        shared, reverse = self._table.shared, source.served.reverse
        sets = shared.sets.of_reverse_zone(reverse) if reverse else shared.sets.of_zone()
        return Version(self.journal.services(), shared, sets, revision)

    def answer(
        self,
        asked: Query,
        served: ServedZone,
        packet: bytes,
        *,
        key: Key | None,
        address: bytes,
        tcp: bool,
    ) -> "Denied | Single | Transfer":
        """What *asked*, an AXFR or IXFR of the apex of *served*, gets.  *packet* is all of it.

        AXFR over UDP does not come here.
        """
        if key is None or not key.allows(served.zone.apex, address):
            return Denied(query.REFUSED, PROHIBITED)
        serial = None
        if asked.qtype == query.IXFR:
            serial = asked_serial(packet, asked)
            if serial is None:
                return Denied(query.FORMERR)
        revision = self.revision
        if revision is None:
            return Denied(query.SERVFAIL, NOT_READY)
        source = Source(served, self._canonical, self._problem)
        if serial is not None and distance(revision % SERIALS, serial) < HALF:
            # The asker has what we have, or, from another replica, what we shall have.
            return _one_soa(asked, source, revision)
        limit = limit_of(asked.edns, tcp=tcp) - key.tsig_size
        if not tcp:
            assert serial is not None
            return self._datagram(asked, source, serial, revision, limit)
        return Transfer(self, asked, source, serial, MAX_MESSAGE - key.tsig_size)

    def _datagram(
        self, asked: Query, source: Source, serial: int, revision: int, limit: int
    ) -> Single:
        """The whole reply if a datagram holds it, else our SOA alone (RFC 1995, section 2)."""
        version = self.version(source, revision)
        differences = self.journal.differences(serial, revision)
        concerned = version.services.values() if differences is None else _services_in(differences)
        if sum(len(service.instances) for service in concerned) > MAX_UDP_INSTANCES:
            return _one_soa(asked, source, revision)
        step = _finished(_step(source, version, serial, differences))
        packer = Packer(asked, limit_of(None, tcp=True))
        for rr in _records(source, version, step, serial):
            if rr is not None:
                packer.add(rr)
            if packer.size > limit:
                return _one_soa(asked, source, revision)
        return Single(packer.finish())


class Transfer:
    """A transfer that was granted; `messages` makes it.

    `kind` is `axfr`; `ixfr` where a difference is sent; `ixfr-whole` where the zone is sent
    instead.  It is known, like `serial`, once the first message is there.
    """

    def __init__(
        self, transfers: Transfers, asked: Query, source: Source, since: int | None, limit: int
    ) -> None:
        self.kind = "axfr" if since is None else "ixfr"
        self.zone = source.zone.apex
        self.serial = 0
        self.records = self.octets = 0
        self._transfers = transfers
        self._asked = asked
        self._source = source
        self._since = since
        self._limit = limit
        self._sign: Callable[[bytes], bytes] = lambda message: message

    def __repr__(self) -> str:
        return f"<Transfer {self.kind} of {self.zone}, {self.records} records so far>"

    def sign_with(self, sign: Callable[[bytes], bytes]) -> None:
        """Let *sign* put a signature on each message, in their order."""
        self._sign = sign

    def messages(self) -> Iterator[bytes | None]:
        """The messages one after the other, None wherever others may have their turn."""
        revision = self._transfers.revision
        if revision is None:
            yield self._sealed(_coded(self._asked, query.SERVFAIL, NOT_READY))
            return
        self.serial = revision % SERIALS
        version = self._transfers.version(self._source, revision)
        step = None
        if self._since is not None:
            differences = self._transfers.journal.differences(self._since, revision)
            step = yield from _step(self._source, version, self._since, differences)
            self.kind = "ixfr-whole" if step is None else "ixfr"
        packer = Packer(self._asked, self._limit)
        for rr in _records(self._source, version, step, self._since or 0):
            if rr is None:
                yield None
                continue
            self.records += 1
            if (message := packer.add(rr)) is not None:
                yield self._sealed(message)
        yield self._sealed(packer.finish())

    def refusal(self) -> bytes:
        """The one message that is sent where there is no room for another transfer."""
        return self._sealed(_coded(self._asked, query.REFUSED, None))

    def _sealed(self, message: bytes) -> bytes:
        signed = self._sign(message)
        self.octets += len(signed)
        return signed


def _coded(asked: Query, rcode: int, ede: int | None) -> bytes:
    return refuse(Reject(asked.id, 0, asked.rd, rcode, asked.question, asked.edns), ede)


def _one_soa(asked: Query, source: Source, revision: int) -> Single:
    packer = Packer(asked, limit_of(None, tcp=True))
    packer.add(soa_rr(source.zone, revision % SERIALS))
    return Single(packer.finish())


# --- content ------------------------------------------------------------------------------------


class Version(NamedTuple):
    """What the store held at one revision; *shared* knows what services add to sets."""

    services: Services
    shared: Shared
    sets: Sets
    revision: int


class Step(NamedTuple):
    """From one serial to another: what goes, and what comes."""

    removed: list[RR]
    added: list[RR]

    @property
    def size(self) -> int:
        return sum(rr.size for rr in self.removed) + sum(rr.size for rr in self.added)


def _services_in(differences: Mapping[str, Difference]) -> Iterator[Service]:
    return (s for pair in differences.values() for s in pair if s is not None)


def _step(
    source: Source, version: Version, since: int, differences: Mapping[str, Difference] | None
) -> Generator[None, None, Step | None]:
    """The step that *differences* make; None where the zone is sent instead of it: it is not
    known, or is more than the zone, or more than we make at once (RFC 1995, section 4)."""
    if differences is None:
        return None
    step, tally, size = Step([], []), Tally(), 0
    for before, after in differences.values():
        unchanged = _unchanged(before, after)
        old = yield from _gathered(source, before, unchanged)
        new = yield from _gathered(source, after, unchanged)
        version.shared.count(tally, before, -1, unchanged)
        version.shared.count(tally, after, 1, unchanged)
        removed, added = old.keys() - new.keys(), new.keys() - old.keys()
        step.removed.extend(rr for rr in old if rr in removed)
        step.added.extend(rr for rr in new if rr in added)
        size += sum(rr.size for rr in removed) + sum(rr.size for rr in added)
        if size > MAX_DIFFERENCE:
            return None
        yield None
    _add_shared(source, version, since, tally, step)
    size = step.size
    zone_size = 0
    for rr in _whole(source, version):
        if rr is None:
            yield None
        elif (zone_size := zone_size + rr.size) >= size:
            return step
    return None


def _add_shared(source: Source, version: Version, since: int, tally: Tally, step: Step) -> None:
    """What changed in the sets to which many services add, and the revision."""
    own = {place: counts for place, counts in tally.items() if is_of(source, place)}
    for came, fact in version.sets.differences(own):
        (step.added if came else step.removed).append(shared_rr(source, fact))
    then = version.revision - distance(since, version.revision % SERIALS)
    step.removed.extend(revision_rr(source, then))
    step.added.extend(revision_rr(source, version.revision))


def _unchanged(before: Service | None, after: Service | None) -> frozenset[str]:
    """Instances whose own names have the same records before and after."""
    if before is None or after is None or before.name != after.name:
        return frozenset()
    return frozenset(
        i for i, instance in before.instances.items() if after.instances.get(i) is instance
    )


def _gathered(
    source: Source, service: Service | None, unchanged: frozenset[str]
) -> Generator[None, None, dict[RR, None]]:
    found: dict[RR, None] = {}
    if service is not None:
        for rr in service_rrs(source, service, unchanged):
            found[rr] = None
            if len(found) % SLICE == 0:
                yield None
    return found


def _whole(source: Source, version: Version) -> Iterator[RR | None]:
    """Everything but the SOA."""
    yield from fixed_rrs(source)
    yield from revision_rr(source, version.revision)
    count = 0
    for rr in chain(
        (rr for service in version.services.values() for rr in service_rrs(source, service)),
        (shared_rr(source, fact) for fact in version.sets.facts()),
    ):
        yield rr
        if (count := count + 1) % SLICE == 0:
            yield None


def _records(
    source: Source, version: Version, step: Step | None, since: int
) -> Iterator[RR | None]:
    """The records of an answer in their order: a zone between two SOAs, or a step to it."""
    soa = soa_rr(source.zone, version.revision % SERIALS)
    yield soa
    if step is None:
        yield from _whole(source, version)
    else:
        yield soa_rr(source.zone, since)
        yield from step.removed
        yield soa
        yield from step.added
    yield soa


def _finished(steps: Generator[None, None, T]) -> T:
    """What *steps* return, without pauses."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            value: T = stop.value
            return value
