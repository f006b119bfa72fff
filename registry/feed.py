"""Hearing of changes: a snapshot, then the stream, for ever.

Whoever reads `follow()` never sees an exception: what goes wrong between it and the store is
said as a value, and it connects again.  A gap in the stream means another snapshot:

- an entry names another predecessor than the revision we are at (trimmed, or lost and rewritten),
  or says that the revision was raised because writes may be lost, and our last one is not there;
- at a new connection the replication id differs, or our last entry is no longer there;
- the store is at another revision than the stream's end brings us to.

Stream ids are times, so a promoted replica soon has later ids than the ones we
know; XREAD alone would go on without an error.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from registry.address import StoreAddress, address_of
from registry.catalog import Catalog
from registry.changes import (
    Change,
    InstanceDown,
    InstanceUp,
    RevisionRaised,
    decode_answers,
    decode_change,
)
from registry.comparing import Comparison
from registry.errors import MalformedEntry, StoreUnavailable
from registry.keys import Keys, keys_of
from registry.model import decode_instance
from registry.redis_client import answer_to, connect, let_go

BLOCK_MS = 500
"""How long one XREAD waits: the store's pulse is read at least twice a second."""

PULSE_INTERVAL = 0.5
"""Seconds between two looks at the store's pulse."""

STALE_AFTER = 5.0
"""Seconds without a sweep after which the store is cut off from its registrars, or has none."""

BELIEVE_AFTER = 5.0
"""Seconds after which a store is believed whose revision was raised, though not above ours."""

COMPARE_SECONDS = 60.0
"""Between the beginnings of two comparisons with the store; each takes about as long."""

READ_COUNT = 512
"""Entries of one XREAD: folding them takes some 10 ms."""

SCAN_COUNT = 64
"""Instances of one step of a snapshot: decoding them takes about 2 ms, then others may run."""

SLICE = 500
"""Instances that are gone through between two turns of the loop, where nothing is decoded."""

SETTLE_EVERY = 4_000
"""Instances of a snapshot between two calls to settle."""

