"""The agent and the states in which the registrar holds its instances."""

from sidecar.health import Policy
from tests.support.agents import running, service_at
from tests.support.fake_registrar import KNOWN_FIELDS, FakeRegistrar, FakeService
from tests.support.waiting import until


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
        await until(lambda: agent.missing() == ["payments: waiting (answered 503)"])
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
