"""Finished answers by the octets that asked for them: what almost every packet is served from.

A key is a request after its ID, a value an iterator over finished replies after their ID.
An iterator does in one call what a packet needs: it gives the next order of the answer,
counts the hit, and ends after 1,024 of them, whereupon the answer is made anew.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, compress, cycle, repeat
from typing import NamedTuple

from dnsd.responder import Keep, Reply

LIFE = 1024
"""Hits after which an answer is made anew, with fresh orders.  Counted for each entry: a count
over all of them would give an A and AAAA pair one parity and so the same order always."""

CAPACITY = 32768
"""Entries.  10,000 services asked for SRV and A by resolvers of one habit take 20,000."""

BUDGET = 32 << 20
"""Octets of answers and their keeping; the oldest entries go first."""

OVERHEAD = 900
"""Octets that an entry takes beside its answers, measured."""

MAX_REQUEST = 300
"""Octets of a request that is worth a place: a name, a question, an empty OPT."""


class Kind(NamedTuple):
    """What hits are counted as."""

    qtype: int
    rcode: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class _Slot:
    group: str
    kind: Kind
    lives: "repeat[bool]"
    cost: int

    @property
    def hits(self) -> int:
        return LIFE - self.lives.__length_hint__()


_Key = tuple[bool, bytes]


class Memo:
    """Finished answers of the present generation, bounded in number and size.

    `trusted` and `strangers` are read directly by the packet loop, with `.get`; both keep
    their identity for ever.  *serial* is the octets of the serial as they are now, joined in
    whenever an answer with a SOA is sent.
    """

    def __init__(
        self, serial: bytearray, *, capacity: int = CAPACITY, budget: int = BUDGET
    ) -> None:
        self.trusted: dict[bytes, Iterator[bytes]] = {}
        self.strangers: dict[bytes, Iterator[bytes]] = {}
        self._serial = serial
        self._capacity = capacity
        self._budget = budget
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()
        self._groups: dict[str, set[_Key]] = {}
        self._past: Counter[Kind] = Counter()
        self.size = 0

    def __repr__(self) -> str:
        return f"<Memo {len(self._slots)} answers, {self.size} octets>"

    def __len__(self) -> int:
        return len(self._slots)

    def keep(self, request: bytes, trusted: bool, reply: Reply, keep: Keep) -> None:
        """Remember *reply* for the next that sends *request* (all after its ID)."""
        if len(request) > MAX_REQUEST:
            return
        key = trusted, request
        self._remove(key)
        first = keep.first
        cost = (len(first.head) + len(first.tail)) * (keep.more + 1) + OVERHEAD
        slot = _Slot(
            keep.group,
            Kind(reply.qtype, reply.rcode, reply.truncated),
            repeat(True, LIFE),
            cost,
        )
        self._slots[key] = slot
        self._groups.setdefault(keep.group, set()).add(key)
        self.size += cost
        finished = compress(self._orders(keep), slot.lives)
        (self.trusted if trusted else self.strangers)[request] = finished
        while len(self._slots) > self._capacity or self.size > self._budget:
            self._remove(next(iter(self._slots)))

    def _orders(self, keep: Keep) -> Iterator[bytes]:
        """The answer's orders, the later ones drawn when they are first needed."""
        first = keep.first
        if first.has_serial:
            return map(b"".join, repeat((first.head, self._serial, first.tail)))
        if keep.more == 0:
            return repeat(first.head)
        return cycle(chain((first.head,), (message.head for message in keep.further)))

    def forget(self, groups: Collection[str]) -> None:
        """Remove every answer of *groups*: their generation is over."""
        for group in groups:
            for key in tuple(self._groups.get(group, ())):
                self._remove(key)

    def clear(self) -> None:
        """Remove all."""
        self.forget(tuple(self._groups))

    def hits(self) -> Counter[Kind]:
        """How many replies came from here since the start."""
        total = self._past.copy()
        for slot in self._slots.values():
            total[slot.kind] += slot.hits
        return total

    def _remove(self, key: _Key) -> None:
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        trusted, request = key
        del (self.trusted if trusted else self.strangers)[request]
        keys = self._groups[slot.group]
        keys.discard(key)
        if not keys:
            del self._groups[slot.group]
        self.size -= slot.cost
        self._past[slot.kind] += slot.hits