RECONNECT_MIN, RECONNECT_MAX = 0.05, 1.0
"""Seconds between two attempts to connect: doubled each time, from the one to the other."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The whole catalog anew.  `dead`: recently departed instances → revision of their Down."""

    catalog: Catalog
    dead: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pulse:
    """The store answered.  `current`: its registrars were heard of within STALE_AFTER."""

    current: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """The store does not answer, or cannot be believed yet; `error` says why."""

    error: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that is not ours to understand was passed over."""

    where: str
    error: str


@dataclass(frozen=True, slots=True)
class Differing:
    """The store holds these otherwise than the reader, unheard of; a snapshot follows."""

    keys: tuple[str, ...]


Event = Loaded | Change | Pulse | Lost | Skipped | Differing


@dataclass(slots=True)
class _Cursor:
    """Where we are in the stream: id of the last entry folded, its revision, whose stream.

    Not `held`: nowhere yet, or not any more.  `behind_since`: the store is behind its reader.
    """

    id: str = "0-0"
    revision: int = 0
    replid: str = ""
    held: bool = False
    behind_since: float | None = None


class _Gap(Exception):
    """The stream does not go on from our cursor."""


class _Connections:
    """How often we connected: a client connects again by itself, maybe to another server."""

    def __init__(self) -> None:
        self.made = 0

    def add(self) -> None:
        self.made += 1


async def follow(
    store: str | StoreAddress,
    zone: str,
    catalog: Callable[[], Catalog],
    settle: Callable[[], None] = lambda: None,
) -> AsyncGenerator[Event]:
    """All that happens in *zone*, for ever; a snapshot first.

    *catalog* is what the reader made of it, each event folded in before it asks for the next: a
    store below its revision that no registrar has raised yet is not believed, and it is compared
    with the store every COMPARE_SECONDS.  *settle* is called after every SETTLE_EVERY instances of
    a snapshot.
    """
    connections = _Connections()
    redis = connect(store, connected=connections.add)
    has_sentinels = bool(address_of(store).sentinels)
    keys = keys_of(zone)
    cursor = _Cursor()
    wait = RECONNECT_MIN
    try:
        while True:
            try:
                events = _connected(
                    redis, keys, cursor, connections, catalog, settle, has_sentinels
                )
                async with aclosing(events):
                    async for event in events:
                        wait = RECONNECT_MIN
                        yield event
            except _Gap:
                cursor.held = False
            except StoreUnavailable as error:
                await let_go(redis)
                yield Lost(str(error))
                await asyncio.sleep(wait)
                wait = min(wait * 2, RECONNECT_MAX)
    finally:
        await redis.aclose()


async def _connected(
    redis: Redis,
    keys: Keys,
    cursor: _Cursor,
    connections: _Connections,
    catalog: Callable[[], Catalog],
    settle: Callable[[], None],
    has_sentinels: bool,
) -> AsyncGenerator[Event]:
    """Events of one connection; *cursor* moves with them.  It ends when there is a new one."""
    replid = (await answer_to(redis.info("replication")))["master_replid"]
    ours = connections.made
    if not await _goes_on(redis, keys, cursor, replid):
        everything = await read_all(redis, keys, settle)
        if connections.made != ours:
            return
        revision = everything.catalog.revision
        known = catalog().revision
        if _is_unbelievable(cursor, revision, known, everything.raised_for == replid):
            raise StoreUnavailable(
                f"the store is at revision {revision}, behind {known},"
                " and no registrar has raised it yet"
            )
        for skipped in everything.skipped:
            yield skipped
        cursor.id, cursor.revision, cursor.replid = everything.last_id, revision, replid
        cursor.held = True
        yield Loaded(everything.catalog, everything.dead)
    loop = asyncio.get_running_loop()
    next_pulse, at_least = loop.time(), 0
    comparing = _Comparing(loop.time() + COMPARE_SECONDS)
    while True:
        if loop.time() >= next_pulse:
            pulse, at_least = await _pulse(redis, keys)
            if at_least < cursor.revision:
                raise _Gap
            yield pulse
            if has_sentinels and not pulse.current:
                # Cut off from the registrars it is still a primary in its own eyes, and looks
                # merely quiet: ask the Sentinels again.
                raise StoreUnavailable("no registrar sweeps the store")
            if differing := await comparing.go_on(redis, keys, catalog(), cursor.revision):
                yield Differing(tuple(sorted(differing)))
                raise _Gap
            next_pulse = loop.time() + PULSE_INTERVAL
        entries = await _read(redis, keys, cursor.id)
        if connections.made != ours:
            return
        # A store that came back with all it had raises its revision too.
        raised = any(fields.get("k") == "raised" for _, fields in entries)
        same_stream = raised and await _is_held(redis, keys, cursor.id)
        if connections.made != ours:
            return
        for entry_id, fields in entries:
            event = advance(cursor, entry_id, fields, same_stream=same_stream)
            if event is not None:
                yield event
        if not entries and cursor.revision < at_least:
            raise _Gap


def _is_unbelievable(cursor: _Cursor, revision: int, known: int, raised: bool) -> bool:
    """Whether to wait for a registrar that raises the store above what its reader has seen.

    One that had not seen as much may have begun the epoch: the others, who have, raise it again
    within a second.  After BELIEVE_AFTER nobody has seen it: it is another store than before.
    """
    if revision >= known:
        cursor.behind_since = None
        return False
    now = asyncio.get_running_loop().time()
    if cursor.behind_since is None or not raised:
        cursor.behind_since = now
    return now - cursor.behind_since < BELIEVE_AFTER


def advance(
    cursor: _Cursor, entry_id: str, fields: Mapping[str, str], *, same_stream: bool = False
) -> Change | Skipped | None:
    """Move *cursor* over an entry: its change, Skipped, or None when it was folded before.

    Raises _Gap when the entry does not follow what we have, or may not: a raised revision can
    meet ours by chance, after writes that we have seen were lost and others took their numbers;
    unless it is known to stand in the *same stream* as what we have.
    """
    cursor.id = entry_id
    try:
        change = decode_change(fields)
    except MalformedEntry as error:
        _follow_numbers(cursor, fields)
        return Skipped(f"change {entry_id}", str(error))
    if change.revision <= cursor.revision:
        return None
    if change.prev != cursor.revision or (isinstance(change, RevisionRaised) and not same_stream):
        raise _Gap
    cursor.revision = change.revision
    return change


def _follow_numbers(cursor: _Cursor, fields: Mapping[str, str]) -> None:
    """An entry we cannot read may still be one in our chain (a newer version wrote it)."""
    try:
        revision, prev = int(fields["r"]), int(fields["p"])
    except (KeyError, ValueError):
        return
    if prev == cursor.revision < revision:
        cursor.revision = revision


async def _goes_on(redis: Redis, keys: Keys, cursor: _Cursor, replid: str) -> bool:
    """Whether the stream is still the one that *cursor* was read from."""
    if not cursor.held or replid != cursor.replid:
        return False
    return cursor.id == "0-0" or await _is_held(redis, keys, cursor.id)


async def _is_held(redis: Redis, keys: Keys, entry_id: str) -> bool:
    """Whether the stream holds that very entry."""
    return bool(await answer_to(redis.xrange(keys.changes, entry_id, entry_id, count=1)))


async def _pulse(redis: Redis, keys: Keys) -> tuple[Pulse, int]:
    """Whether the store is swept, and the revision it is at."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hmget(keys.meta, "last_tick", "revision")
        (seconds, micros), (tick, revision) = await answer_to(pipe.execute())
    age = seconds + micros / 1e6 - _whole(tick) / 1000
    return Pulse(current=age <= STALE_AFTER), _whole(revision)


