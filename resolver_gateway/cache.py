"""What is known of each name, and whether it still holds: Fresh, Stale, Absent or Miss.

A record's TTL decides, and nothing else makes an answer old.  Past it the old answer is only for
when nobody answers a new question, and no longer than the stale bound.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from resolver_gateway import naming
from resolver_gateway.srv import Absent as AbsentAnswer
from resolver_gateway.srv import Resolution

CAPACITY: Final = 4096
"""Names with instances that are kept; beyond it the one that expires soonest goes."""

NEGATIVE_CAPACITY: Final = 4096
"""Names without instances that are kept, apart from the others: asking for names that do not
exist must not push out those that do."""

REFRESH_AT: Final = 0.8
"""Of the TTL: then a request for it makes the resolver ask again, ahead of its end."""

RETRY_STALE: Final = 0.5
"""Seconds from one question about a name that nobody answered to the next."""

RENEW_PAUSE: Final = 1.0
"""Seconds between two questions about a name within its TTL, because none of its instances takes
a connection any more."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """Within its TTL; *refresh* says that it is time to ask again."""

    resolution: Resolution
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Stale:
    """Past its TTL by *age* seconds and within the bound.

    *ask* says that it is time to ask again, *wait* that the answer is worth waiting for: nobody
    has failed to give one since this one came.
    """

    resolution: Resolution
    age: float
    ask: bool
    wait: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """Known to have no instance for *retry_after* more seconds."""

    exists: bool
    retry_after: float


@dataclass(frozen=True, slots=True)
class Miss:
    """Nothing is known, or what was known is too old."""


Lookup = Fresh | Stale | Absent | Miss

MISS: Final = Miss()


@dataclass(frozen=True, slots=True)
class Status:
    """What the status page shows of a name."""

    resolution: Resolution
    age: float
    """Seconds since it was answered."""
    left: float
    """Seconds of its TTL that are left; negative: stale."""


@dataclass(slots=True)
class _Entry:
    fresh: Fresh
    refreshing: Fresh
    stored_at: float
    refresh_at: float
    expires_at: float
    retry_at: float = 0.0
    """When to ask again after nobody answered; 0: somebody did."""
    renewed_at: float = 0.0


class SrvCache:
    """Answers by name, bounded; its owner is the resolver."""

    def __init__(
        self,
        stale_bound: float,
        capacity: int = CAPACITY,
        negative_capacity: int = NEGATIVE_CAPACITY,
    ) -> None:
        self._stale_bound = stale_bound
        self.capacity = capacity
        self._negative_capacity = negative_capacity
        self._entries: dict[str, _Entry] = {}
        self._absent: dict[str, tuple[bool, float]] = {}

    def __repr__(self) -> str:
        return f"<SrvCache {len(self._entries)} positive, {len(self._absent)} negative>"

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, name: str, now: float) -> Lookup:
        """What is known of *name* at *now*.  Total."""
        entry = self._entries.get(name)
        if entry is not None:
            if now < entry.expires_at:
                return entry.fresh if now < entry.refresh_at else entry.refreshing
            age = now - entry.expires_at
            if age <= self._stale_bound:
                ask = now >= entry.retry_at
                return Stale(entry.fresh.resolution, age, ask, wait=not entry.retry_at)
            del self._entries[name]
        absent = self._absent.get(name)
        if absent is not None:
            exists, until = absent
            if now < until:
                return Absent(exists, until - now)
            del self._absent[name]
        return MISS

    def store(
        self, name: str, answer: Resolution | AbsentAnswer, now: float, jitter: float
    ) -> None:
        """Remember *answer* until its TTL; *jitter* in [0, 1) spreads the refreshing.

        An absence takes the place of what was known before.
        """
        if isinstance(answer, AbsentAnswer):
            self._entries.pop(name, None)
            self._store_absent(name, answer, now)
            return
        self._absent.pop(name, None)
        before = self._entries.get(name)
        if before is not None:
            answer = answer.like(before.fresh.resolution)
        elif len(self._entries) >= self.capacity:
            del self._entries[min(self._entries, key=lambda n: self._entries[n].expires_at)]
        share = REFRESH_AT + (1.0 - REFRESH_AT) / 2 * jitter
        self._entries[name] = _Entry(
            Fresh(answer),
            Fresh(answer, True),
            now,
            now + answer.ttl * share,
            now + answer.ttl,
            renewed_at=0.0 if before is None else before.renewed_at,
        )

    def _store_absent(self, name: str, answer: AbsentAnswer, now: float) -> None:
        self._absent.pop(name, None)
        if answer.ttl <= 0:
            return
        if len(self._absent) >= self._negative_capacity:
            del self._absent[next(iter(self._absent))]
        self._absent[name] = (answer.exists, now + answer.ttl)

    def unanswered(self, name: str, now: float) -> None:
        """Nobody answered for *name*: its old answer is used without waiting from now on."""
        if (entry := self._entries.get(name)) is not None:
            entry.retry_at = now + RETRY_STALE
            # Within the TTL too, or every request past 80 % of it would ask.
            entry.refresh_at = max(entry.refresh_at, now + RETRY_STALE)

    def answers_again(self) -> None:
        """DNS answers after it did not: every name that went unanswered is asked for anew."""
        for entry in self._entries.values():
            if entry.retry_at:
                entry.retry_at = entry.refresh_at = 1e-9

    def may_renew(self, name: str, now: float) -> bool:
        """Whether to ask for *name* within its TTL; it is noted that this is done."""
        entry = self._entries.get(name)
        if entry is None or now < max(entry.stored_at, entry.renewed_at) + RENEW_PAUSE:
            return False
        entry.renewed_at = now
        return True

    def known(self, name: str) -> Resolution | None:
        """The last resolution of *name*, however old within the bound; None when there is none."""
        entry = self._entries.get(name)
        return None if entry is None else entry.fresh.resolution

    def status(self, name: str, now: float) -> Status | None:
        """Resolution and age of *name*; None when it has none."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        return Status(entry.fresh.resolution, now - entry.stored_at, entry.expires_at - now)

    def names_of(self, services: Iterable[str]) -> list[str]:
        """The names that are kept, with or without instances, about one of *services*."""
        wanted = frozenset(services)
        kept = (*self._entries, *self._absent)
        return [name for name in kept if naming.service_in(name) in wanted]

    def names(self) -> list[str]:
        """The names with instances that are kept."""
        return list(self._entries)

    def forget_old(self, now: float) -> list[str]:
        """Drop what is past its bound, so that names no longer asked for go too; their names."""
        old = [n for n, e in self._entries.items() if now > e.expires_at + self._stale_bound]
        for name in old:
            del self._entries[name]
        for name in [n for n, (_, until) in self._absent.items() if now >= until]:
            del self._absent[name]
        return old

    def services(self, now: float) -> dict[str, float]:
        """Every name that is kept, with the seconds left of its TTL (negative: stale)."""
        return {name: entry.expires_at - now for name, entry in self._entries.items()}
