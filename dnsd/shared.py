"""Record sets to which every service adds its own: catalog, browsing, reverse names.

They are brought up to date by the services that changed, when somebody asks or has time: so a
hundred changes a second cost no more than a hundred services, however many there are.
"""

import zlib
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeVar

from dnsd.compiler import MAX_RRSET
from dnsd.reverse import digits_of
from dnsd.zone import is_listed, listed_label
from registry import names
from registry.catalog import Catalog, Service
from registry.model import Instance

POINTER_SIZE = 14
"""Octets of a PTR record beside the labels of its target, which ends in a pointer."""

BUCKETS = 256
"""Parts of a set, by a hash of the targets: of a set that is too large the first ones are shown,
and what a change touches is small."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class AtCatalog:
    """`catalog`: every service that has an instance in DNS."""


@dataclass(frozen=True, slots=True)
class AtTypes:
    """`_services._dns-sd._udp`: the types that may be browsed (RFC 6763, section 9)."""


@dataclass(frozen=True, slots=True)
class AtType:
    """`_<port>._<proto>`: every instance that has the port."""

    port: str
    protocol: str


@dataclass(frozen=True, slots=True)
class AtAddress:
    """A reverse name: every instance at the address."""

    digits: str


SharedPlace = AtCatalog | AtTypes | AtType | AtAddress
CATALOG, TYPES = AtCatalog(), AtTypes()


class Fact(NamedTuple):
    """A target at a place: labels below the place's own name or the apex, or a whole name."""

    place: SharedPlace
    target: bytes


def owner_labels(place: AtCatalog | AtTypes | AtType) -> tuple[str, ...]:
    """The labels of *place* below an apex."""
    match place:
        case AtCatalog():
            return ("catalog",)
        case AtTypes():
            return ("_services", "_dns-sd", "_udp")
        case AtType(port, protocol):
            return (f"_{port}", f"_{protocol}")


class Members:
    """The targets of one set; `shown` are those that a message holds.

    Of too many the same are shown on every replica; the others can be had over HTTP.
    """

    __slots__ = ("_buckets", "_own", "_shown", "size")

    def __init__(self) -> None:
        self._buckets: dict[int, set[bytes]] = {}
        self._own: set[int] = set()
        """Buckets that no copy of this has part in."""
        self._shown: tuple[bytes, ...] | None = None
        self.size = 0
        """Octets of the records of all."""

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def copy(self) -> "Members":
        """Another that does not follow; what it costs does not depend on how many there are."""
        other = Members()
        other._buckets, other._shown, other.size = dict(self._buckets), self._shown, self.size
        self._own.clear()
        return other

    def add(self, target: bytes) -> None:
        self._bucket_of(target).add(target)
        self.size += len(target) + POINTER_SIZE

    def remove(self, target: bytes) -> None:
        bucket = self._bucket_of(target)
        bucket.remove(target)
        if not bucket:
            del self._buckets[_number_of(target)]
        self.size -= len(target) + POINTER_SIZE

    def _bucket_of(self, target: bytes) -> set[bytes]:
        """The bucket of *target*, to be changed."""
        self._shown = None
        number = _number_of(target)
        if number not in self._own:
            self._buckets[number] = set(self._buckets.get(number, ()))
            self._own.add(number)
        return self._buckets.setdefault(number, set())

    def shown(self) -> tuple[bytes, ...]:
        """All targets in order; of too many those whose hashes are lowest."""
        if self._shown is None:
            if self.size <= MAX_RRSET:
                self._shown = tuple(sorted(chain.from_iterable(self._buckets.values())))
            else:
                by_hash = (sorted(self._buckets[number]) for number in sorted(self._buckets))
                self._shown = tuple(_as_many_as_fit(chain.from_iterable(by_hash)))
        return self._shown


def _number_of(target: bytes) -> int:
    return zlib.crc32(target) % BUCKETS


def _as_many_as_fit(targets: Iterable[bytes]) -> Iterator[bytes]:
    room = MAX_RRSET
    for target in targets:
        room -= len(target) + POINTER_SIZE
        if room < 0:
            return
        yield target


def _shown_there(targets: Collection[bytes]) -> tuple[bytes, ...]:
    """What an address shows of its *targets*: there is mostly one, so they are no Members."""
    if len(targets) == 1:
        return tuple(targets)
    if sum(map(len, targets)) + POINTER_SIZE * len(targets) <= MAX_RRSET:
        return tuple(sorted(targets))
    return tuple(_as_many_as_fit(sorted(targets, key=lambda t: (_number_of(t), t))))


