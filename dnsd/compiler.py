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
from dnsd.query import HEADER
from dnsd.zone import (
    EXPIRE,
    NEGATIVE_TTL,
    Address,
    Listed,
    Ns,
    Pointers,
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

MAX_SHUFFLED = 512
"""Records alike that are shuffled; more are turned."""

NOWHERE = 1 << 16
"""Of a glue's `name_at`: its owner stands in no record of the answer."""

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
    Each layer of `further` follows the glue where all before it had room.  An answer holds at
    most `most` of its records, 0 for all.
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
    further: tuple[tuple[Glue, ...], ...] = ()
    most: int = 0

    @property
    def is_negative(self) -> bool:
        return self.soa is not None and not self.soa_is_answer


@dataclass(slots=True)
class _Building:
    records: list[bytes] = field(default_factory=list)
    glue: list[Glue] = field(default_factory=list)
    ranks: list[tuple[int, int]] = field(default_factory=list)


def compile_rrset(
    rrset: Rrset, group: str, soa: SoaRecord, salt: int, most: int = 0
) -> CompiledAnswer:
    """*rrset* as an answer, of which *most* are given at a time.  *salt* decides which records
    stay where there are too many, and is the same on every replica."""
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
        most=most if most < len(built.records) else 0,
    )


def compile_pointers(pointers: Pointers, group: str) -> CompiledAnswer:
    """*pointers* as an answer; they must fit one message."""
    where = pointers.parent_at
    tail = pointers.parent if where is None else _pointer(HEADER + where)
    records = tuple(_rr(query.PTR, pointers.ttl, target + tail) for target in pointers.targets)
    layers = _layers(pointers)
    return CompiledAnswer(
        query.NOERROR,
        True,
        group,
        records,
        layers[0] if layers else (),
        (Bucket(tuple(range(len(records))), ()),),
        sum(map(len, records)),
        sum(glue.size for layer in layers for glue in layer),
        further=layers[1:],
    )


def _layers(pointers: Pointers) -> tuple[tuple[Glue, ...], ...]:
    """RFC 6763, section 12.1: the SRV of each target, then TXT, then the addresses."""
    if not pointers.listed:
        return ()
    owners = [target + pointers.parent for target in pointers.targets]
    pairs = list(zip(owners, pointers.listed, strict=True))
    return (
        tuple(_beside(owner, listed.srv) for owner, listed in pairs),
        tuple(_beside(owner, listed.txt) for owner, listed in pairs),
        tuple(_addresses_of(listed) for listed in pointers.listed),
    )


def _beside(owner: bytes, rrset: Rrset) -> Glue:
    """*rrset* at the name that a PTR record gives."""
    records = tuple(_rr(rrset.qtype, rrset.ttl, _rdata(record))[2:] for record in rrset.records)
    return Glue(owner, 12, records, sum(2 + len(record) for record in records))


def _addresses_of(listed: Listed) -> Glue:
    (srv,) = (record for record in listed.srv.records if isinstance(record, Srv))
    return _glue(to_wire(srv.target), NOWHERE, srv.addresses, srv.addresses_ttl)


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
        most=answer.most,
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
        case Ns(label, addresses, home):
            # The apex is the question itself, so its servers' names end in a pointer to it.
            parent = to_wire(home) if home else _AT_QUESTION
            name = bytes((len(label),)) + label.encode("ascii") + parent
            return name, _glue(name, 12, addresses, rrset.ttl), (0, 0)
        case Soa():
            raise ValueError("a SOA has no RDATA without its serial")


def _rdata(record: Record) -> bytes:
    match record:
        case Address(address):
            return _packed(address)
        case Srv():
            # RFC 2782: no compression of the target, which other answers may point at.
            return _SRV(record.priority, record.weight, record.port) + to_wire(record.target)
        case Txt(strings):
            # RFC 6763, section 6.1: no strings at all are one empty one.
            return b"".join(bytes((len(s),)) + s for s in strings) or b"\0"
        case _:
            raise ValueError(f"{type(record).__name__} has no RDATA of its own")


def _packed(address: str) -> bytes:
    octets = address.split(".")
    # Ten times as fast; what is no address after all is found out where it is none at all.
    return bytes(map(int, octets)) if len(octets) == 4 else ipaddress.ip_address(address).packed


def _glue(owner: bytes, name_at: int, addresses: tuple[str, ...], ttl: int) -> Glue:
    records = tuple(
        _rr(qtype, ttl, _packed(a))[2:]
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
    return order[: answer.most] if answer.most else order


def draw_orders(answer: CompiledAnswer, rng: Rng, most: int) -> Iterator[list[int]]:
    """At most *most* orders to answer with in turn.

    By chance and weight; where all records are alike and few, every one is first equally often.
    """
    if len(answer.buckets) == 1 and _is_alike(answer.buckets[0], most):
        order = _walk(answer.buckets[0], rng)
        for i in range(len(order)):
            turned = order[i:] + order[:i]
            yield turned[: answer.most] if answer.most else turned
        return
    yield draw_order(answer, rng)
    for _ in range(most - 1):
        yield draw_order(answer, rng)


def _is_alike(bucket: Bucket, most: int) -> bool:
    return not bucket.weights and len(bucket.members) <= most


def _walk(bucket: Bucket, rng: Rng) -> list[int]:
    """RFC 2782, "Weight": zeros first, running sums, the first that reaches a number drawn from
    0 to their sum inclusive; that one is taken out, and again.

    Shuffled beforehand, so that records of equal weight have equal chances.  Many alike are
    turned only: shuffling a full message takes a millisecond.
    """
    size = len(bucket.members)
    if size > MAX_SHUFFLED and not bucket.weights:
        first = rng.randrange(size)
        return [*bucket.members[first:], *bucket.members[:first]]
    left = list(range(size))
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
    server, mailbox = (
        bytes((len(name),)) + name.encode("ascii") for name in (zone.servers[0][0], "hostmaster")
    )
    apex_size = len(to_wire(zone.apex))
    numbers = (zone.refresh, zone.retry, EXPIRE, NEGATIVE_TTL)
    tail = b"".join(n.to_bytes(4, "big") for n in numbers)
    home = to_wire(zone.home) if zone.home else b""
    size = len(server) + (len(home) or 2) + len(mailbox) + 2 + 4 + len(tail)
    fixed = _FIXED(query.SOA, query.IN, NEGATIVE_TTL, size)

    @functools.cache  # one for each offset in a name: at most 255
    def at(offset: int) -> tuple[bytes, bytes]:
        apex = _pointer(offset)
        if not home:
            return apex + fixed + server + apex + mailbox + apex, tail
        # The question ends behind the apex, its type and class; the record's data begin 12 on.
        there = _pointer(offset + apex_size + 4 + 12 + len(server))
        return apex + fixed + server + home + mailbox + there, tail

    return SoaRecord(apex_size, at)


def _pointer(at: int) -> bytes:
    return (0xC000 | at).to_bytes(2, "big")
