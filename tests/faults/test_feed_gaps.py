"""The store loses what it had, holds what is not ours, hangs or dies: what a follower makes of it.

Real servers, each broken in earnest.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from registry import feed
from registry.catalog import Catalog
from registry.errors import StoreUnavailable
from registry.follower import Follower
from registry.keys import keys_of
from registry.leases import Renewal, Renewed
from registry.model import Instance, encode_instance
from registry.store import RedisStore
from tests.support.following import agrees, beat, beating, following, running
from tests.support.lease_worlds import a_registration, begin
from tests.support.relay import Relay
from tests.support.store import StoreServer, free_port
from tests.support.waiting import until


class Zone:
    """A zone on a server: its store, its keys, and the server itself."""

    def __init__(self, server: StoreServer, url: str = "") -> None:
        self.server = server
        self.name = server.fresh_zone()
        self.keys = keys_of(self.name)
        self.url = url or server.url
        self.store = RedisStore(self.url, self.name)

    async def register(self, *ids: str, service: str = "payments") -> None:
        for i in ids:
            await self.store.register(a_registration(service, i), lease_id="x")


@pytest.fixture
async def zone(store_server: StoreServer) -> AsyncIterator[Zone]:
    """A zone on the common server, for what harms nobody else."""
    made = Zone(store_server)
    begin(store_server, made.name)
    yield made
    await made.store.close()


@pytest.fixture
async def own_zone() -> AsyncIterator[Zone]:
    """A zone on a server of its own, append-only, to be broken."""
    with StoreServer(append_only=True) as server:
        made = Zone(server)
        yield made
        await made.store.close()


# --- losing the thread -------------------------------------------------------------------------


async def test_a_cut_connection_goes_on_from_its_cursor(zone: Zone) -> None:
    """No snapshot for a short absence: the stream still holds what was missed."""
    async with (
        Relay(zone.server.socket_path) as relay,
        following(relay.url, zone.name) as follower,
    ):
        await zone.register("a")
        await until(lambda: agrees(follower, zone.store))
        relay.cut()
        await zone.register("b", "c")
        await until(lambda: "Connection" in follower.error)
        relay.lead_to(zone.server.socket_path)

        await until(lambda: agrees(follower, zone.store))
        assert follower.snapshots == 1


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_stream_trimmed_beyond_the_cursor_means_a_snapshot(zone: Zone, kept: int) -> None:
    async with (
        Relay(zone.server.socket_path) as relay,
        following(relay.url, zone.name) as follower,
    ):
        await zone.register("a", "b")
        await until(lambda: agrees(follower, zone.store))
        relay.cut()
        await zone.store.deregister("payments/a")
        await zone.register("c", "d")
        zone.server.command("XTRIM", zone.keys.changes, "MAXLEN", kept)
        relay.lead_to(zone.server.socket_path)

        await until(lambda: agrees(follower, zone.store))
        assert follower.snapshots == 2
        assert follower.catalog.unconfirmed == 0


@pytest.mark.parametrize("and_another", [False, True])
async def test_a_change_that_the_stream_does_not_show_is_found(
    zone: Zone, and_another: bool
) -> None:
    """Trimmed before anyone read it: by the next entry's predecessor, or by the revision alone."""
    async with following(zone.url, zone.name) as follower:
        await zone.register("a")
        await until(lambda: agrees(follower, zone.store))
        hidden = Instance(a_registration(instance="hidden"), 2, "x", 1)
        zone.server.command(
            "EVAL",
            "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"
            "redis.call('HINCRBY', KEYS[2], 'revision', 1)",
            *(2, zone.keys.instances, zone.keys.meta),
            *(hidden.registration.key, encode_instance(hidden)),
        )
        if and_another:
            await zone.register("b")

        await until(lambda: "hidden" in follower.catalog.instances("payments"))
        assert await agrees(follower, zone.store)


async def test_after_a_flush_everyone_stays_until_a_registrar_has_spoken_and_after_it_too(
    own_zone: Zone,
) -> None:
    """T42: an empty store is no empty world; who does not come back leaves by its own lease."""
    zone = own_zone
    async with following(zone.url, zone.name) as follower:
        await beat(zone.store)
        await zone.register("a", "b")
        await until(lambda: follower.catalog.instance_count == 2 and follower.current)
        known = follower.catalog.revision

        zone.server.command("FLUSHALL")
        await zone.register("a")
        await until(lambda: "no registrar has raised it yet" in follower.error)
        assert set(follower.catalog.instances("payments")) == {"a", "b"}
        assert not follower.current

        await beat(zone.store, known)
        await until(lambda: follower.current)
        assert set(follower.catalog.instances("payments")) == {"a", "b"}
        assert follower.catalog.unconfirmed == 1
        assert follower.catalog.revision > known

        await zone.register("b")
        await until(lambda: follower.catalog.unconfirmed == 0)
        assert await agrees(follower, zone.store)


