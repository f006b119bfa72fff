"""How the agent stops, is cancelled, and survives its own bugs."""

import asyncio

import pytest

from sidecar.client import RegistrarClient
from tests.support.agents import SHORT, running, service_at
from tests.support.fake_registrar import FakeRegistrar, FakeService
from tests.support.waiting import until


async def test_drains_renewing_and_deregisters_last() -> None:
    async with FakeRegistrar(5, 0.2) as registrar, FakeService() as web:
        service = service_at(web.port, lease_ttl=5, record_ttl=1)
        async with running([service], registrar.url, lame_duck=True) as agent:
            await until(lambda: registrar.entries)
            del registrar.calls[:]
            await agent.drain()

    assert registrar.entries == {}
    first, *middle, last = [call for call in registrar.calls if call.method != "GET"]
    assert (first.method, first.body["state"]) == ("PUT", "draining")
    assert {call.path for call in middle} == {"/heartbeat"}
    assert last.method == "DELETE"
    assert last.at - first.at >= 1.0
    assert agent.missing() == ["stopping"]


async def test_without_lame_duck_it_deregisters_at_once() -> None:
    async with (
        FakeRegistrar() as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url) as agent,
    ):
        await until(lambda: registrar.entries)
        await agent.drain()

    assert registrar.entries == {}
    assert registrar.count("PUT", "/") == 0


async def test_stops_in_time_when_the_registrar_hangs() -> None:
    """A hanging call is not waited for: the life cycle's nine seconds hold whatever happens."""
    async with (
        FakeRegistrar(60, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url, lame_duck=True, limits=SHORT) as agent,
    ):
        await until(lambda: registrar.count("POST", "/heartbeat"))
        registrar.hangs = True
        await agent.drain()

    assert len(registrar.entries) == 1
    assert registrar.count("DELETE", "/") >= 1


async def test_a_stop_during_a_registration_deregisters_what_may_have_arrived() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        registrar.hangs = True
        async with running([service_at(web.port)], registrar.url) as agent:
            await until(lambda: registrar.calls)
            stopping = asyncio.create_task(agent.drain())
            await asyncio.sleep(0)
            registrar.hangs = False
            await stopping

    assert registrar.calls[-1].method == "DELETE"
    assert agent.counts["deregister", "success"] == 1


async def test_a_bug_is_told_counted_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        FakeRegistrar(60, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url) as agent,
    ):
        await until(lambda: registrar.entries)

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(agent._calls, "_note_renewal", broken)
        await until(lambda: agent.counts["bug", "caught"])
        assert "something failed that should not, going on" in caplog.messages
        await agent.drain()
    assert registrar.entries == {}


async def test_a_bug_in_the_client_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare tenacity retry once repeated a NameError for ever."""
    attempts = []

    async def broken(*args: object) -> None:
        attempts.append(args)
        raise NameError("typo")

    client = RegistrarClient(["http://127.0.0.1:9", "http://127.0.0.1:10"])
    monkeypatch.setattr(client, "_once", broken)

    with pytest.raises(NameError):
        await client.renew([])
    assert len(attempts) == 1


async def test_cancelled_while_it_registers_it_leaves_nothing_running() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        registrar.hangs = True
        async with running([service_at(web.port)], registrar.url):
            await until(lambda: registrar.calls)

    assert [t for t in asyncio.all_tasks() if "Agent" in repr(t)] == []
