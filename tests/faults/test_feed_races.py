"""Everyone writes while someone reads, and calls are cancelled at any moment."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from registry.catalog import Catalog
from registry.changes import Change, decode_change
from registry.errors import CallboardError
from registry.feed import Everything, read_all
from registry.follower import Follower
from registry.keys import Keys, keys_of
from registry.leases import Renewal, Renewed
from registry.model import Instance
from registry.redis_client import connect
from registry.store import RedisStore
from tests.support.following import agrees, following, membership
from tests.support.lease_worlds import a_registration, begin
from tests.support.store import StoreServer
from tests.support.waiting import until

SEED = 20261124
CROWD = 600
"""Instances that stand by: enough for a scan of several steps."""

WRITERS, WRITES = 4, 150
CANCELLED_CALLS = 1500


@pytest.fixture
def zone(store_server: StoreServer) -> str:
    zone = store_server.fresh_zone()
    begin(store_server, zone)
    return zone


@pytest.fixture
async def store(store_server: StoreServer, zone: str) -> AsyncIterator[RedisStore]:
    made = RedisStore(store_server.url, zone)
    yield made
    await made.close()


async def crowd(store: RedisStore) -> None:
    await asyncio.gather(
        *(store.register(a_registration("crowd", f"c{n}"), lease_id=f"l{n}") for n in range(CROWD))
    )


# --- snapshots while others write -------------------------------------------------------------


async def read_while(
    server: StoreServer, keys: Keys, meanwhile: Callable[[], Awaitable[Any]]
) -> Everything:
    """A snapshot in which *meanwhile* happens after its first look and before its scan."""
    redis = connect(server.url)
    scan = redis.hscan
    happened = False

    async def late_scan(*args: Any, **options: Any) -> Any:
        nonlocal happened
        if not happened:
            happened = True
            await meanwhile()
        return await scan(*args, **options)

    setattr(redis, "hscan", late_scan)  # noqa: B010 - a method, which mypy lets nobody assign
    try:
        return await read_all(redis, keys)
    finally:
        await redis.aclose()


async def test_who_leaves_while_a_snapshot_is_read_is_dead_and_its_service_known(
    store_server: StoreServer, zone: str, store: RedisStore
) -> None:
    """Else a reader would keep it as unconfirmed, and take its service for unknown (NXDOMAIN)."""
    await store.register(a_registration("nmap_service", "a"), lease_id="x")

    read = await read_while(store_server, keys_of(zone), lambda: store.deregister("nmap-service/a"))

    assert dict(read.dead) == {"nmap-service/a": 2}
    service = read.catalog.service("nmap-service")
    assert service is not None
    assert service.last is not None
    assert (service.name, dict(service.instances), service.last.id) == ("nmap_service", {}, "a")
    assert membership(read.catalog.snapshot()) == membership(await store.snapshot())


async def test_who_arrives_or_changes_while_a_snapshot_is_read_is_in_it(
    store_server: StoreServer, zone: str, store: RedisStore
) -> None:
    await store.register(a_registration(instance="a"), lease_id="x")
    await store.deregister("payments/a")

    async def meanwhile() -> None:
        await store.register(a_registration(instance="a"), lease_id="y")
        await store.register(a_registration(instance="b"), lease_id="z")
        await store.set_state("payments/b", "draining", "")

    read = await read_while(store_server, keys_of(zone), meanwhile)

    assert dict(read.dead) == {}
    assert read.catalog.revision == 5
    assert membership(read.catalog.snapshot()) == membership(await store.snapshot())


async def test_a_snapshot_goes_on_when_the_revision_is_raised_under_it(
    store_server: StoreServer, zone: str, store: RedisStore
) -> None:
    await store.register(a_registration(instance="a"), lease_id="x")

    read = await read_while(store_server, keys_of(zone), lambda: store.begin_epoch(10**9))

    assert read.catalog.revision == (await store.snapshot()).revision > 10**9
    assert read.raised_for == raised_for(store_server, zone)


def raised_for(server: StoreServer, zone: str) -> str:
    return str(server.command("HGET", keys_of(zone).meta, "replid").decode())


async def test_a_revision_that_is_raised_over_all_that_was_heard_costs_no_snapshot(
    store_server: StoreServer, zone: str, store: RedisStore
) -> None:
    """A large zone that starts cold would be read twice."""
    await store.register(a_registration(instance="a"), lease_id="x")
    async with following(store_server.url, zone) as follower:
        await until(lambda: agrees(follower, store))
        await store.begin_epoch(10**12)
        await store.register(a_registration(instance="b"), lease_id="x")

        await until(lambda: agrees(follower, store))
        assert follower.snapshots == 1
        assert follower.catalog.revision > 10**12


async def test_a_snapshot_ends_although_somebody_always_writes(
    store_server: StoreServer, zone: str, store: RedisStore
) -> None:
    """It is complete as of its scan; to wait for a quiet moment could be to wait for ever."""
    other = RedisStore(store_server.url, zone)
    redis = connect(store_server.url)
    look, looks = redis.xrange, 0

    async def write_before_each_look(*args: Any, **options: Any) -> Any:
        nonlocal looks
        looks += 1
        await other.register(a_registration(port=looks), lease_id="x")
        return await look(*args, **options)

    setattr(redis, "xrange", write_before_each_look)  # noqa: B010 - as above
    async with asyncio.timeout(10):
        read = await read_all(redis, keys_of(zone))
    await redis.aclose()
    await other.close()

    assert read.catalog.revision == looks
    assert membership(read.catalog.snapshot()) == membership(await store.snapshot())


async def write_at_random(store: RedisStore, rng: random.Random) -> None:
    """Registrations, changes and departures of few names, so that they meet."""
    for _ in range(WRITES):
        service, i = rng.choice(["s1", "s2", "crowd"]), f"c{rng.randrange(12)}"
        key = f"{service}/{i}"
        try:
            match rng.randrange(7):
                case 0 | 1 | 2:
                    wanted = a_registration(service, i, port=rng.randrange(1, 4))
                    await store.register(wanted, lease_id="x")
                case 3:
                    await store.deregister(key)
                case 4:
                    await store.set_state(key, rng.choice(["serving", "draining"]), "")
                case 5:
                    await store.deregister_service(rng.choice(["s1", "s2"]), [])
                case 6:
                    await store.set_answers(service, rng.randrange(3))
        except CallboardError:
            pass  # not found: it left a moment ago


async def test_a_snapshot_is_the_fold_of_all_changes_up_to_its_revision(
    store_server: StoreServer, zone: str, store: RedisStore
) -> None:
    """L5, with four writers, readers from the start and from the middle, and snapshots anywhere."""
    await crowd(store)
    rng = random.Random(SEED)
    snapshots = []
    async with following(store_server.url, zone) as early:
        writing = asyncio.gather(
            *(write_at_random(store, random.Random(rng.random())) for _ in range(WRITERS))
        )
        while not writing.done():
            snapshots.append(await store.snapshot())
        await writing
        async with following(store_server.url, zone) as late:
            await until(lambda: agrees(early, store))
            await until(lambda: agrees(late, store))
        assert early.snapshots == 1
        assert early.malformed == 0

    changes = changes_of(store_server, zone)
    assert [c.prev for c in changes] == [0, *(c.revision for c in changes[:-1])]
    assert snapshots
    for snapshot in snapshots:
        folded = Catalog()
        for change in changes[: snapshot.revision]:
            folded.apply(change)
        assert instances_of(snapshot) == instances_of(folded.snapshot())
    assert membership(folded_all(changes)) == membership(await store.snapshot())


def changes_of(server: StoreServer, zone: str) -> list[Change]:
    entries = server.command("XRANGE", keys_of(zone).changes, "-", "+")
    return [
        decode_change({k.decode(): v.decode() for k, v in fields.items()}) for _, fields in entries
    ]


def folded_all(changes: list[Change]) -> Any:
    catalog = Catalog()
    for change in changes:
        catalog.apply(change)
    return catalog.snapshot()


def instances_of(snapshot: Any) -> dict[str, Instance]:
    return {i.registration.key: i for i in snapshot.instances}


# --- cancellation ------------------------------------------------------------------------------


async def cancelled_after(turns: int, call: Awaitable[Any]) -> Any:
    """What *call* answers, unless it is cancelled before: then None."""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


async def test_a_cancelled_call_never_hands_its_answer_to_another(store: RedisStore) -> None:
    """T44: the next user of a connection must not read what the one before had asked."""
    rng = random.Random(SEED)
    answered = 0

    async def one(n: int) -> None:
        nonlocal answered
        wanted = a_registration("nonce", f"n{n}", lease_ttl=10 + n)
        turns = rng.randrange(200)
        if n % 3:
            granted = await cancelled_after(turns, store.register(wanted, lease_id=f"l{n}"))
            if granted is not None:
                answered += 1
                assert (granted.instance.registration, granted.created) == (wanted, True)
        else:
            mine = Renewal(f"crowd/c{n % CROWD}", f"l{n % CROWD}")
            results = await cancelled_after(turns, store.renew([mine, Renewal("none/none")]))
            if results is not None:
                answered += 1
                assert [type(r) for r in results][:1] == [Renewed]
                assert len(results) == 2

    await crowd(store)
    for start in range(0, CANCELLED_CALLS, 25):
        await asyncio.gather(*(one(n) for n in range(start, start + 25)))

    assert 0 < answered < CANCELLED_CALLS
    assert await store.deregister("nonce/none") == (False, (await store.snapshot()).revision)


async def test_a_follower_ends_wherever_it_is_cancelled(
    store_server: StoreServer, zone: str, store: RedisStore
) -> None:
    """A cancellation that got lost in sending a command would keep a process from stopping."""
    for turns in range(150):
        follower = Follower(store_server.url, zone)
        task = asyncio.create_task(follower.run())
        writing = asyncio.create_task(store.register(a_registration(port=turns + 1), lease_id="x"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=10)
        assert done, f"still running, cancelled after {turns} turns of the loop"
        assert task.cancelled()
        await writing