Entries = list[tuple[str, Mapping[str, str]]]


async def _read(redis: Redis, keys: Keys, after: str) -> Entries:
    """Entries later than *after*, at most BLOCK_MS waited for; often none."""
    answer: Any = await answer_to(
        redis.xread({keys.changes: after}, count=READ_COUNT, block=BLOCK_MS)
    )
    return [entry for _, entries in answer or () for entry in _readable(entries)]


def _readable(entries: Any) -> Entries:
    """Entries as (id, fields); one deleted while it was read has no fields."""
    return [(entry_id, fields or {}) for entry_id, fields in entries]


# --- comparing ---------------------------------------------------------------------------


class _Comparing:
    """Comparisons with the store, a little at each pulse."""

    def __init__(self, begin_at: float) -> None:
        self._begin_at = begin_at
        self._position = 0
        self._pass: Comparison | None = None

    async def go_on(self, redis: Redis, keys: Keys, catalog: Catalog, heard: int) -> set[str]:
        """Compare the next slices, if it is time; at the end of a pass, who differs."""
        now = asyncio.get_running_loop().time()
        if self._pass is None:
            if now < self._begin_at:
                return set()
            self._pass, self._begin_at = Comparison(), now + COMPARE_SECONDS
        slices = 1 + int(catalog.instance_count * PULSE_INTERVAL / COMPARE_SECONDS / SCAN_COUNT)
        for _ in range(slices):
            step: Any = await answer_to(
                redis.hscan(keys.instances, self._position, count=SCAN_COUNT)
            )
            self._position = int(step[0])
            self._pass.look_at(step[1], catalog, heard)
            if self._position == 0:
                done, self._pass = self._pass, None
                return done.differing | await _missing(redis, keys, catalog, heard, done)
        return set()


async def _missing(
    redis: Redis, keys: Keys, catalog: Catalog, heard: int, done: Comparison
) -> set[str]:
    """Whom the catalog has, but not the store, which is no further than what was heard."""
    unseen = []
    for count, key in enumerate(done.unseen(catalog)):
        if key:
            unseen.append(key)
        if count % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    found: set[str] = set()
    for start in range(0, len(unseen), SLICE):
        some = unseen[start : start + SLICE]
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hget(keys.meta, "revision")
            pipe.hmget(keys.instances, some)
            revision, values = await answer_to(pipe.execute())
        if _whole(revision) <= heard:
            found |= {key for key, value in zip(some, values, strict=True) if value is None}
    return found


# --- snapshots ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Everything:
    """What `read_all` found: the catalog at the stream's `last_id`, and who raised its revision."""

    catalog: Catalog
    dead: Mapping[str, int]
    last_id: str
    raised_for: str
    skipped: tuple[Skipped, ...]


