"""Which upstream: RFC 2782's priority first, then one of four algorithms.

What is needed for a pick is made once a resolution: the commonest, weighted random, is then one
random number and one bisection.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from heapq import heapify, heapreplace
from itertools import accumulate
from math import log
from typing import Final

Random = Callable[[], float]
"""A uniform number in [0, 1)."""

SMALL_WEIGHT: Final = 0.01
"""What weight 0 is to the algorithms that RFC 2782 knows nothing of: "a very small chance"."""


class Algorithm(Enum):
    """How one of several instances is chosen."""

    WEIGHTED_RANDOM = "weighted-random"
    """By chance, as RFC 2782 has it."""
    ROUND_ROBIN = "round-robin"
    """In turn, each as often as its weight says, evenly spread."""
    LEAST_REQUESTS = "least-requests"
    """Of two drawn at random the one with fewer requests under way, for its weight."""
    HASH = "hash"
    """The same one for the same client or header, as long as it is there."""


@dataclass(frozen=True, slots=True)
class Balance:
    """An algorithm; for HASH with the header (lower case) whose value is the key, else the client
    address is."""

    algorithm: Algorithm = Algorithm.WEIGHTED_RANDOM
    header: bytes = b""

    def __str__(self) -> str:
        if self.algorithm is not Algorithm.HASH:
            return str(self.algorithm.value)
        return f"hash-header:{self.header.decode()}" if self.header else "hash-client"


BY_CHANCE: Final = Balance()


@dataclass(frozen=True, slots=True)
class Upstream:
    """An endpoint of an instance, as the gateway sees it."""

    service: str
    instance: str
    address: str
    port: int
    priority: int = 0
    weight: int = 1
    tls_name: str = ""
    """The name its certificate must have; empty: plain HTTP."""
    base: bytes = b""
    """What stands before every path there: a fallback's URL may have one."""
    where: str = ""
    """`10.0.0.1:8080`, `[fd00::1]:8080`; this and the key are made by `upstream()`."""
    key: str = ""
    """One string for all of the above that makes a connection."""

    def __repr__(self) -> str:
        return f"<Upstream {self.where} weight={self.weight}>"


def upstream(
    service: str,
    instance: str,
    address: str,
    port: int,
    priority: int = 0,
    weight: int = 1,
    tls_name: str = "",
    base: bytes = b"",
) -> Upstream:
    """An upstream with its key: connections of one service are never another's."""
    key = f"{service}/{instance}/{address}/{port}/{tls_name}"
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return Upstream(service, instance, address, port, priority, weight, tls_name, base, where, key)


