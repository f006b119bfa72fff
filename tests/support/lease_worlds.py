"""The lease stores as one sees them in tests: the same clock, moved by hand, for every one.

The clock of a Redis cannot be moved.  So the scripts get one more line, which takes the
place of `TIME`: the hour stands in the zone's `meta`.  All else is the real store on a
real server, and boundaries can be met to the millisecond.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import redis

from registry import store as store_module
from registry.changes import Change, decode_change
from registry.keys import keys_of
from registry.leases import LeaseStore
from registry.memory import MemoryStore
from registry.model import Port, Registration
from registry.store import RedisStore
from tests.support.store import StoreServer

NOON = 1_800_000_000_000
"""When every world begins, in Unix milliseconds."""

CLOCK_LINE = "local clock = redis.call('TIME')"
HAND_CLOCK = "local clock = redis.call('HMGET', META, 'hand_s', 'hand_us')"


class World(Protocol):
    """A store, and its clock in our hand.

    Its epoch has begun already, at revision 0, unless the world was made otherwise.  `known` is
    the highest revision that the store's user says to have seen.
    """

    store: LeaseStore
    known: int

    def advance(self, milliseconds: int) -> None:
        """Let time go by; negative when the clock steps back."""

    def now_ms(self) -> int:
        """The store's clock."""

    def changes_after(self, revision: int) -> list[Change]:
        """The feed, as whoever follows it reads it."""

    async def lease_times(self, keys: Sequence[str]) -> list[float | None]:
        """The store's answer, at the hour of this world."""

    async def close(self) -> None:
        """Give connections back."""


class MemoryWorld:
    """The specification."""

    def __init__(self, *, begun: bool = True) -> None:
        self._now = NOON
        self.known = 0
        self._memory = MemoryStore(self.now_ms, known_revision=lambda: self.known)
        if begun:
            self._memory._epoch_of = self._memory._replid
        self.store: LeaseStore = self._memory

    def advance(self, milliseconds: int) -> None:
        self._now += milliseconds

    def now_ms(self) -> int:
        return self._now

    def changes_after(self, revision: int) -> list[Change]:
        return self._memory.changes_after(revision)

    async def lease_times(self, keys: Sequence[str]) -> list[float | None]:
        return await self.store.lease_times(keys)

    async def close(self) -> None:
        await self.store.close()


class RedisWorld:
    """The store in a real server, in a zone of its own."""

    def __init__(self, server: StoreServer, *, begun: bool = True) -> None:
        zone = server.fresh_zone()
        self.keys = keys_of(zone)
        self.client: Any = redis.Redis(
            unix_socket_path=server.socket_path, protocol=2, decode_responses=True
        )
        self.known = 0
        store = RedisStore(server.url, zone, known_revision=lambda: self.known)
        self.store: LeaseStore = with_hand_clock(store)
        if begun:
            begin(server, zone)
        self._now = NOON
        self.advance(0)

    def advance(self, milliseconds: int) -> None:
        self._now += milliseconds
        seconds, rest = divmod(self._now, 1000)
        self.client.hset(self.keys.meta, mapping={"hand_s": seconds, "hand_us": rest * 1000})

    def now_ms(self) -> int:
        return self._now

    def changes_after(self, revision: int) -> list[Change]:
        entries = self.client.xrange(self.keys.changes)
        changes = [decode_change(fields) for _, fields in entries]
        return [c for c in changes if c.revision > revision]

    async def lease_times(self, keys: Sequence[str]) -> list[float | None]:
        """Asked of the server's own clock, so all scores are moved there and back again."""
        scores = dict(self.client.zrange(self.keys.deadlines, 0, -1, withscores=True))
        seconds, micros = self.client.time()
        real = seconds * 1000 + micros // 1000
        if scores:
            moved = {member: at - self._now + real for member, at in scores.items()}
            self.client.zadd(self.keys.deadlines, moved)
        try:
            return await self.store.lease_times(keys)
        finally:
            if scores:
                self.client.zadd(self.keys.deadlines, scores)

    async def close(self) -> None:
        self.client.close()
        await self.store.close()


def begin(server: StoreServer, zone: str) -> None:
    """Let the epoch of *zone* have begun at revision 0, so that a test can count from there."""
    info = server.command("INFO", "replication")
    server.command("HSET", keys_of(zone).meta, "replid", info["master_replid"])


def with_hand_clock(store: RedisStore) -> RedisStore:
    """*store*, with scripts that read the hour from `meta`."""
    texts = store_module._load_scripts()
    assert all(text.count(CLOCK_LINE) == 1 for text in texts.values())
    store._use({verb: text.replace(CLOCK_LINE, HAND_CLOCK) for verb, text in texts.items()})
    return store


def a_registration(
    service: str = "payments",
    instance: str = "pay-1",
    *,
    port: int = 8080,
    address: str = "10.0.0.1",
    lease_ttl: int = 60,
    owner: str = "",
) -> Registration:
    """A registration that breaks no rule."""
    return Registration(
        service,
        instance,
        (Port("http", port),),
        (address,),
        lease_ttl=lease_ttl,
        record_ttl=1,
        owner=owner,
    )
