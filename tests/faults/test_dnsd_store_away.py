"""dnsd while its store goes, comes back, and holds what is not ours."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from dnsd.config import Config
from dnsd.service import Service
from dnsd.sockets import bind_all, close_all
from registry.keys import keys_of
from registry.model import Port, Registration
from registry.runtime.config import HostPort
from registry.store import RedisStore
from tests.support.dns import ask, ede
from tests.support.dnsd import outcome, rdatas
from tests.support.store import StoreServer
from tests.support.waiting import until

LISTEN = HostPort("127.0.0.1", 0)


@contextlib.asynccontextmanager
async def dnsd(config: Config) -> AsyncIterator[tuple[Service, HostPort]]:
    """A worker in this process, on a free port."""
    (sockets,) = bind_all([LISTEN], 1)
    service = Service(config, sockets)
    await service.start()
    try:
        yield service, HostPort(*sockets[0].getsockname())
    finally:
        await service.drain()
        await service.stop()
        close_all([sockets])


@contextlib.asynccontextmanager
async def registrar(server: StoreServer, zone: str) -> AsyncIterator[RedisStore]:
    """A store whose leases are swept each half second, as a registrar would."""
    store = RedisStore(server.url, zone)

    async def sweep() -> None:
        while True:
            with contextlib.suppress(Exception):
                await store.sweep()
            await asyncio.sleep(0.5)

    sweeping = asyncio.create_task(sweep())
    try:
        yield store
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await store.close()


async def register(store: RedisStore, service: str, address: str) -> None:
    registration = Registration(
        service, "one", (Port("http", 80),), (address,), lease_ttl=3600, record_ttl=60
    )
    await store.register(registration, lease_id="l")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=str(tmp_path), stale_bound=2.5)


async def test_it_answers_through_an_outage_and_heals_by_itself(config: Config) -> None:
    with StoreServer(append_only=True) as server:
        zone = server.fresh_zone()
        config = replace(config, redis=server.url, zone=(zone,))
        name = f"payments.{zone}"
        async with registrar(server, zone) as store, dnsd(config) as (service, address):
            await register(store, "payments", "10.0.0.1")
            await until(lambda: answered(address, name, "10.0.0.1"))
            await until(lambda: service.updater.feed().current)
            server.stop()

            await until(lambda: says(address, name, 3), 15)
            stale = await ask(address, name, edns=1232)
            assert rdatas(stale) == ["10.0.0.1"]
            assert stale.answer[0].ttl == 30
            assert await says(address, f"absent.{zone}", 19)
            assert service.updater.missing() == []

            server.start()
            await until(lambda: service.updater.feed().current, 15)
            await register(store, "payments", "10.0.0.2")
            await until(lambda: answered(address, name, "10.0.0.2"))
            fresh = await ask(address, name, edns=1232)
            assert (fresh.answer[0].ttl, ede(fresh)) == (60, [])


async def test_it_starts_from_its_snapshot_while_the_store_is_away(config: Config) -> None:
    with StoreServer() as server:
        zone = server.fresh_zone()
        config = replace(config, redis=server.url, zone=(zone,))
        name = f"payments.{zone}"
        async with registrar(server, zone) as store, dnsd(config) as (service, address):
            await register(store, "payments", "10.0.0.1")
            await until(lambda: answered(address, name, "10.0.0.1"))
            await until(lambda: service.updater.feed().current)
            (path,) = [Path(config.data_dir) / "dnsd-snapshot.jsonl"]
            await service.updater.save(path)
        server.stop()

        async with dnsd(config) as (service, address):
            await until(lambda: answered(address, name, "10.0.0.1"))
            assert service.updater.missing() == []
            assert outcome(await ask(address, f"absent.{zone}")) == "NXDOMAIN"
        server.start()


async def test_what_is_not_ours_in_the_store_is_skipped_and_the_rest_served(
    config: Config, store_server: StoreServer
) -> None:
    zone = store_server.fresh_zone()
    keys = keys_of(zone)
    config = replace(config, redis=store_server.url, zone=(zone,))
    async with registrar(store_server, zone) as store:
        await register(store, "payments", "10.0.0.1")
        for field, value in (
            ("broken/one", b"\xff\xfe not an entry"),
            ("huge/one", b"x" * 100_000),
            ("payments/two", b"9 1 l 0 0 60000\nserving\n\n{}"),
        ):
            store_server.command("HSET", keys.instances, field, value)
        async with dnsd(config) as (service, address):
            await until(lambda: answered(address, f"payments.{zone}", "10.0.0.1"))
            assert outcome(await ask(address, f"broken.{zone}")) == "NXDOMAIN"
            assert service.updater.feed().malformed == 3

            store_server.command("XADD", keys.changes, "*", "k", "up", "m", "nonsense")
            await register(store, "orders", "10.0.0.3")
            await until(lambda: answered(address, f"orders.{zone}", "10.0.0.3"))
            assert service.updater.feed().malformed > 3


async def answered(address: HostPort, name: str, expected: str) -> bool:
    return rdatas(await ask(address, name)) == [expected]


async def says(address: HostPort, name: str, code: int) -> bool:
    return ede(await ask(address, name, edns=1232)) == [code]
