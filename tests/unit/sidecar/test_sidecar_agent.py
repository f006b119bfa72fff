"""The agent against a registrar and services on real sockets, with time running."""

import pytest

from sidecar.health import Policy
from tests.support.agents import running, service_at
from tests.support.fake_registrar import KNOWN_FIELDS, Answer, FakeRegistrar, FakeService, problem
from tests.support.waiting import until


async def test_registers_once_healthy_and_tells_what_the_health_answer_told() -> None:
    patient = Policy(interval=0.05, fall=1000)
    async with (
        FakeRegistrar() as registrar,
        FakeService(503) as web,
        running([service_at(web.port, policy=patient)], registrar.url) as agent,
    ):
        await until(lambda: agent.missing() == ["payments: unregistered (answered 503)"])
        assert registrar.calls == []

        web.status, web.body = 200, b'{"status": "healthy", "version": "1.2"}'
        await until(lambda: not agent.missing())
        (entry,) = registrar.entries.values()

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
        await until(lambda: not agent.missing())
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