class Sets:
    """All sets at one moment."""

    __slots__ = ("addresses", "members", "types")

    def __init__(self) -> None:
        self.members: dict[SharedPlace, Members] = {}
        self.addresses: dict[str, tuple[bytes, ...]] = {}
        """Digits → whole names of the instances there."""
        self.types: Counter[bytes] = Counter()
        """How many instances may be browsed to by a type."""

    def of_zone(self) -> "Sets":
        """What a zone has of it, as it is now."""
        other = Sets()
        other.members = {place: members.copy() for place, members in self.members.items()}
        other.types = self.types.copy()
        return other

    def of_reverse_zone(self, digits: str) -> "Sets":
        """What the reverse zone of the addresses that begin with *digits* has, as it is now."""
        other = Sets()
        other.addresses = {a: t for a, t in self.addresses.items() if a.startswith(digits)}
        return other

    def shown(self, place: SharedPlace) -> tuple[bytes, ...]:
        """The targets to answer with; empty when nobody is there."""
        if isinstance(place, AtAddress):
            return _shown_there(self.addresses.get(place.digits, ()))
        members = self.members.get(place)
        return () if members is None else members.shown()

    def count(self, place: SharedPlace) -> int:
        """How many targets there are, shown or not."""
        if isinstance(place, AtAddress):
            return len(self.addresses.get(place.digits, ()))
        return len(self.members.get(place, ()))

    def facts(self) -> Iterator[Fact]:
        """Everything that is shown."""
        for place in chain(self.members, map(AtAddress, self.addresses)):
            yield from (Fact(place, target) for target in self.shown(place))

    def differences(self, tally: "Tally") -> Iterator[tuple[bool, Fact]]:
        """What *tally*, which led to these sets, took from what was shown (False) and brought."""
        for place, counts in tally.items():
            come = [t for t, count in counts.items() if count > 0]
            gone = [t for t, count in counts.items() if count < 0]
            if place == TYPES:
                come = [t for t in come if self.types[t] == counts[t]]
                gone = [t for t in gone if not self.types[t]]
            was, now = self._before_and_after(place, gone, come)
            yield from ((False, Fact(place, target)) for target in sorted(was - now))
            yield from ((True, Fact(place, target)) for target in sorted(now - was))

    def _before_and_after(
        self, place: SharedPlace, gone: list[bytes], come: list[bytes]
    ) -> tuple[set[bytes], set[bytes]]:
        """What is shown at *place*, as far as it may differ."""
        if isinstance(place, AtAddress):
            there = set(self.addresses.get(place.digits, ()))
            return set(_shown_there(there.difference(come).union(gone))), set(_shown_there(there))
        now = self.members.get(place) or Members()
        was = now.copy()
        for target in come:
            was.remove(target)
        for target in gone:
            was.add(target)
        if max(was.size, now.size) <= MAX_RRSET:
            return set(gone), set(come)
        return set(was.shown()), set(now.shown())


Tally = dict[SharedPlace, Counter[bytes]]
"""What changes added to sets, or took from them."""


class _Held(NamedTuple):
    """What a service was when its facts were taken: instances in DNS, and all others."""

    live: tuple[Instance, ...]
    others: tuple[Instance, ...]

    @classmethod
    def of(cls, service: Service | None) -> "_Held":
        if service is None:
            return _NOBODY
        live = tuple(i for i in service.instances.values() if i.in_dns)
        others = tuple(i for i in service.instances.values() if not i.in_dns)
        return cls(live, others if service.last is None else (*others, service.last))


_NOBODY = _Held((), ())


