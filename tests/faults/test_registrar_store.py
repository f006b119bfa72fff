"""The registrar over a real store that is late, killed, paused or emptied."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from registrar.config import Config
from registrar.service import Service, build
from registry.runtime.config import Common, HostPort
from tests.support.store import StoreServer
from tests.support.waiting import until

GOOD = {"service_name": "web", "instance_id": "one", "address": "10.0.0.7", "ports": {"http": 80}}
BEAT = {"service_name": "web", "instance_id": "one"}


@pytest.fixture
def server() -> Iterator[StoreServer]:
    """A store that is not started yet."""
    server = StoreServer(append_only=True)
    yield server
    server.close()


class Client:
    """Speaks to one registrar."""

    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        self._base = f"http://{service.address}"
        self._session = session

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self._session.request(method, self._base + path, json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    async def is_at(self, status: int, method: str, path: str, body: Any = None) -> bool:
        return (await self.call(method, path, body))[0] == status

    async def health(self) -> str:
        status: str = (await self.call("GET", "/health"))[1]["status"]
        return status


@contextlib.asynccontextmanager
async def a_replica(url: str, zone: str = "svc.internal.") -> AsyncIterator[Client]:
    service = build(Config(listen=HostPort("127.0.0.1", 0), redis=url, zone=(zone,)), Common())
    try:
        await service.start()
        async with aiohttp.ClientSession() as session:
            yield Client(service, session)
    finally:
        await service.stop()


async def test_it_starts_before_the_store_and_says_so(server: StoreServer) -> None:
    """The predecessor stayed in memory mode for good."""
    async with a_replica(server.url) as client:
        early = await client.call("POST", "/register", GOOD)
        health = await client.call("GET", "/health")
        ready = await client.call("GET", "/readyz")
        alive = await client.call("GET", "/healthz")
        await asyncio.to_thread(server.start)

        assert [early[0], health[0], ready[0], alive[0]] == [503, 503, 503, 200]
        assert health[1]["status"] == "unhealthy"
        await until(lambda: client.is_at(201, "POST", "/register", GOOD), seconds=15)
        await until(lambda: client.is_at(200, "GET", "/readyz"), seconds=15)


async def test_a_killed_store_costs_writes_and_no_reads(server: StoreServer) -> None:
    """What was acknowledged is there when it comes back, without anyone registering again."""
    await asyncio.to_thread(server.start)
    async with a_replica(server.url) as client:
        await until(lambda: client.is_at(201, "POST", "/register", GOOD), seconds=15)
        server.kill()
        await until(lambda: client.is_at(503, "POST", "/heartbeat", BEAT))
        await until(lambda: is_stale(client))
        listed = await client.call("GET", "/services")
        ready = await client.call("GET", "/readyz")
        await asyncio.to_thread(server.start)

        assert listed == (200, ["web"])
        assert ready[0] == 200
        await until(lambda: client.is_at(200, "POST", "/heartbeat", BEAT), seconds=15)
        await until(lambda: is_healthy(client), seconds=15)


async def is_stale(client: Client) -> bool:
    status, document = await client.call("GET", "/services/web")
    return status == 200 and document.get("stale") is True


async def is_healthy(client: Client) -> bool:
    return await client.health() == "healthy"


async def test_a_store_that_hangs_opens_the_breaker(server: StoreServer) -> None:
    await asyncio.to_thread(server.start)
    async with a_replica(server.url) as client:
        await until(lambda: client.is_at(201, "POST", "/register", GOOD), seconds=15)
        server.pause()
        await until(lambda: breaker_is(client, "open"), seconds=20)
        statuses = {(await client.call("POST", "/heartbeat", BEAT))[0] for _ in range(20)}
        listed = await client.call("GET", "/services/web")
        server.resume()

        assert statuses == {503}
        assert listed[0] == 200
        await until(lambda: client.is_at(200, "POST", "/heartbeat", BEAT), seconds=15)
        assert await breaker_is(client, "closed")


async def breaker_is(client: Client, state: str) -> bool:
    await client.call("POST", "/heartbeat", BEAT)
    return bool((await client.call("GET", "/health"))[1]["store"]["breaker"] == state)


async def test_an_emptied_store_is_filled_by_who_registers_again(server: StoreServer) -> None:
    """Nobody leaves the list on the word of an empty store; its sidecar is told 404 and returns."""
    await asyncio.to_thread(server.start)
    async with a_replica(server.url) as client:
        await until(lambda: client.is_at(201, "POST", "/register", GOOD), seconds=15)
        before = await revision_of(client)
        await asyncio.to_thread(server.command, "FLUSHALL")
        await until(lambda: client.is_at(404, "POST", "/heartbeat", BEAT), seconds=15)
        await until(lambda: has_passed(client, before), seconds=15)
        kept = await client.call("GET", "/services")
        status, granted = await client.call("POST", "/register", GOOD)

        assert kept == (200, ["web"])
        assert status == 201
        assert int(granted["revision"]) > before


async def revision_of(client: Client) -> int:
    return int((await client.call("GET", "/health"))[1]["revision"])


async def has_passed(client: Client, revision: int) -> bool:
    return await revision_of(client) > revision


async def test_every_replica_lists_what_one_of_them_took(store_server: StoreServer) -> None:
    zone = store_server.fresh_zone()
    async with a_replica(store_server.url, zone) as one, a_replica(store_server.url, zone) as two:
        await until(lambda: client_ready(one), seconds=15)
        await until(lambda: client_ready(two), seconds=15)
        for number in range(20):
            body = {**GOOD, "service_name": f"web{number}"}
            assert (await one.call("POST", "/register", body))[0] == 201
            assert (await one.call("GET", f"/services/web{number}"))[0] == 200
            path = f"/services/web{number}"
            await until(lambda path=path: two.is_at(200, "GET", path))  # type: ignore[misc]
        assert (await two.call("DELETE", "/deregister/web0"))[0] == 200
        assert (await two.call("GET", "/services/web0"))[0] == 404
        await until(lambda: one.is_at(404, "GET", "/services/web0"))


async def client_ready(client: Client) -> bool:
    return await client.is_at(200, "GET", "/readyz") and await is_healthy(client)
