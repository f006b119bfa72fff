"""Turns record sets into octets, once for each change: what a query needs is then joined.

Compiled answers are immutable.  Their records begin with the pointer C0 0C to the question,
so one body serves every spelling that the question may have.
"""

import functools
import hashlib
import ipaddress
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from dnsd import query
from dnsd.zone import (
    EXPIRE,
    NEGATIVE_TTL,
    Address,
    Ns,
    Record,
    Rrset,
    Soa,
    Srv,
    Txt,
    Zone,
    of_family,
    to_wire,
)

MAX_RRSET = 65000
"""Octets of the records of one answer: with header, question and OPT still a TCP message.
A set that is larger is cut here, because truncation over TCP has no remedy."""

MAX_DRAWN = 80
"""Records whose order is drawn by weight.  More do not fit a UDP reply (the shortest has
16 octets); those behind them follow at random."""

_AT_QUESTION = b"\xc0\x0c"
_FIXED = struct.Struct("!HHIH").pack
_SRV = struct.Struct("!HHH").pack


class Rng(Protocol):
    """What we need of a `random.Random`."""

    def randrange(self, stop: int, /) -> int: ...

    def shuffle(self, x: list[int], /) -> None: ...


@dataclass(frozen=True, slots=True)
class Glue:
    """The addresses of one target: `records` lack their owner, which is a pointer to the name
    that stands `name_at` octets into the record, or `owner` where no pointer reaches."""

    owner: bytes
    name_at: int
    records: tuple[bytes, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Records of one priority; `weights` is empty where all are equal."""

    members: tuple[int, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SoaRecord:
    """The SOA of a zone, in the two pieces that stand around its serial."""

    apex_size: int
    at: Callable[[int], tuple[bytes, bytes]]
    """The pieces, given the offset at which the apex stands in the message."""


@dataclass(frozen=True, slots=True)
class CompiledAnswer:
    """All that an answer is made of, whoever asks and however.

    `group` names the generation it belongs to (a service, or "" for what any change touches);
    an answer without one is made for every query anew.  `soa` stands in the authority section,
    or, with `soa_is_answer`, in the answer.  `left_out` counts records that were too many.
    """

    rcode: int
    authoritative: bool
    group: str | None = None
    records: tuple[bytes, ...] = ()
    glue: tuple[Glue, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    size: int = 0
    glue_size: int = 0
    soa: SoaRecord | None = None
    soa_is_answer: bool = False
    left_out: int = 0

    @property
    def is_negative(self) -> bool:
        return self.soa is not None and not self.soa_is_answer


@dataclass(slots=True)
class _Building:
    records: list[bytes] = field(default_factory=list)
    glue: list[Glue] = field(default_factory=list)
    ranks: list[tuple[int, int]] = field(default_factory=list)


def compile_rrset(rrset: Rrset, group: str, soa: SoaRecord, salt: int) -> CompiledAnswer:
    """*rrset* as an answer.  *salt* decides which records stay where there are too many, and is
    the same on every replica."""
    if any(isinstance(record, Soa) for record in rrset.records):
        return CompiledAnswer(query.NOERROR, True, group, soa=soa, soa_is_answer=True)
    built = _Building()
    for record in rrset.records:
        rdata, glue, rank = _parts(record, rrset)
        built.records.append(_rr(rrset.qtype, rrset.ttl, rdata))
        built.ranks.append(rank)
        if glue is not None:
            built.glue.append(glue)
    left_out = _cut(built, salt) if sum(map(len, built.records)) > MAX_RRSET else 0
    return CompiledAnswer(
        query.NOERROR,
        True,
        group,
        tuple(built.records),
        tuple(built.glue),
        _buckets(built.ranks),
        sum(map(len, built.records)),
        sum(g.size for g in built.glue),
        soa=None,
        left_out=left_out,
    )


def without_glue(answer: CompiledAnswer) -> CompiledAnswer:
    """*answer* as ANY gets it: the set alone (RFC 8482)."""
    return CompiledAnswer(
        answer.rcode,
        answer.authoritative,
        answer.group,
        answer.records,
        buckets=answer.buckets,
        size=answer.size,
        soa=answer.soa,
        soa_is_answer=answer.soa_is_answer,
        left_out=answer.left_out,
    )


def records_of(rrset: Rrset, salt: int) -> list[bytes]:
    """The records alone, as `compile_rrset` makes them; neither NS nor SOA."""
    records = [_rr(rrset.qtype, rrset.ttl, _rdata(record)) for record in rrset.records]
    if sum(map(len, records)) <= MAX_RRSET:
        return records
    built = _Building(records, ranks=[(0, 0)] * len(records))
    _cut(built, salt)
    return built.records


def _parts(record: Record, rrset: Rrset) -> tuple[bytes, Glue | None, tuple[int, int]]:
    """(RDATA, addresses to go with it, (priority, weight)) of one record."""
    match record:
        case Address():
            return _rdata(record), None, (0, record.weight)
        case Srv():
            rdata = _rdata(record)
            glue = _glue(rdata[6:], 18, record.addresses, record.addresses_ttl)
            return rdata, glue, (record.priority, record.weight)
        case Txt():
            return _rdata(record), None, (0, 0)
        case Ns(label, addresses):
            # The apex is the question itself, so its servers' names end in a pointer to it.
            name = bytes((len(label),)) + label.encode("ascii") + _AT_QUESTION
            return name, _glue(name, 12, addresses, rrset.ttl), (0, 0)
        case Soa():
            raise ValueError("a SOA has no RDATA without its serial")


def _rdata(record: Record) -> bytes:
    match record:
        case Address(address):
            return ipaddress.ip_address(address).packed
        case Srv():
            # RFC 2782: no compression of the target, which other answers may point at.
            return _SRV(record.priority, record.weight, record.port) + to_wire(record.target)
        case Txt(strings):
            return b"".join(bytes((len(s),)) + s for s in strings)
        case _:
            raise ValueError(f"{type(record).__name__} has no RDATA of its own")


def _glue(owner: bytes, name_at: int, addresses: tuple[str, ...], ttl: int) -> Glue:
    records = tuple(
        _rr(qtype, ttl, ipaddress.ip_address(a).packed)[2:]
        for qtype in (query.A, query.AAAA)
        for a in of_family(addresses, qtype)
    )
    return Glue(owner, name_at, records, sum(2 + len(r) for r in records))


def _rr(qtype: int, ttl: int, rdata: bytes) -> bytes:
    return _AT_QUESTION + _FIXED(qtype, query.IN, ttl, len(rdata)) + rdata


def _cut(built: _Building, salt: int) -> int:
    """Keep what MAX_RRSET holds, chosen by a hash; how many records went."""
    key = salt.to_bytes(8, "big")
    by_hash = sorted(
        range(len(built.records)),
        key=lambda i: hashlib.blake2b(built.records[i], key=key, digest_size=8).digest(),
    )
    kept, size = [], 0
    for i in by_hash:
        size += len(built.records[i])
        if size > MAX_RRSET:
            break
        kept.append(i)
    kept.sort()
    left_out = len(built.records) - len(kept)
    built.records = [built.records[i] for i in kept]
    built.ranks = [built.ranks[i] for i in kept]
    built.glue = [built.glue[i] for i in kept] if built.glue else []
    return left_out


def _buckets(ranks: Sequence[tuple[int, int]]) -> tuple[Bucket, ...]:
    found: dict[int, list[int]] = {}
    for i, (priority, _weight) in enumerate(ranks):
        found.setdefault(priority, []).append(i)
    return tuple(
        _bucket(members, [ranks[i][1] for i in members]) for _, members in sorted(found.items())
    )


def _bucket(members: Iterable[int], weights: Sequence[int]) -> Bucket:
    return Bucket(tuple(members), tuple(weights) if len(set(weights)) > 1 else ())


def draw_order(answer: CompiledAnswer, rng: Rng) -> list[int]:
    """An order of the answer's records: by priority, within one by chance and weight."""
    order: list[int] = []
    for bucket in answer.buckets:
        order += _walk(bucket, rng)
    return order


def draw_orders(answer: CompiledAnswer, rng: Rng, most: int) -> Iterator[list[int]]:
    """At most *most* orders to answer with in turn.

    By chance and weight; where all records are alike and few, every one is first equally often.
    """
    order = draw_order(answer, rng)
    if len(answer.buckets) == 1 and not answer.buckets[0].weights and len(order) <= most:
        for i in range(len(order)):
            yield order[i:] + order[:i]
        return
    yield order
    for _ in range(most - 1):
        yield draw_order(answer, rng)


def _walk(bucket: Bucket, rng: Rng) -> list[int]:
    """RFC 2782, "Weight": zeros first, running sums, the first that reaches a number drawn from
    0 to their sum inclusive; that one is taken out, and again.

    Shuffled beforehand, so that records of equal weight have equal chances.
    """
    left = list(range(len(bucket.members)))
    rng.shuffle(left)
    if not bucket.weights:
        return [bucket.members[i] for i in left]
    left.sort(key=lambda i: bucket.weights[i] != 0)
    drawn: list[int] = []
    while left and len(drawn) < MAX_DRAWN:
        sums = list(accumulate(bucket.weights[i] for i in left))
        drawn.append(left.pop(bisect_left(sums, rng.randrange(sums[-1] + 1))))
    return [bucket.members[i] for i in drawn + left]


def compile_soa(zone: Zone) -> SoaRecord:
    """The SOA of *zone*; its first name server is the primary."""
    server = zone.servers[0][0]
    labels = [bytes((len(name),)) + name.encode("ascii") for name in (server, "hostmaster")]
    numbers = (zone.refresh, zone.retry, EXPIRE, NEGATIVE_TTL)
    tail = b"".join(n.to_bytes(4, "big") for n in numbers)
    size = sum(map(len, labels)) + 2 * 2 + 4 + len(tail)
    fixed = b"".join(
        (
            query.SOA.to_bytes(2, "big"),
            b"\0\1",
            NEGATIVE_TTL.to_bytes(4, "big"),
            size.to_bytes(2, "big"),
        )
    )

    @functools.cache  # one for each offset in a name: at most 255
    def at(offset: int) -> tuple[bytes, bytes]:
        apex_pointer = (0xC000 | offset).to_bytes(2, "big")
        names = b"".join(label + apex_pointer for label in labels)
        return apex_pointer + fixed + names, tail

    return SoaRecord(len(to_wire(zone.apex)), at)