class Ballot:
    """The upstreams of lowest priority, ready to be drawn from."""

    __slots__ = ("_seeds", "_sums", "_total", "_turns", "_weighted", "_zero", "tier")

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        lowest = min(u.priority for u in upstreams)
        self.tier = [u for u in upstreams if u.priority == lowest]
        self._zero = [u for u in self.tier if u.weight == 0]
        self._weighted = [u for u in self.tier if u.weight > 0]
        self._sums = list(accumulate(u.weight for u in self._weighted))
        self._total = self._sums[-1] if self._sums else 0
        self._turns: list[tuple[float, int]] = []
        self._seeds: list[int] = []

    def pick(self, random: Random) -> Upstream:
        """One of them, by weight.

        RFC 2782: a number from 0 to the sum of weights, inclusive; those of weight 0 stand first
        and share the 0, so they get "a very small chance".
        """
        if len(self._weighted) == 1 and not self._zero:
            return self._weighted[0]
        if not self._zero:
            return self._weighted[bisect_left(self._sums, int(random() * self._total) + 1)]
        drawn = int(random() * (self._total + 1))
        if drawn == 0:
            return self._zero[int(random() * len(self._zero))]
        return self._weighted[bisect_left(self._sums, drawn)]

    def next(self, random: Random) -> Upstream:
        """The one whose turn it is.

        Each has a date, and moves it on by the inverse of its weight: evenly spread, where whole
        rounds by weight would come in bursts.  The first dates are drawn, so that a hundred
        gateways do not all begin with the same instance.
        """
        if not self._turns:
            self._turns = [(random() / _weight(u), i) for i, u in enumerate(self.tier)]
            heapify(self._turns)
        due, index = self._turns[0]
        heapreplace(self._turns, (due + 1 / _weight(self.tier[index]), index))
        return self.tier[index]

    def least(self, load: Mapping[str, int], random: Random) -> Upstream:
        """Of two that are drawn the one with less to do (power of two choices)."""
        tier = self.tier
        if len(tier) == 1:
            return tier[0]
        first = int(random() * len(tier))
        second = (first + 1 + int(random() * (len(tier) - 1))) % len(tier)
        one, other = tier[first], tier[second]
        weighs = (load.get(one.key, 0) + 1) / _weight(one)
        other_weighs = (load.get(other.key, 0) + 1) / _weight(other)
        return one if weighs <= other_weighs else other

    def nearest(self, key: int) -> Upstream:
        """The one that *key* belongs to: highest random weight (rendezvous hashing).

        Whoever leaves takes only its own keys with it, and gets the same ones back.
        """
        if not self._seeds:
            self._seeds = [hash_of(u.key.encode()) for u in self.tier]
        best, nearest = 0.0, self.tier[0]
        for seed, candidate in zip(self._seeds, self.tier, strict=True):
            score = -_weight(candidate) / log(_mixed(seed ^ key))
            if score > best:
                best, nearest = score, candidate
        return nearest


def _mixed(number: int) -> float:
    """*number* as one in (0, 1) that has nothing to do with its neighbours'.

    The two multiplications are splitmix64's: without them, or with Python's own hash of a tuple,
    an instance gets between a third and twice its share of the keys.
    """
    number = number * 0x9E3779B97F4A7C15 & _64_BITS
    number = (number ^ number >> 29) * 0xBF58476D1CE4E5B9 & _64_BITS
    # 50 bits, which a float holds: with all 64 it could come out as 1, whose logarithm is 0.
    return (((number ^ number >> 32) >> 14) + 1) / ((1 << 50) + 1)


_64_BITS: Final = (1 << 64) - 1


def _weight(upstream: Upstream) -> float:
    return upstream.weight or SMALL_WEIGHT


HASHES: Final = 1 << 56
"""What `hash_of` stays below."""


def hash_of(text: bytes) -> int:
    """*text* as a number, the same in every process."""
    return int.from_bytes(blake2b(text, digest_size=7).digest(), "big")


def pick(upstreams: Sequence[Upstream], random: Random) -> Upstream:
    """One of *upstreams* (at least one) by priority and weight."""
    return Ballot(upstreams).pick(random)


def choose(
    ballot: Ballot,
    balance: Balance,
    random: Random,
    load: Mapping[str, int],
    key: bytes | None,
) -> Upstream:
    """The next one by *balance*; *load* are requests under way by upstream key.

    *key* is what HASH goes by; without one it is chance.
    """
    if balance.algorithm is Algorithm.ROUND_ROBIN:
        return ballot.next(random)
    if balance.algorithm is Algorithm.LEAST_REQUESTS:
        return ballot.least(load, random)
    if balance.algorithm is Algorithm.HASH and key is not None:
        return ballot.nearest(hash_of(key))
    return ballot.pick(random)


def parse_balance(text: str) -> Balance:
    """`round-robin`, `hash-client`, `hash-header:X-User`, …; ValueError names them all."""
    word, colon, header = text.partition(":")
    plain = {a.value: a for a in Algorithm if a is not Algorithm.HASH}
    if not colon and word in plain:
        return Balance(plain[word])
    if not colon and word == "hash-client":
        return Balance(Algorithm.HASH)
    if word == "hash-header" and header and header.isascii() and header.isprintable():
        return Balance(Algorithm.HASH, header.strip().lower().encode())
    raise ValueError(
        f"{text[:80]!r} is not one of {', '.join(plain)}, hash-client, hash-header:NAME"
    )
