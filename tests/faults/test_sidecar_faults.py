"""Sidecar, registrar, store and service as processes, and what happens when one of them fails.

The rule behind all of it: an error or a time-out is no proof of a lost lease, and nothing that a
registrar does or fails to do reaches the service.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.fake_registrar import FakeService
from tests.support.registrar_process import RegistrarProcess, TcpRelay
from tests.support.sidecar import SidecarProcess, a_sidecar, free_port
from tests.support.store import StoreServer
from tests.support.waiting import until

QUICK = (
    *("--host", "127.0.0.1", "--lease-ttl", "10", "--heartbeat-interval", "0.5"),
    *("--health-interval", "0.2", "--health-timeout", "0.5"),
)


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    with StoreServer() as server:
        yield server


@pytest.fixture(scope="module")
def registrars(store: StoreServer) -> Iterator[tuple[RegistrarProcess, RegistrarProcess]]:
    """Two replicas over one store; a test that stops one lets it go on."""
    zone = store.fresh_zone()
    both = RegistrarProcess(store.url, zone), RegistrarProcess(store.url, zone)
    try:
        for registrar in both:
            registrar.start()
        yield both
    finally:
        for registrar in both:
            registrar.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[tuple[StoreServer, RegistrarProcess]]:
    """A store that may be paused and flushed, and the only registrar over it."""
    with StoreServer() as store:
        registrar = RegistrarProcess(store.url, store.fresh_zone())
        try:
            registrar.start()
            yield store, registrar
        finally:
            registrar.close()


@asynccontextmanager
async def kept(
    name: str, *urls: str, lister: RegistrarProcess
) -> AsyncIterator[tuple[SidecarProcess, FakeService, dict[str, Any]]]:
    """A service with its sidecar, and its listing once it is registered."""
    async with FakeService() as web:
        options = ("--name", name, "--port", str(web.port), *QUICK, "--no-drain")
        async with a_sidecar(*options, "--registry-url", ",".join(urls)) as sidecar:
            await until(lambda: lister.states(name), 30)
            (listed,) = await lister.instances(name)
            yield sidecar, web, listed
            assert sidecar.process.returncode is None, sidecar.log


async def beats(registrar: RegistrarProcess, name: str, after: float) -> bool:
    """Whether a heartbeat has arrived after *after* (in seconds since 1970)."""
    listed = await registrar.instances(name)
    return bool(listed) and listed[0]["last_heartbeat"] > after


async def last_beat(registrar: RegistrarProcess, name: str) -> float:
    (listed,) = await registrar.instances(name)
    return float(listed["last_heartbeat"])


async def is_untouched(registrar: RegistrarProcess, name: str, before: dict[str, Any]) -> None:
    """It is the same registration as before: nothing has left and come back."""
    (listed,) = await registrar.instances(name)
    assert (listed["revision"], listed["state"]) == (before["revision"], "serving")


async def test_a_registrar_that_is_killed_takes_nothing_along(store: StoreServer) -> None:
    registrar = RegistrarProcess(store.url, store.fresh_zone())
    try:
        await asyncio.to_thread(registrar.start)
        async with kept("killed", registrar.url, lister=registrar) as (sidecar, web, before):
            await asyncio.to_thread(registrar.kill)
            await until(lambda: "registrar away" in sidecar.log, 20)
            probed = web.requests
            await until(lambda: web.requests > probed + 2)
            await asyncio.to_thread(registrar.start)

            await until(lambda: "registrar back" in sidecar.log, 30)
            await until(lambda: registrar.instances("killed"), 20)
            await is_untouched(registrar, "killed", before)
    finally:
        registrar.close()


async def test_a_registrar_that_hangs_is_left_for_another(
    registrars: tuple[RegistrarProcess, RegistrarProcess],
) -> None:
    first, second = registrars
    async with kept("hung", first.url, second.url, lister=second) as (sidecar, _, before):
        first.signal(signal.SIGSTOP)
        try:
            stopped = await last_beat(second, "hung")
            await until(lambda: beats(second, "hung", after=stopped + 1.0), 30)
            await is_untouched(second, "hung", before)
        finally:
            first.signal(signal.SIGCONT)
        assert "registrar away" not in sidecar.log


async def test_a_partition_costs_nothing_once_it_is_healed(
    registrars: tuple[RegistrarProcess, RegistrarProcess],
) -> None:
    """What was on its way arrives late, after what was sent later; the lease stays the same."""
    registrar = registrars[0]
    async with (
        TcpRelay(registrar.port) as relay,
        kept("parted", relay.url, lister=registrar) as (sidecar, web, before),
    ):
        relay.cut()
        await until(lambda: "registrar away" in sidecar.log, 20)
        probed = web.requests
        await until(lambda: web.requests > probed + 2)
        relay.heal()

        await until(lambda: "registrar back" in sidecar.log, 30)
        await is_untouched(registrar, "parted", before)


async def test_503_is_waited_out_as_the_registrar_asks(
    alone: tuple[StoreServer, RegistrarProcess],
) -> None:
    """The store hangs, so the registrar says 503 with Retry-After; nobody registers again."""
    store, registrar = alone
    async with kept("refused", registrar.url, lister=registrar) as (sidecar, _, before):
        store.pause()
        try:

            async def refuses() -> bool:
                beat = {"service_name": "refused", "instance_id": before["instance_id"]}
                answer = await registrar.call("POST", "/heartbeat", beat)
                return answer.status == 503 and "retry-after" in answer.headers

            await until(refuses, 20)
            await until(lambda: "registrar away" in sidecar.log, 20)
        finally:
            store.resume()
        await until(lambda: "registrar back" in sidecar.log, 30)
        await is_untouched(registrar, "refused", before)


async def test_after_a_flush_everybody_is_back_within_a_heartbeat(
    alone: tuple[StoreServer, RegistrarProcess],
) -> None:
    store, registrar = alone
    async with kept("flushed", registrar.url, lister=registrar) as (sidecar, _, before):
        await asyncio.to_thread(store.command, "FLUSHALL")

        await until(lambda: "lease lost, registering again" in sidecar.log, 30)
        await until(lambda: beats(registrar, "flushed", before["last_heartbeat"] + 1.0), 30)
        assert await registrar.states("flushed") == ["serving"]


async def test_an_unhealthy_service_leaves_by_its_state_and_comes_back(
    registrars: tuple[RegistrarProcess, RegistrarProcess],
) -> None:
    registrar = registrars[0]
    async with kept("ill", registrar.url, lister=registrar) as (_, web, _):
        web.status = 500
        await until(lambda: _states_are(registrar, "ill", "unhealthy"), 20)
        (listed,) = await registrar.instances("ill")
        assert listed["state_reason"] == "sidecar: answered 500"
        web.status = 200

        await until(lambda: _states_are(registrar, "ill", "serving"), 20)


async def _states_are(registrar: RegistrarProcess, name: str, *states: str) -> bool:
    return await registrar.states(name) == list(states)


async def test_one_that_was_never_healthy_is_listed_as_waiting_and_serves_once_it_is(
    registrars: tuple[RegistrarProcess, RegistrarProcess],
) -> None:
    registrar = registrars[0]
    async with FakeService(503) as web:
        options = ("--name", "late", "--port", str(web.port), *QUICK, "--no-drain")
        async with a_sidecar(*options, "--registry-url", registrar.url):
            await until(lambda: _states_are(registrar, "late", "waiting"), 30)
            (listed,) = await registrar.instances("late")
            assert listed["state_reason"] == "sidecar: answered 503"
            web.status, web.body = 200, b'{"status": "healthy", "version": "1.2"}'

            await until(lambda: _states_are(registrar, "late", "serving"), 30)
            await until(lambda: _tells(registrar, "late", {"status": "healthy", "version": "1.2"}))


async def _tells(registrar: RegistrarProcess, name: str, metadata: dict[str, str]) -> bool:
    (listed,) = await registrar.instances(name)
    return bool(listed["metadata"] == metadata)


async def test_sigterm_drains_and_then_nothing_is_left(
    registrars: tuple[RegistrarProcess, RegistrarProcess],
) -> None:
    registrar = registrars[0]
    async with FakeService() as web:
        options = ("--name", "leaving", "--port", str(web.port), *QUICK, "--record-ttl", "1")
        async with a_sidecar(*options, "--registry-url", registrar.url) as sidecar:
            await until(lambda: registrar.states("leaving"), 30)
            sidecar.signal(signal.SIGTERM)
            await until(lambda: _states_are(registrar, "leaving", "draining"), 20)
            status = await sidecar.ended()

        assert status == 0
        assert await registrar.instances("leaving") == []


async def test_of_two_with_one_id_the_newer_is_kept(
    registrars: tuple[RegistrarProcess, RegistrarProcess],
) -> None:
    """The older says so, and takes nothing from the newer when it stops."""
    registrar = registrars[0]
    async with FakeService() as web:
        options = ("--name", "twin", "--port", str(web.port), *QUICK, "--no-drain")
        url = ("--registry-url", registrar.url)
        async with a_sidecar(*options, *url) as older:
            await until(lambda: registrar.states("twin"), 30)
            async with a_sidecar(*options, *url) as newer:
                await until(lambda: "a newer sidecar holds this instance" in older.log, 30)
                older.signal(signal.SIGTERM)
                assert await older.ended() == 0
                beat = await last_beat(registrar, "twin")
                await until(lambda: beats(registrar, "twin", after=beat), 30)
                assert await registrar.states("twin") == ["serving"]
                assert "a newer sidecar" not in newer.log


async def test_a_wrapped_service_that_is_killed_is_gone_at_once(
    registrars: tuple[RegistrarProcess, RegistrarProcess],
) -> None:
    registrar, port = registrars[0], free_port()
    script = (
        f"import socket\nlistening = socket.create_server(('127.0.0.1', {port}))\n"
        "while True: listening.accept()[0].close()"
    )
    options = ("run", "--name", "wrapped", "--port", str(port), "--registry-url", registrar.url)
    async with a_sidecar(*options, "--", sys.executable, "-c", script) as sidecar:
        await until(lambda: _states_are(registrar, "wrapped", "serving"), 30)
        pid = int(sidecar.log.split("command begun")[1].split("pid=")[1].split()[0])
        os.kill(pid, signal.SIGKILL)
        status = await sidecar.ended()

    assert status == 128 + signal.SIGKILL
    assert await registrar.instances("wrapped") == []


# --- versions that do not match ----------------------------------------------------------------


class Predecessor:
    """The predecessor's sidecar: no instance ids, an endpoint, and it acts on nothing but 404."""

    def __init__(self, registrar: RegistrarProcess, name: str, endpoint: str) -> None:
        self._registrar = registrar
        self._name = name
        self._document = {
            "service_name": name,
            "endpoint": endpoint,
            "health_endpoint": "/health",
            "metadata": {},
        }
        self.statuses: list[int] = []

    async def register(self) -> None:
        answer = await self._registrar.call("POST", "/register", self._document)
        self.statuses.append(answer.status)

    async def beat(self) -> int:
        """One heartbeat; registers again when told 404, and otherwise does nothing."""
        answer = await self._registrar.call("POST", "/heartbeat", {"service_name": self._name})
        self.statuses.append(answer.status)
        if answer.status == 404:
            await self.register()
        return answer.status


async def test_the_predecessors_sidecar_lives_on_through_a_hanging_store_and_a_flush(
    alone: tuple[StoreServer, RegistrarProcess],
) -> None:
    store, registrar = alone
    old = Predecessor(registrar, "old_service", "http://127.0.0.1:8047")
    await until(lambda: _registers(old), 20)
    assert await old.beat() == 200
    store.pause()
    try:
        await until(lambda: _is_told(old, 503), 20)
    finally:
        store.resume()
    await until(lambda: _is_told(old, 200), 30)
    assert old.statuses.count(404) == 0, "503 is not 404: nobody registers again"
    await asyncio.to_thread(store.command, "FLUSHALL")

    await until(lambda: _is_told(old, 404), 30)
    assert old.statuses[-1] == 201
    assert await old.beat() == 200
    (listed,) = await registrar.instances("old-service")
    assert listed["endpoint"] == "http://127.0.0.1:8047"


async def _registers(old: Predecessor) -> bool:
    await old.register()
    return old.statuses[-1] == 201


async def _is_told(old: Predecessor, status: int) -> bool:
    return await old.beat() == status