async def read_all(
    redis: Redis, keys: Keys, settle: Callable[[], None] = lambda: None
) -> Everything:
    """The zone as it stands at some moment after the scan.

    The stream's last id and the revision are read at one moment, then the instances one by
    one, then what happened meanwhile is folded in: changes older than an instance lose.
    Who left meanwhile is among the dead, even when the scan came too late to see them.
    """
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hgetall(keys.meta)
        pipe.xrevrange(keys.changes, count=1)
        meta, last = await answer_to(pipe.execute())
    skipped: list[Skipped] = []
    catalog = Catalog(_whole(meta.get("revision")))
    cursor = _Cursor(last[0][0] if last else "0-0", catalog.revision)
    async for key, value in _scan(redis, keys):
        service = key.partition("/")[0]
        try:
            instance = decode_instance(value, meta.get(f"name:{service}", ""))
            if instance.registration.key != key:
                raise MalformedEntry("it is stored under another name than its own")
            catalog.put(instance)
            if catalog.instance_count % SETTLE_EVERY == 0:
                settle()
        except MalformedEntry as error:
            skipped.append(Skipped(f"instance {key[:130]}", str(error)))
    for field, value in meta.items():
        if field.startswith("gone:"):
            service = field.removeprefix("gone:")
            _put_gone(catalog, service, value, meta.get(f"name:{service}"), skipped)
        elif field.startswith("answers:"):
            _put_answers(catalog, field.removeprefix("answers:"), value, skipped)
    dead = {
        field.removeprefix("dead:"): _whole(value.partition(" ")[0])
        for field, value in meta.items()
        if field.startswith("dead:")
    }
    unseen: set[str] = set()
    more, raised = True, False
    while more:
        entries = await _after(redis, keys, cursor.id)
        # A short answer was the end of the stream, later than the scan.  To wait for an empty
        # one would be to wait for a moment in which nobody writes.
        more = len(entries) == READ_COUNT
        for entry_id, fields in entries:
            try:
                change = advance(cursor, entry_id, fields, same_stream=True)
            except _Gap:
                return await read_all(redis, keys, settle)
            match change:
                case Skipped():
                    skipped.append(change)
                    continue
                case None:
                    continue
                case RevisionRaised():
                    raised = True
                case InstanceUp(instance):
                    dead.pop(instance.registration.key, None)
                case InstanceDown(service, instance_id):
                    dead[f"{service}/{instance_id}"] = change.revision
                    if catalog.service(service) is None:
                        unseen.add(service)
            catalog.apply(change)
    for service in unseen:
        # Its last instance left before the scan came by: only the tombstone tells its ports.
        known: Any = await answer_to(redis.hmget(keys.meta, f"gone:{service}", f"name:{service}"))
        _put_gone(catalog, service, known[0], known[1], skipped)
    catalog.revision = max(catalog.revision, cursor.revision)
    raised_for = meta.get("replid", "")
    if raised:
        raised_for = await answer_to(redis.hget(keys.meta, "replid")) or ""
    return Everything(catalog, dead, cursor.id, raised_for, tuple(skipped))


async def _scan(redis: Redis, keys: Keys) -> AsyncIterator[tuple[str, str]]:
    """Every stored instance, at least once each; others may run between two steps."""
    position = 0
    while True:
        step: Any = await answer_to(redis.hscan(keys.instances, position, count=SCAN_COUNT))
        position, found = int(step[0]), step[1]
        for key, value in found.items():
            yield key, value
        if position == 0:
            return


async def _after(redis: Redis, keys: Keys, entry_id: str) -> Entries:
    """The entries that follow *entry_id* now, at most READ_COUNT."""
    found: Any = await answer_to(redis.xrange(keys.changes, f"({entry_id}", count=READ_COUNT))
    return _readable(found)


def _put_gone(
    catalog: Catalog, service: str, value: str | None, name: str | None, skipped: list[Skipped]
) -> None:
    if value is not None:
        try:
            catalog.put_gone(decode_instance(value, name or ""))
        except MalformedEntry as error:
            skipped.append(Skipped(f"meta gone:{service[:130]}", str(error)))


def _put_answers(catalog: Catalog, service: str, value: str, skipped: list[Skipped]) -> None:
    try:
        catalog.put_answers(service, decode_answers(value))
    except MalformedEntry as error:
        skipped.append(Skipped(f"meta answers:{service[:130]}", str(error)))


def _whole(text: str | None) -> int:
    """A number of ours, or 0 for what is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 17 else 0
