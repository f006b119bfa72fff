"""Services restart under load, one instance after the other: no idempotent request fails."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from resolver_gateway import srv
from tests.support.http import ZONE, DnsStub, Upstream, World, gateway
from tests.support.waiting import until

CLIENTS = 12


class Load:
    """Clients that ask one thing after the other, each with an id of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._going = True
        self.statuses: Counter[int] = Counter()
        self.lost = 0
        self.problems: list[bytes] = []
        """What the gateway said of those that it could not serve."""

    async def run(self, number: int) -> None:
        client = await self._world.client()
        count = 0
        while self._going:
            count += 1
            head = f"GET /v2/payments/{number}-{count} HTTP/1.1\r\nHost: g\r\n\r\n"
            try:
                await client.send(head.encode())
                answer = await client.answer()
            except (OSError, EOFError):
                self.lost += 1
                client = await self._world.client()
                continue
            self.statuses[answer.status] += 1
            if answer.status != 200:
                self.problems.append(answer.body)
            if answer.status == 200:
                assert answer.body == f"/{number}-{count}".encode()

    def end(self) -> None:
        self._going = False

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())


def echo(upstream: Upstream, request: bytes) -> list[bytes]:
    target = request.split(b" ")[1]
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target)]


@contextlib.asynccontextmanager
async def under_load(world: World) -> AsyncIterator[Load]:
    load = Load(world)
    tasks = [asyncio.ensure_future(load.run(n)) for n in range(CLIENTS)]
    try:
        yield load
    finally:
        load.end()
        await asyncio.gather(*tasks)


async def some_more(load: Load, requests: int = 150) -> None:
    """Return when *requests* more were answered."""
    goal = load.answered + requests
    await until(lambda: load.answered >= goal, 20)


@pytest.mark.parametrize("warned", [True, False])
async def test_a_rolling_restart_fails_nobody(warned: bool) -> None:
    """*warned*: out of DNS first, as a sidecar does it.  Else it dies, and DNS learns it later."""
    running = [await Upstream(f"one-{n}", echo).start() for n in range(3)]
    async with gateway(*running, dns=DnsStub(ttl=1)) as world, under_load(world) as load:
        instances = world.dns.instances["payments"]
        for round_ in range(2):
            for n in range(3):
                await some_more(load)
                old = running[n]
                successor = await Upstream(f"new-{round_}-{n}", echo).start()
                if warned:
                    instances[n] = successor.record
                    world.clock.shift += 1.1
                    await some_more(load)
                await old.stop()
                await some_more(load)
                instances[n] = successor.record
                world.clock.shift += 1.1
                running[n] = successor
        await some_more(load)

        assert not load.problems
        assert load.statuses.keys() == {200}
        assert load.lost == 0
    for upstream in running:
        await upstream.stop()


async def test_all_instances_die_and_others_are_there_at_once() -> None:
    """In a second everything is replaced, within the TTL: what DNS said is no use to anyone."""
    old = [await Upstream(f"old-{n}", echo).start() for n in range(3)]
    async with gateway(*old, dns=DnsStub(ttl=3600)) as world, under_load(world) as load:
        await some_more(load)
        new = [await Upstream(f"new-{n}", echo).start() for n in range(3)]
        world.dns.instances["payments"] = [u.record for u in new]
        world.clock.shift += 1.1
        await asyncio.gather(*(upstream.stop() for upstream in old))
        await some_more(load)

        assert not load.problems
        assert load.statuses.keys() == {200}
        assert load.lost == 0
        load.end()
    for upstream in new:
        await upstream.stop()


async def test_dns_is_away_for_a_minute_and_comes_back_elsewhere() -> None:
    up = await Upstream("known", echo).start()
    elsewhere = DnsStub(ttl=1)
    elsewhere.instances["payments"] = [up.record]
    async with gateway(up, dns=DnsStub(ttl=1)) as world, under_load(world) as load:
        await some_more(load)
        world.dns.silent = True
        for _ in range(60):
            world.clock.shift += 1
            await some_more(load, 15)
        stale = world.counts.resolutions["stale"]
        assert stale > 500
        world.handler.resolver._client.use_servers([await elsewhere.start()])
        await until(lambda: elsewhere.asked)
        await some_more(load)

        assert not load.problems
        assert load.statuses.keys() == {200}
        assert load.lost == 0
    elsewhere.stop()


async def test_a_removed_instance_gets_no_request_later_than_its_ttl_and_a_second() -> None:
    """Forty removals; and what it takes: 1.25 look-ups a TTL, and one for each that empties."""
    ttl = 5
    one, two = await Upstream("one", echo).start(), await Upstream("two", echo).start()
    async with gateway(one, two, dns=DnsStub(ttl=ttl)) as world:
        began = world.clock()
        for removal in range(40):
            leaving, staying = (one, two) if removal % 2 else (two, one)
            world.dns.instances["payments"] = [staying.record]
            removed_at = world.clock()
            before = len(leaving.requests)
            last = removed_at
            while world.clock() < removed_at + ttl + 2:
                await world.get("/v2/payments/")
                if len(leaving.requests) > before:
                    before, last = len(leaving.requests), world.clock()
                world.clock.shift += 0.31
            assert last <= removed_at + ttl + 1
            world.dns.instances["payments"] = [one.record, two.record]
            world.clock.shift += ttl
            await world.get("/v2/payments/")
        asked = world.dns.asked.count((srv.srv_name("payments", ZONE), "SRV"))
        assert asked <= 1.25 * (world.clock() - began) / ttl + 1