async def test_another_store_with_lower_revisions_is_believed_in_the_end(
    own_zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's new store, swept by new registrars: nobody is left who would raise it."""
    monkeypatch.setattr(feed, "BELIEVE_AFTER", 0.3)
    zone = own_zone
    follower = Follower(zone.url, zone.name)
    follower.start_from(Catalog(10**12))
    async with running(follower):
        await zone.register("a")
        await until(lambda: "no registrar has raised it yet" in follower.error)
        await until(lambda: follower.loaded)

        assert set(follower.catalog.instances("payments")) == {"a"}
        assert follower.known_revision == follower.catalog.revision


async def test_a_deregistration_ends_also_whom_the_store_does_not_know(own_zone: Zone) -> None:
    zone = own_zone
    async with following(zone.url, zone.name) as follower:
        await beat(zone.store)
        await zone.register("a")
        await until(lambda: follower.catalog.instance_count == 1)
        zone.server.command("FLUSHALL")
        await beat(zone.store, follower.catalog.revision)
        await until(lambda: follower.catalog.unconfirmed == 1)

        assert (await zone.store.deregister("payments/a"))[0] is False

        await until(lambda: follower.catalog.instance_count == 0)


async def test_a_primary_that_lost_its_last_writes_is_noticed() -> None:
    """T50: ids of a stream are times, so a promoted replica soon has later ones than the cursor,
    and XREAD goes on without an error; here even within one call, which connects anew by itself.
    """
    with StoreServer(port=free_port()) as primary, StoreServer(port=free_port()) as replica:
        replica.command("REPLICAOF", "127.0.0.1", primary.port)
        await until(lambda: link_of(replica) == "up")
        async with Relay(primary.socket_path) as relay:
            zone = Zone(primary, relay.url)
            async with following(relay.url, zone.name) as follower:
                await beat(zone.store)
                await zone.register("a")
                await until(lambda: agrees(follower, zone.store))
                await until(lambda: replica.command("HLEN", zone.keys.instances) == 1)

                replica.pause()
                primary.command("CLIENT", "KILL", "TYPE", "replica")  # nothing is under way
                await zone.register("lost")
                await until(lambda: "lost" in follower.catalog.instances("payments"))
                primary.kill()
                replica.resume()
                replica.command("REPLICAOF", "NO", "ONE")
                relay.lead_to(replica.socket_path)
                # It takes the number of the one that was lost, so its number tells nothing.
                await zone.register("new")

                await until(lambda: "new" in follower.catalog.instances("payments"))
                await beat(zone.store, follower.catalog.revision)
                await until(lambda: follower.current)
                assert set(follower.catalog.instances("payments")) == {"a", "lost", "new"}
                assert follower.catalog.unconfirmed == 1
                held = (await zone.store.snapshot()).instances
                assert {i.id for i in held} == {"a", "new"}

                await zone.store.deregister("payments/lost")
                await until(lambda: agrees(follower, zone.store))
            await zone.store.close()


def link_of(replica: StoreServer) -> str:
    status: str = replica.command("INFO", "replication")["master_link_status"]
    return status


# --- dying, hanging ------------------------------------------------------------------------------


async def test_a_store_killed_and_started_again_has_everything(own_zone: Zone) -> None:
    """kill -9 loses no acknowledged registration (appendonly), and nobody leaves meanwhile."""
    zone = own_zone
    async with following(zone.url, zone.name) as follower:
        await beat(zone.store)
        await zone.register("a", "b")
        await until(lambda: follower.catalog.instance_count == 2)
        zone.server.kill()
        await until(lambda: not follower.current)
        with pytest.raises(StoreUnavailable):
            await zone.register("c")
        assert follower.catalog.instance_count == 2

        zone.server.start()

        await beat(zone.store, follower.catalog.revision)
        await zone.register("c")
        await until(lambda: agrees(follower, zone.store))
        assert set(follower.catalog.instances("payments")) == {"a", "b", "c"}
        assert follower.catalog.unconfirmed == 0
        await until(lambda: follower.current)


async def test_a_store_that_hangs_is_not_current_until_it_answers_again(own_zone: Zone) -> None:
    zone = own_zone
    async with following(zone.url, zone.name) as follower:
        await beat(zone.store)
        await zone.register("a")
        await until(lambda: follower.current and follower.catalog.instance_count == 1)
        now = asyncio.get_running_loop().time
        assert follower.age(now()) == 0.0

        before = follower.losses
        zone.server.pause()
        await until(lambda: not follower.current, seconds=10)
        assert follower.age(now()) > 0.0
        assert follower.catalog.instance_count == 1
        zone.server.resume()

        async with beating(zone.store):
            await until(lambda: follower.current, seconds=10)
        assert follower.losses == before + 1


async def test_a_store_that_nobody_sweeps_is_not_current(zone: Zone) -> None:
    """A primary cut off from its registrars looks merely quiet."""
    async with following(zone.url, zone.name) as follower:
        await zone.store.sweep()
        await until(lambda: follower.current)
        seconds, _ = zone.server.command("TIME")
        zone.server.command("HSET", zone.keys.meta, "last_tick", (seconds - 6) * 1000)

        await until(lambda: follower.error == "no registrar sweeps the store")
        assert not follower.current
        await zone.store.sweep()
        await until(lambda: follower.current)


async def test_scripts_that_the_server_forgot_are_given_to_it_again(own_zone: Zone) -> None:
    zone = own_zone
    await zone.register("a")
    await zone.store.renew([Renewal("payments/a")])

    zone.server.command("SCRIPT", "FLUSH")
    assert await zone.store.renew([Renewal("payments/a")]) == [Renewed(60.0)]
    zone.server.command("SCRIPT", "FLUSH")
    await zone.register("b")
    assert (await zone.store.sweep()).evicted == ()


# --- what is not ours ---------------------------------------------------------------------------


def entry_of(instance_id: str) -> str:
    return encode_instance(Instance(a_registration(instance=instance_id), 5, "x", 1))


GARBAGE = {
    b"payments/empty": b"",
    b"payments/words": b"hello",
    b"payments/bytes": b"\xff\xfe\x00\n\n\n\x80",
    b"payments/utf8": entry_of("utf8").encode().replace(b"/health", b"/he\xfflth"),
    b"payments/lines": b"1 2 3 4 5 6\n\n\n\n\n",
    b"payments/newer": entry_of("newer").replace("1 ", "2 ", 1).encode(),
    b"payments/other": entry_of("someone-else").encode(),
    b"payments/port": entry_of("port").replace("8080", "80800").encode(),
    b"payments/huge": b"1 1 x 1 1 1\nserving\n\n" + b"[" * 200_000,
    b"\xff\xff": b"\xff",
}


async def test_garbage_in_the_hash_is_skipped_counted_and_named_once(
    zone: Zone, caplog: pytest.LogCaptureFixture
) -> None:
    await zone.register("good")
    for key, value in GARBAGE.items():
        zone.server.command("HSET", zone.keys.instances, key, value)
    meta = {"gone:orders": b"\xff", "dead:x/y": b"\xff z", "answers:orders": b"many"}
    zone.server.command("HSET", zone.keys.meta, *(word for pair in meta.items() for word in pair))
    bad = len(GARBAGE) + 2

    with caplog.at_level(logging.WARNING):
        async with following(zone.url, zone.name) as follower:
            await until(lambda: follower.loaded)
            assert set(follower.catalog.instances("payments")) == {"good"}
            assert follower.malformed == bad
            zone.server.command("HINCRBY", zone.keys.meta, "revision", 1)  # another snapshot
            await until(lambda: follower.snapshots == 2)
            assert follower.malformed == 2 * bad

    named = [r for r in caplog.records if r.getMessage() == "entry skipped"]
    assert len(named) == bad


async def test_garbage_in_the_stream_is_passed_over_and_the_rest_is_served(zone: Zone) -> None:
    changes = zone.keys.changes
    async with following(zone.url, zone.name) as follower:
        await zone.register("a")
        await until(lambda: agrees(follower, zone.store))
        for words in (
            ["k", "v"],
            [b"\xff", b"\xfe"],
            ["r", "x", "p", "y", "k", "up", "m", "payments/z"],
            ["r", "1" * 5000, "p", "0", "k", "up", "m", "payments/z"],
            ["r", "0", "p", "0", "k", "down", "m", "payments/a"],
        ):
            zone.server.command("XADD", changes, "*", *words)
        await zone.register("b")

        await until(lambda: agrees(follower, zone.store))
        assert follower.malformed == 5
        assert follower.snapshots == 1


@pytest.mark.parametrize("kind", ["renamed", "up"])
async def test_an_entry_of_a_newer_version_is_one_link_of_the_chain(zone: Zone, kind: str) -> None:
    """T34: what a newer registrar writes is skipped and counted, and costs no snapshot."""
    async with following(zone.url, zone.name) as follower:
        await zone.register("a")
        await until(lambda: agrees(follower, zone.store))
        zone.server.command(
            "EVAL",
            "local r = redis.call('HINCRBY', KEYS[1], 'revision', 1)"
            "redis.call('XADD', KEYS[2], '*', 'r', r, 'p', r - 1, 'k', ARGV[1],"
            " 'm', 'payments/n', 'v', '2 new\\n\\n\\n')",
            *(2, zone.keys.meta, zone.keys.changes, kind),
        )
        await zone.register("b")

        await until(lambda: agrees(follower, zone.store))
        assert (follower.malformed, follower.snapshots) == (1, 1)


async def test_whoever_registers_where_garbage_stands_replaces_it(zone: Zone) -> None:
    zone.server.command("HSET", zone.keys.instances, "payments/a", b"\xff")

    assert await zone.store.renew([Renewal("payments/a")]) != [Renewed(60.0)]
    granted = await zone.store.register(a_registration(instance="a"), lease_id="x")

    assert granted.created
    assert (await zone.store.snapshot()).instances == (replace(granted.instance),)


async def test_keys_of_another_type_are_said_and_survived(zone: Zone) -> None:
    zone.server.command("SET", zone.keys.changes, "not a stream")
    async with following(zone.url, zone.name) as follower:
        await until(lambda: "WRONGTYPE" in follower.error)
        zone.server.command("DEL", zone.keys.changes)
        await zone.register("a")
        await until(lambda: agrees(follower, zone.store))


async def test_a_last_tick_that_is_no_number_is_no_pulse(zone: Zone) -> None:
    zone.server.command("HSET", zone.keys.meta, "last_tick", "9" * 400)
    async with following(zone.url, zone.name) as follower:
        await until(lambda: follower.error == "no registrar sweeps the store")
        zone.server.command("HDEL", zone.keys.meta, "last_tick")
        await zone.store.sweep()
        await until(lambda: follower.current)


# --- comparing --------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons begin twice a second, and not once a minute."""
    monkeypatch.setattr(feed, "COMPARE_SECONDS", 0.5)


@pytest.mark.usefixtures("often")
async def test_an_instance_whose_change_nobody_could_read_is_found_by_comparing(
    zone: Zone, caplog: pytest.LogCaptureFixture
) -> None:
    """Its entry in the stream was spoilt, and the store holds it all the same."""
    async with following(zone.url, zone.name) as follower:
        await zone.register("a")
        await until(lambda: agrees(follower, zone.store))
        hidden = Instance(a_registration(instance="hidden"), 2, "x", 1)
        zone.server.command("HSET", zone.keys.meta, "revision", 2)
        zone.server.command(
            *("HSET", zone.keys.instances, hidden.registration.key, encode_instance(hidden))
        )
        zone.server.command("XADD", zone.keys.changes, "*", *"r 2 p 1 k up m x v broken".split())

        await until(lambda: "hidden" in follower.catalog.instances("payments"))
        assert follower.repaired == 1
        assert any("differs from the store" in message for message in caplog.messages)
        await zone.register("b")
        await until(lambda: agrees(follower, zone.store))


@pytest.mark.usefixtures("often")
async def test_an_instance_that_somebody_took_out_of_the_store_is_found_by_comparing(
    zone: Zone,
) -> None:
    """It is kept as one whom a snapshot lacks: nobody leaves without a Down."""
    async with following(zone.url, zone.name) as follower:
        await zone.register("a", "b")
        await until(lambda: agrees(follower, zone.store))
        zone.server.command("HDEL", zone.keys.instances, "payments/b")

        await until(lambda: follower.catalog.unconfirmed == 1)
        assert follower.repaired == 1
        snapshots = follower.snapshots
        await zone.register("c")
        await until(lambda: "c" in follower.catalog.instances("payments"))
        assert follower.snapshots == snapshots, "what is known to be missing is not found again"


@pytest.mark.usefixtures("often")
async def test_comparing_finds_nothing_while_everybody_writes_nor_in_what_is_not_ours(
    zone: Zone,
) -> None:
    zone.server.command("HSET", zone.keys.instances, "web/broken", "callboard1 1 x 1 0 60000\nno")
    async with following(zone.url, zone.name) as follower:
        for turn in range(40):
            for n in range(10):
                key = f"payments/i{n}"
                await zone.store.register(
                    a_registration(instance=f"i{n}", port=turn + 1), lease_id="x"
                )
                if (turn + n) % 3 == 0:
                    await zone.store.deregister(key)
            await asyncio.sleep(0.05)
        await until(lambda: agrees(follower, zone.store))

        assert follower.repaired == 0
        assert follower.snapshots == 1