class Shared:
    """The sets of all services but those of *taken* names, as of the last `settle`.

    Of addresses those count that begin with one of the digits in *reverse*; their targets are
    in the zone *canonical*, on the wire.
    """

    def __init__(
        self, canonical: bytes, reverse: Collection[str] = (), taken: Collection[str] = ()
    ) -> None:
        self.sets = Sets()
        self.protocols: Counter[str] = Counter()
        """How many ports of instances, in whatever state, have which protocol."""
        self.ports: Counter[tuple[str, str]] = Counter()
        """The same by (name, protocol): a type that nobody serves now is still known."""
        self._canonical = canonical
        self._reverse = tuple(reverse)
        self._taken = frozenset(taken)
        self._held: dict[str, _Held] = {}
        self._dirty: set[str] = set()
        self._ordered: list[str] | None = None

    def __repr__(self) -> str:
        sets = len(self.sets.members) + len(self.sets.addresses)
        return f"<Shared {sets} sets, {len(self._dirty)} services to be looked at>"

    def touch(self, services: Iterable[str]) -> None:
        """*services* (folded names) are not what they were."""
        self._dirty.update(services)

    def restart(self, catalog: Catalog) -> None:
        """Any service may be another than it was."""
        self._dirty.update(self._held)
        self._dirty.update(name for name, _ in catalog.services())

    def settle(self, catalog: Catalog, most: int = -1) -> bool:
        """Take in what changed, of at most *most* services; whether that was all."""
        while self._dirty and most != 0:
            name = self._dirty.pop()
            service = None if name in self._taken else catalog.service(name)
            self._take(name, _Held.of(service))
            most -= 1
        return not self._dirty

    def has_address_in(self, digits: str) -> bool:
        """Whether an address that begins with *digits* is an instance's."""
        if self._ordered is None:
            self._ordered = sorted(self.sets.addresses)
        at = bisect_left(self._ordered, digits)
        return at < len(self._ordered) and self._ordered[at].startswith(digits)

    def count(
        self, tally: Tally, service: Service | None, sign: int, unchanged: Collection[str] = ()
    ) -> None:
        """Add to *tally* what *service* brings (1) or took with it (-1), but for the *unchanged*
        instances: those that were there before and after, as they are."""
        if service is None or names.fold(service.name) in self._taken:
            return
        name, live = names.fold(service.name), service.serving
        if live:
            tally.setdefault(CATALOG, Counter())[_label(name)] += sign
        for instance in live:
            if instance.id not in unchanged:
                for place, target in self._facts(name, instance):
                    tally.setdefault(place, Counter())[target] += sign

    # --- keeping up -------------------------------------------------------------------------

    def _take(self, name: str, now: _Held) -> None:
        was = self._held.pop(name, _NOBODY)
        if now.live or now.others:
            self._held[name] = now
        if bool(was.live) != bool(now.live):
            self._put(CATALOG, _label(name), 1 if now.live else -1)
        for instance, sign in _changed(was.live, now.live):
            self._count_ports(instance, sign)
            self._count_facts(name, instance, sign)
        for instance, sign in _changed(was.others, now.others):
            self._count_ports(instance, sign)

    def _count_ports(self, instance: Instance, sign: int) -> None:
        for port in instance.registration.ports:
            _count(self.ports, (port.name, port.protocol), sign)
            _count(self.protocols, port.protocol, sign)

    def _count_facts(self, name: str, instance: Instance, sign: int) -> None:
        for place, target in self._facts(name, instance):
            match place:
                case AtAddress(digits):
                    self._put_address(digits, target, sign)
                case AtTypes():
                    before = self.sets.types[target]
                    if _count(self.sets.types, target, sign) == 0 or before == 0:
                        self._put(TYPES, target, sign)
                case _:
                    self._put(place, target, sign)

    def _facts(self, name: str, instance: Instance) -> Iterator[Fact]:
        """What an instance in DNS adds."""
        if is_listed(name, instance.id):
            label = listed_label(name, instance.id)
            for port in instance.registration.ports:
                yield Fact(AtType(port.name, port.protocol), label)
                yield Fact(TYPES, _label(f"_{port.name}") + _label(f"_{port.protocol}"))
        if self._reverse:
            for address in instance.addresses:
                digits = digits_of(address)
                if digits is not None and digits.startswith(self._reverse):
                    whole = _label(instance.id) + _label(name) + self._canonical
                    yield Fact(AtAddress(digits), whole)

    def _put(self, place: SharedPlace, target: bytes, sign: int) -> None:
        members = self.sets.members.get(place)
        if members is None:
            members = self.sets.members[place] = Members()
        if sign > 0:
            members.add(target)
            return
        members.remove(target)
        if not members.size:
            del self.sets.members[place]

    def _put_address(self, digits: str, target: bytes, sign: int) -> None:
        addresses = self.sets.addresses
        there = addresses.get(digits, ())
        if sign > 0:
            addresses[digits] = (*there, target)
            if not there and self._ordered is not None:
                insort(self._ordered, digits)
            return
        left = tuple(one for one in there if one != target)
        if left:
            addresses[digits] = left
            return
        del addresses[digits]
        if self._ordered is not None:
            del self._ordered[bisect_left(self._ordered, digits)]


def _changed(
    was: tuple[Instance, ...], now: tuple[Instance, ...]
) -> Iterator[tuple[Instance, int]]:
    """Those that went (-1) and came (1): an instance that changed is another object."""
    kept = {id(instance) for instance in was} & {id(instance) for instance in now}
    yield from ((instance, -1) for instance in was if id(instance) not in kept)
    yield from ((instance, 1) for instance in now if id(instance) not in kept)


def _count(counter: Counter[K], key: K, sign: int) -> int:
    """Count *key* up or down; what is counted no more leaves nothing behind."""
    counter[key] += sign
    left = counter[key]
    if not left:
        del counter[key]
    return left


def _label(text: str) -> bytes:
    raw = text.encode("ascii")
    return bytes((len(raw),)) + raw
