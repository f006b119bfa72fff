"""The agent against a registrar and services on real sockets, with time running."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.agent import Agent
from sidecar.client import RegistrarClient
from sidecar.health import Policy
from sidecar.probe import Prober
from sidecar.registration import Service
from sidecar.stopping import Limits
from sidecar.tables import services_from
from tests.support.fake_registrar import KNOWN_FIELDS, Answer, FakeRegistrar, FakeService, problem
from tests.support.waiting import until

QUICK = Policy(interval=0.05, timeout=0.5, fall=2, initial_wait=0.3)

SHORT = Limits(call=0.1, drain=0.2, deregister=0.4, total=1.0)


def service_at(
    port: int, name: str = "payments", policy: Policy = QUICK, **more: object
) -> Service:
    table = {"name": name, "host": "127.0.0.1", "port": port, **more}
    (service,), problems = services_from([table], [name], policy)
    assert problems == []
    return service


@asynccontextmanager
async def running(
    services: list[Service], *urls: str, lame_duck: bool = False, limits: Limits | None = None
) -> AsyncIterator[Agent]:
    client = RegistrarClient(urls, timeout=1.0)
    agent = Agent(services, client, Prober(), lame_duck=lame_duck, limits=limits)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()


async def test_registers_once_healthy_and_tells_what_the_health_answer_told() -> None:
    async with (
        FakeRegistrar() as registrar,
        FakeService(503) as web,
        running([service_at(web.port)], registrar.url) as agent,
    ):
        await until(lambda: web.requests >= 1)
        assert registrar.entries == {}
        assert agent.missing() == ["payments: unregistered (answered 503)"]

        web.status, web.body = 200, b'{"status": "healthy", "version": "1.2"}'
        await until(lambda: not agent.missing())
        (entry,) = registrar.entries.values()
        await until(lambda: "metadata" in entry.document)

    assert entry.state == "serving"
    assert entry.document["metadata"] == {"status": "healthy", "version": "1.2"}
    assert entry.document["address"] == "127.0.0.1"
    assert entry.document["instance_id"] == f"127-0-0-1-{web.port}"
    assert entry.document["generation"] > 1_700_000_000_000


async def test_renews_at_the_interval_that_the_registrar_advises() -> None:
    async with (
        FakeRegistrar(5, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url),
    ):
        await until(lambda: registrar.count("POST", "/heartbeat") >= 3)

    beat = next(call for call in registrar.calls if call.path == "/heartbeat")
    assert beat.body["lease_id"] == "lease-1"
    assert registrar.count("POST", "/register") == 1


async def test_registers_again_when_the_registrar_has_forgotten_it() -> None:
    """A registrar that was flushed has everybody back after one heartbeat."""
    async with (
        FakeRegistrar(5, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url),
    ):
        await until(lambda: registrar.entries)
        registrar.lose_everything()

        await until(lambda: registrar.entries)


async def test_registers_again_when_another_took_its_lease_without_a_generation() -> None:
    async with (
        FakeRegistrar(5, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url),
    ):
        await until(lambda: registrar.entries)
        (entry,) = registrar.entries.values()
        entry.lease_id = "somebody's"

        await until(lambda: entry.lease_id != "somebody's")


async def test_an_older_sidecar_gives_way_to_a_newer_one() -> None:
    async with FakeRegistrar(5, 0.1) as registrar, FakeService() as web:
        service = service_at(web.port)
        registrar.generations[f"payments/{service.id}"] = 2**52
        async with running([service], registrar.url) as agent:
            await until(lambda: agent.counts["register", "superseded"])
            await agent.drain()

    assert registrar.entries == {}
    assert registrar.count("DELETE", "/") == 0


async def test_outlives_a_registrar_that_is_away_for_a_while() -> None:
    async with (
        FakeRegistrar(5, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url) as agent,
    ):
        await until(lambda: registrar.entries)
        await registrar.go_away()
        await until(lambda: agent.registrar_is_away)
        assert agent.kept[0].heartbeat.lease is not None
        await registrar.come_back()

        beats = registrar.count("POST", "/heartbeat")
        await until(lambda: registrar.count("POST", "/heartbeat") > beats)
        assert not agent.registrar_is_away
    assert registrar.count("POST", "/register") == 1


async def test_a_registrar_that_comes_later_than_the_service_is_waited_for() -> None:
    registrar = FakeRegistrar()
    await registrar.come_back()
    await registrar.go_away()
    async with FakeService() as web, running([service_at(web.port)], registrar.url) as agent:
        await until(lambda: agent.registrar_is_away)
        await registrar.come_back()

        await until(lambda: registrar.entries)
    await registrar.go_away()


async def test_another_registrar_is_tried_when_one_hangs_or_refuses() -> None:
    async with FakeRegistrar(5, 0.1) as good, FakeRegistrar() as hanging, FakeService() as web:
        hanging.hangs = True
        refusing = "http://127.0.0.1:9"
        async with running([service_at(web.port)], refusing, hanging.url, good.url):
            await until(lambda: good.count("POST", "/heartbeat") >= 2)

    # The one that answered is asked first from then on.
    assert len(hanging.calls) == 1


async def test_calls_that_fail_together_move_on_together() -> None:
    """Each stepping to the next would bring the second back to the registrar that failed."""
    async with FakeRegistrar() as good, FakeService() as web:
        services = [service_at(web.port, f"service-{n}") for n in range(6)]
        async with running(services, "http://127.0.0.1:9", good.url) as agent:
            await until(lambda: len(good.entries) == 6)

    assert agent.counts["register", "unavailable"] == 0


async def test_503_is_no_loss_and_its_retry_after_is_obeyed() -> None:
    async with (
        FakeRegistrar(60, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url) as agent,
    ):
        await until(lambda: registrar.entries)
        registrar.fault = Answer(503, {"detail": "store away"}, {"retry-after": "1"})
        await until(lambda: agent.counts["heartbeat", "unavailable"])
        first = registrar.calls[-1].at
        registrar.fault = None

        successes = agent.counts["heartbeat", "success"]
        await until(lambda: agent.counts["heartbeat", "success"] > successes)
        assert registrar.calls[-1].at - first >= 1.0
    assert registrar.count("POST", "/register") == 1


async def test_an_unhealthy_service_leaves_dns_and_comes_back() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        service = service_at(web.port)
        key = f"payments/{service.id}"
        async with running([service], registrar.url):
            await until(lambda: registrar.entries)
            web.status = 500
            await until(lambda: registrar.states() == {key: "unhealthy"})
            assert registrar.entries[key].reason == "sidecar: answered 500"
            web.status = 200

            await until(lambda: registrar.states() == {key: "serving"})
    assert registrar.count("POST", "/register") == 1


async def test_one_failed_probe_is_not_enough() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        policy = Policy(interval=0.05, fall=1000)
        async with running([service_at(web.port, policy=policy)], registrar.url):
            await until(lambda: registrar.entries)
            web.status = 500
            probes = web.requests
            await until(lambda: web.requests > probes + 3)

    assert list(registrar.states().values()) == ["serving"]


async def test_what_a_former_sidecar_left_behind_is_ended_at_registration() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        service = service_at(web.port)
        async with running([service], registrar.url):
            await until(lambda: registrar.entries)
        (entry,) = registrar.entries.values()
        entry.state, entry.reason = "draining", "sidecar: stopping"
        async with running([service], registrar.url):
            await until(lambda: entry.state == "serving")


async def test_an_operators_maintenance_is_left_alone() -> None:
    async with FakeRegistrar(60, 0.1) as registrar, FakeService() as web:
        service = service_at(web.port)
        async with running([service], registrar.url) as agent:
            await until(lambda: registrar.entries)
            (entry,) = registrar.entries.values()
            entry.state, entry.reason = "maintenance", "new disk"
            web.status = 500
            await until(lambda: agent.kept[0].heartbeat.is_held_by_operator)
            web.status = 200
            await until(lambda: agent.kept[0].health.healthy)
            beats = registrar.count("POST", "/heartbeat")
            await until(lambda: registrar.count("POST", "/heartbeat") > beats + 2)

    assert (entry.state, entry.reason) == ("maintenance", "new disk")


async def test_a_service_that_is_never_healthy_is_listed_as_waiting_with_its_reason() -> None:
    async with (
        FakeRegistrar() as registrar,
        FakeService(503) as web,
        running([service_at(web.port)], registrar.url) as agent,
    ):
        await until(lambda: registrar.entries)
        (entry,) = registrar.entries.values()
        assert (entry.state, entry.reason) == ("waiting", "sidecar: answered 503")
        assert agent.missing() == ["payments: waiting (answered 503)"]
        web.status = 200
        await until(lambda: entry.state == "serving")
        await until(lambda: not agent.missing())
        await agent.drain()

    register, *rest = [call for call in registrar.calls if call.method != "GET"]
    assert register.body["state"] == "waiting"
    assert [call.method for call in rest] == ["PUT", "POST", "DELETE"]


async def test_a_waiting_service_is_deregistered_when_the_sidecar_stops() -> None:
    async with (
        FakeRegistrar() as registrar,
        FakeService(503) as web,
        running([service_at(web.port)], registrar.url, lame_duck=True) as agent,
    ):
        await until(lambda: registrar.entries)
        await agent.drain()

    assert registrar.entries == {}


async def test_an_older_registrar_never_gets_what_is_not_healthy() -> None:
    """Without its state it would be in DNS: that field alone is never left out."""
    async with FakeRegistrar() as registrar, FakeService(503) as web:
        registrar.known_fields = KNOWN_FIELDS - {"state", "state_reason", "generation"}
        async with running([service_at(web.port)], registrar.url) as agent:
            await until(lambda: agent.counts["register", "not_shown"])
            assert registrar.entries == {}
            web.status = 200

            await until(lambda: registrar.entries)
    assert list(registrar.states().values()) == ["serving"]


async def test_after_a_flush_an_unhealthy_service_is_not_in_dns_again() -> None:
    async with (
        FakeRegistrar(5, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url),
    ):
        await until(lambda: registrar.entries)
        web.status = 500
        await until(lambda: list(registrar.states().values()) == ["unhealthy"])
        registrar.lose_everything()
        del registrar.calls[:]

        await until(lambda: registrar.entries)
        assert list(registrar.states().values()) == ["unhealthy"]
        (call,) = [call for call in registrar.calls if call.path == "/register"]
        assert call.body["state"] == "unhealthy"


async def test_unless_it_is_to_be_registered_all_the_same() -> None:
    policy = Policy(interval=0.05, initial_wait=0.2, register_unhealthy=True)
    async with (
        FakeRegistrar() as registrar,
        FakeService(503) as web,
        running([service_at(web.port, policy=policy)], registrar.url),
    ):
        await until(lambda: list(registrar.states().values()) == ["serving"])
        assert web.requests > 1


@pytest.mark.parametrize("status", [200, 404, 409])
async def test_what_is_not_said_by_a_registrar_is_no_loss(status: int) -> None:
    """A proxy that has lost its way answers 404 to everything, and some answer 200."""
    async with (
        FakeRegistrar(5, 0.1) as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url) as agent,
    ):
        await until(lambda: registrar.entries)
        registrar.fault = Answer(status, "<html>", {"content-type": "text/html"})
        await until(lambda: agent.counts["heartbeat", "unavailable"])
        assert agent.kept[0].heartbeat.lease is not None
        registrar.fault = None

        beats = agent.counts["heartbeat", "success"]
        await until(lambda: agent.counts["heartbeat", "success"] > beats)
    assert registrar.count("POST", "/register") == 1


async def test_a_registrar_whose_reads_are_old_is_asked_again() -> None:
    """It says so itself; and until it knows, nothing that an operator has set is overwritten."""
    async with (
        FakeRegistrar() as registrar,
        FakeService() as web,
        running([service_at(web.port)], registrar.url),
    ):
        await until(lambda: registrar.entries)
        registrar.is_stale = True
        web.status = 500
        await until(lambda: registrar.count("GET", "/services/payments") >= 2)
        assert registrar.count("PUT", "/") == 0
        registrar.is_stale = False

        await until(lambda: list(registrar.states().values()) == ["unhealthy"])


async def test_a_new_version_is_told_with_the_next_renewal() -> None:
    async with (
        FakeRegistrar(60, 0.1) as registrar,
        FakeService(body=b'{"version": "1"}') as web,
        running([service_at(web.port)], registrar.url),
    ):
        await until(lambda: registrar.entries)
        (entry,) = registrar.entries.values()
        web.body = b'{"version": "2"}'

        await until(lambda: entry.document["metadata"] == {"version": "2"})


async def test_fields_that_an_older_registrar_does_not_know_are_left_out() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        registrar.known_fields = KNOWN_FIELDS - {"generation", "tags", "zone"}
        service = service_at(web.port, tags=["canary"], zone="eu-1", version="1.2")
        async with running([service], registrar.url):
            await until(lambda: registrar.entries)

    (entry,) = registrar.entries.values()
    assert entry.document["version"] == "1.2"
    assert "tags" not in entry.document
    assert registrar.count("POST", "/register") == 2


async def test_a_registration_that_breaks_a_rule_is_told_and_tried_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        errors = [{"field": "ports.http", "message": "not allowed here"}]
        registrar.fault = problem(422, "invalid", errors=errors)
        async with running([service_at(web.port)], registrar.url) as agent:
            await until(lambda: agent.counts["register", "refused"])
            fields = [getattr(record, "fields", {}) for record in caplog.records]
            assert {"ports.http: not allowed here"} <= {f.get("problems") for f in fields}
            assert registrar.count("POST", "/register") == 1


async def test_several_services_share_their_renewals() -> None:
    async with FakeRegistrar(60, 0.3) as registrar, FakeService() as web:
        services = [service_at(web.port, f"service-{n}") for n in range(5)]
        async with running(services, registrar.url):
            await until(lambda: len(registrar.entries) == 5)
            await until(
                lambda: any(isinstance(c.body, list) and len(c.body) == 5 for c in registrar.calls),
                seconds=20,
            )


async def test_of_several_only_the_forgotten_one_registers_again() -> None:
    async with FakeRegistrar(60, 0.2) as registrar, FakeService() as web:
        services = [service_at(web.port, f"service-{n}") for n in range(3)]
        async with running(services, registrar.url):
            await until(lambda: len(registrar.entries) == 3)
            del registrar.entries[f"service-1/{services[1].id}"]

            await until(lambda: len(registrar.entries) == 3)
    assert registrar.count("POST", "/register") == 4


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
