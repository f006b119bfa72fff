"""The API from outside, over real sockets and a store in memory."""

import asyncio
import json
import re
from typing import Any

import pytest

from registrar import app, hosts, lookups, writes
from registrar.config import Config
from registrar.hosts import Failed, Found, Missing
from registry.changes import InstanceUp
from registry.runtime.config import networks
from tests.support.registrar import LOOPBACK, Registrar, a_registrar
from tests.support.waiting import until

PROBLEM = "application/problem+json"


# --- register -------------------------------------------------------------------------------


async def test_a_new_instance_is_201_with_all_that_its_sidecar_needs() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call(
            "POST",
            "/register",
            {
                "service_name": "Payments_API",
                "instance_id": "pay_1",
                "address": "10.0.0.7",
                "ports": {"http": 8080, "game": {"port": 4000, "protocol": "udp"}},
            },
        )

    assert answer.status == 201
    assert answer.body == {
        "message": "Service registered successfully",
        "service_name": "payments_api",
        "instance_id": "pay_1",
        "lease_id": answer.body["lease_id"],
        "lease_ttl": 60,
        "heartbeat_interval": 25,
        "revision": answer.body["revision"],
        "names": {
            "service": "payments-api.svc.internal.",
            "srv": [
                "_http._tcp.payments-api.svc.internal.",
                "_game._udp.payments-api.svc.internal.",
            ],
            "instance": "pay-1.payments-api.svc.internal.",
        },
    }


async def test_the_same_again_is_a_renewal_and_other_data_a_change() -> None:
    async with a_registrar() as registrar:
        first = await registrar.register("web", "one")
        again = await registrar.call(
            "POST",
            "/register",
            {
                "service_name": "WEB",
                "instance_id": "ONE",
                "address": "10.0.0.7",
                "ports": {"http": 8080},
            },
        )
        other = await registrar.register("web", "one", weight=5)

    assert (again.status, again.body) == (200, first)
    assert int(other["revision"]) == int(first["revision"]) + 1


@pytest.mark.parametrize(
    ("lease", "interval"), [(5, 2), (6, 2), (15, 6), (60, 25), (3600, 1500), (0, 1)]
)
async def test_the_heartbeat_interval_is_five_twelfths_of_the_lease(
    lease: int, interval: int
) -> None:
    async with a_registrar() as registrar:
        answer = await registrar.register("web", "one", lease_ttl=lease)

    assert (answer["lease_ttl"], answer["heartbeat_interval"]) == (lease, interval)


async def test_an_older_generation_is_409() -> None:
    """Also after a DELETE: a delayed registration of the old process revives nothing."""
    async with a_registrar() as registrar:
        body = {"service_name": "web", "instance_id": "one", "endpoint": "http://10.0.0.7:80"}
        await registrar.register("web", "one", generation=7)
        older = await registrar.call("POST", "/register", {**body, "generation": 6})
        await registrar.call("DELETE", "/services/web/instances/one")
        late = await registrar.call("POST", "/register", {**body, "generation": 6})
        unnumbered = await registrar.call("POST", "/register", body)

    assert [older.status, late.status, unnumbered.status] == [409, 409, 201]
    assert older.body["type"] == "urn:callboard:problem:lease-superseded"


async def test_an_instance_may_be_registered_before_it_is_healthy() -> None:
    """It is listed with its reason, and DNS never has it; a state that was set is kept."""
    begins = {"state": "waiting", "state_reason": "sidecar: answered 503"}
    async with a_registrar() as registrar:
        await registrar.register("web", "one", **begins)
        changes = registrar.store.store.changes_after(0)
        listed = (await registrar.call("GET", "/services/web")).body["instances"][0]
        await registrar.call("PUT", "/services/web/instances/one/state", {"state": "maintenance"})
        await registrar.register("web", "one", **begins)
        kept = (await registrar.call("GET", "/services/web")).body["instances"][0]

    assert [c.instance.state for c in changes if isinstance(c, InstanceUp)] == ["waiting"]
    assert (listed["state"], listed["state_reason"]) == ("waiting", "sidecar: answered 503")
    assert kept["state"] == "maintenance"


async def test_what_is_not_healthy_replaces_nothing_that_serves_elsewhere() -> None:
    """A new machine that never comes up must not take the old one's place under a fixed id."""
    async with a_registrar() as registrar:
        await registrar.register("web", "one", address="10.0.0.7")
        body = {
            "service_name": "web",
            "instance_id": "one",
            "address": "10.0.0.8",
            "ports": {"http": 8080},
        }
        ill = await registrar.call("POST", "/register", {**body, "state": "waiting"})
        listed = (await registrar.call("GET", "/services/web")).body["instances"][0]
        well = await registrar.call("POST", "/register", body)
        same = await registrar.call("POST", "/register", {**body, "state": "waiting"})
        after = (await registrar.call("GET", "/services/web")).body["instances"][0]

    assert (ill.status, well.status, same.status) == (409, 200, 200)
    assert ill.body["type"] == "urn:callboard:problem:lease-superseded"
    assert (listed["addresses"], listed["state"]) == (["10.0.0.7"], "serving")
    assert (after["addresses"], after["state"]) == (["10.0.0.8"], "waiting")


async def test_a_broken_rule_is_422_and_nothing_is_kept() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call(
            "POST", "/register", {"service_name": "web", "address": "10.0.0.7", "weight": -1}
        )
        listed = await registrar.call("GET", "/services")

    assert (answer.status, answer.headers["Content-Type"]) == (422, PROBLEM)
    assert answer.body["status"] == 422
    assert answer.fields == {"weight", "ports"}
    assert listed.body == []


async def test_a_registration_is_read_at_once() -> None:
    async with a_registrar() as registrar:
        for number in range(20):
            await registrar.register(f"web{number}")
            assert (await registrar.call("GET", f"/services/web{number}")).status == 200


async def test_a_full_service_takes_no_more_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_INSTANCES", 2)
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.register("web", "two")
        body = {"service_name": "web", "instance_id": "x", "endpoint": "http://10.0.0.9"}
        third = await registrar.call("POST", "/register", body)
        known = await registrar.register("web", "two", weight=1)

    assert (third.status, third.body["type"]) == (429, "urn:callboard:problem:limit-instances")
    assert known["instance_id"] == "two"


async def test_a_full_zone_takes_no_more_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_SERVICES", 1)
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        body = {"service_name": "db", "endpoint": "http://10.0.0.9"}
        second = await registrar.call("POST", "/register", body)

    assert (second.status, second.body["type"]) == (429, "urn:callboard:problem:limit-services")


async def test_loopback_is_for_those_who_allow_it() -> None:
    body = {"service_name": "web", "endpoint": "http://127.0.0.1:80"}
    async with a_registrar() as registrar:
        refused = await registrar.call("POST", "/register", body)
    async with a_registrar(allow_endpoints=LOOPBACK) as registrar:
        allowed = await registrar.call("POST", "/register", body)

    assert (refused.status, refused.fields) == (422, {"endpoint"})
    assert allowed.status == 201


# --- hosts ----------------------------------------------------------------------------------


async def addresses_of(registrar: Registrar, service: str) -> list[str]:
    (instance,) = (await registrar.call("GET", f"/services/{service}")).body["instances"]
    found: list[str] = instance["addresses"]
    return found


async def test_a_host_is_looked_up_before_its_registration_is_answered() -> None:
    async with a_registrar() as registrar:
        registrar.hosts["vertice-maximus_eureka"] = Found(("10.0.0.9",))
        answer = await registrar.call(
            "POST",
            "/register",
            {"service_name": "eureka", "endpoint": "http://vertice-maximus_eureka:8200"},
        )
        document = (await registrar.call("GET", "/services/eureka")).body

    assert answer.status == 201
    assert document["endpoint"] == "http://vertice-maximus_eureka:8200"
    assert document["instances"][0]["addresses"] == ["10.0.0.9"]
    assert document["instances"][0]["host"] == "vertice-maximus_eureka"


@pytest.fixture
def quick_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host is due in every round, and there are many."""
    monkeypatch.setattr(hosts, "INTERVAL", 0.0)
    monkeypatch.setattr(lookups, "ROUND_SECONDS", 0.01)


@pytest.mark.usefixtures("quick_lookups")
async def test_a_host_that_nobody_knows_is_registered_without_addresses() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", address=None, host="not-yet")
        before = await addresses_of(registrar, "web")
        registrar.hosts["not-yet"] = Found(("10.0.0.9",))

        assert before == []
        await until(lambda: has_addresses(registrar, "web", ["10.0.0.9"]))


async def has_addresses(registrar: Registrar, service: str, wanted: list[str]) -> bool:
    return await addresses_of(registrar, service) == wanted


async def test_a_host_that_resolves_to_loopback_is_422() -> None:
    """The name is harmless when it is registered; what it means is checked when it is known."""
    async with a_registrar() as registrar:
        registrar.hosts["innocent.example"] = Found(("127.0.0.1", "169.254.169.254"))
        answer = await registrar.call(
            "POST",
            "/register",
            {"service_name": "web", "endpoint": "http://innocent.example:80"},
        )

    assert (answer.status, answer.fields) == (422, {"endpoint"})
    assert "169.254.169.254" in answer.body["detail"]


@pytest.mark.usefixtures("quick_lookups")
async def test_a_host_that_comes_to_mean_loopback_loses_its_addresses() -> None:
    """Rebinding: checked again at every look-up, not only when it was registered."""
    async with a_registrar() as registrar:
        registrar.hosts["db"] = Found(("10.0.0.9",))
        await registrar.register("web", "one", address=None, host="db")
        registrar.hosts["db"] = Found(("169.254.169.254", "10.0.0.8"))
        await until(lambda: has_addresses(registrar, "web", ["10.0.0.8"]))
        registrar.hosts["db"] = Found(("127.0.0.1",))
        await until(lambda: has_addresses(registrar, "web", []))
        metrics = (await registrar.call("GET", "/metrics")).body

    assert 'registrar_lookups_total{result="refused"}' in metrics


@pytest.mark.usefixtures("quick_lookups")
async def test_a_host_in_our_own_zone_is_never_asked_for() -> None:
    """R17: its answer would be the one that is asked for."""
    async with a_registrar() as registrar:
        registrar.hosts["x.svc.internal"] = Found(("10.0.0.66",))
        registrar.hosts["db"] = Found(("10.0.0.9",))
        await registrar.register("loop", "one", host="x.svc.internal")
        await registrar.register("web", "one", host="db")
        await until(lambda: has_addresses(registrar, "web", ["10.0.0.7", "10.0.0.9"]))

        assert await addresses_of(registrar, "loop") == ["10.0.0.7"]


async def test_the_role_of_looking_up_is_held_by_one_at_a_time() -> None:
    async with a_registrar() as registrar:
        await until(lambda: "claim" in registrar.store.calls)

        assert not await registrar.store.store.claim("lookups", "another", 5.0)
        registrar.clock.ms += 5000
        assert await registrar.store.store.claim("lookups", "another", 5.0)


async def test_the_systems_resolver_answers_with_values() -> None:
    """`localhost` is in every hosts file, and no name has two dots in a row."""
    resolver = lookups.Resolver()

    found = await resolver("localhost")
    assert isinstance(found, Found)
    assert set(found.addresses) <= {"127.0.0.1", "::1"}
    assert isinstance(await resolver("a..b"), Missing | Failed)


async def test_a_failed_lookup_at_the_same_registration_keeps_what_was_found() -> None:
    async with a_registrar() as registrar:
        registrar.hosts["db"] = Found(("10.0.0.9",))
        await registrar.register("web", "one", address=None, host="db")
        registrar.hosts["db"] = Failed("SERVFAIL")
        await registrar.register("web", "one", address=None, host="db", weight=5)

        assert await addresses_of(registrar, "web") == ["10.0.0.9"]


# --- heartbeat ------------------------------------------------------------------------------


async def beat(registrar: Registrar, service: str, instance: str | None = None, **more: Any) -> Any:
    body = {"service_name": service, **more}
    if instance is not None:
        body["instance_id"] = instance
    return await registrar.call("POST", "/heartbeat", body)


async def test_a_heartbeat_renews_the_lease() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.advance(50)
        answer = await beat(registrar, "web", "one")
        await registrar.advance(50)
        listed = await registrar.call("GET", "/services/web")

    assert (answer.status, answer.body) == (
        200,
        {
            "message": "Heartbeat received",
            "service_name": "web",
            "instance_id": "one",
            "ttl_remaining": 60,
        },
    )
    assert listed.status == 200


async def test_a_heartbeat_after_lease_and_grace_is_404() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.advance(64)
        late = await beat(registrar, "web", "one")
        await registrar.advance(65)
        over = await beat(registrar, "web", "one")
        gone = await registrar.call("GET", "/services/web")

    assert [late.status, over.status, gone.status] == [200, 404, 404]
    assert "register again" in over.body["detail"]


async def test_an_unknown_service_is_404_while_the_view_is_current_else_503() -> None:
    """A sidecar that is told 404 registers again; told 503 it comes back."""
    async with a_registrar() as registrar:
        known = [await beat(registrar, "web"), await beat(registrar, "web", "one")]
        registrar.view.lose(3.0)
        unsure = [await beat(registrar, "web"), await beat(registrar, "web", "one")]

    assert [a.status for a in known] == [404, 404]
    assert [a.status for a in unsure] == [503, 503]
    assert "Retry-After" in unsure[0].headers


async def test_without_an_id_the_only_instance_is_meant() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        answer = await beat(registrar, "web")

    assert (answer.status, answer.body["instance_id"]) == (200, "one")


async def test_without_an_id_among_several_those_registered_without_one_are_meant() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.register("web", address="10.0.0.8", lease_ttl=30)
        await registrar.register("web", address="10.0.0.9", lease_ttl=20)
        answer = await beat(registrar, "web")

    assert (answer.status, answer.body["ttl_remaining"]) == (200, 20)
    assert answer.body["instance_id"] == "10-0-0-9-8080"


async def test_of_those_the_ones_registered_from_the_callers_address_are_meant() -> None:
    async with a_registrar(trusted_proxies=LOOPBACK) as registrar:
        for caller, address in (("192.0.2.1", "10.0.0.1"), ("192.0.2.2", "10.0.0.2")):
            body = {"service_name": "web", "endpoint": f"http://{address}:80"}
            headers = {"X-Forwarded-For": f"203.0.113.9, {caller}"}
            await registrar.call("POST", "/register", body, headers=headers)
        answer = await registrar.call(
            "POST",
            "/heartbeat",
            {"service_name": "web"},
            headers={"X-Forwarded-For": "192.0.2.2"},
        )
        await registrar.advance(40)
        renewed = await registrar.call(
            "POST", "/heartbeat", {"service_name": "web"}, headers={"X-Forwarded-For": "192.0.2.1"}
        )
        await registrar.advance(30)
        listed = (await registrar.call("GET", "/services/web")).body["instances"]

    assert answer.body["instance_id"] == "10-0-0-2-80"
    assert renewed.body["instance_id"] == "10-0-0-1-80"
    assert [i["instance_id"] for i in listed] == ["10-0-0-1-80"]


async def test_forwarded_for_means_nothing_from_anybody_else() -> None:
    async with a_registrar() as registrar:
        for caller, address in (("192.0.2.1", "10.0.0.1"), ("192.0.2.2", "10.0.0.2")):
            body = {"service_name": "web", "endpoint": f"http://{address}:80"}
            headers = {"X-Forwarded-For": caller}
            await registrar.call("POST", "/register", body, headers=headers)
        callers = {i.registration.caller for i in registrar.view.catalog.instances("web").values()}

    assert callers == {"127.0.0.1"}


async def test_when_every_one_has_an_id_409_lists_them() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.register("web", "two")
        answer = await beat(registrar, "web")

    assert answer.status == 409
    assert "one, two" in answer.body["detail"]


async def test_a_lease_id_that_is_not_the_current_one_is_409() -> None:
    async with a_registrar() as registrar:
        lease = (await registrar.register("web", "one"))["lease_id"]
        right = await beat(registrar, "web", "one", lease_id=lease)
        wrong = await beat(registrar, "web", "one", lease_id="another")
        nameless = await beat(registrar, "web", lease_id="another")

    assert [right.status, wrong.status, nameless.status] == [200, 409, 409]


async def test_a_lease_id_tells_which_of_several_is_meant() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", address="10.0.0.1")
        lease = (await registrar.register("web", address="10.0.0.2"))["lease_id"]
        answer = await beat(registrar, "web", lease_id=lease)

    assert answer.body["instance_id"] == "10-0-0-2-8080"


async def test_a_list_renews_many_each_with_its_own_status() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.register("web", "two")
        answer = await registrar.call(
            "POST",
            "/heartbeat",
            [
                {"service_name": "web", "instance_id": "one"},
                {"service_name": "none_such", "instance_id": "x"},
                {"service_name": "web", "instance_id": "two", "lease_id": "wrong"},
                {"service_name": "web"},
                {"service_name": "a.b"},
                {"service_name": "web", "instance_id": "two"},
            ],
        )
        empty = await registrar.call("POST", "/heartbeat", [])

    assert answer.status == 200
    results = answer.body["results"]
    assert [r["status"] for r in results] == [200, 404, 409, 409, 422, 200]
    assert results[0]["ttl_remaining"] == 60
    assert results[1]["service_name"] == "none_such"
    assert (empty.status, empty.body) == (200, {"results": []})


async def test_heartbeats_that_arrive_together_are_one_call_to_the_store() -> None:
    async with a_registrar() as registrar:
        for number in range(50):
            await registrar.register("web", f"i{number}")
        registrar.store.calls.clear()
        answers = await asyncio.gather(*(beat(registrar, "web", f"i{n}") for n in range(50)))

    assert {a.status for a in answers} == {200}
    assert registrar.store.calls.count("renew") < 50


# --- deregister, state ----------------------------------------------------------------------


async def test_deregister_removes_every_instance_and_is_200_when_there_is_none() -> None:
    async with a_registrar() as registrar:
        await registrar.register("nmap_service", "one")
        await registrar.register("nmap_service", "two")
        first = await registrar.call("DELETE", "/deregister/NMAP-service")
        gone = await registrar.call("GET", "/services/nmap_service")
        again = await registrar.call("DELETE", "/deregister/nmap_service")
        nonsense = await registrar.call("DELETE", "/deregister/a.b")

    assert [first.status, gone.status, again.status, nonsense.status] == [200, 404, 200, 200]
    assert again.body == {"message": "Service deregistered", "service_name": "nmap_service"}


async def test_one_instance_is_removed_and_a_late_heartbeat_revives_nothing() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.register("web", "two")
        removed = await registrar.call("DELETE", "/services/web/instances/ONE")
        late = await beat(registrar, "web", "one")
        listed = (await registrar.call("GET", "/services/web")).body["instances"]
        again = await registrar.call("DELETE", "/services/web/instances/one")
        nonsense = await registrar.call("DELETE", "/services/web/instances/a.b")

    assert [removed.status, late.status, again.status, nonsense.status] == [200, 404, 404, 404]
    assert [i["instance_id"] for i in listed] == ["two"]


async def test_a_lease_id_makes_the_removal_conditional() -> None:
    async with a_registrar() as registrar:
        lease = (await registrar.register("web", "one"))["lease_id"]
        path = "/services/web/instances/one?lease_id="
        wrong = await registrar.call("DELETE", path + "another")
        right = await registrar.call("DELETE", path + lease)

    assert [wrong.status, right.status] == [409, 200]


async def test_a_state_is_set_shown_and_survives_a_registration() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        path = "/services/web/instances/one/state"
        answer = await registrar.call("PUT", path, {"state": "draining", "reason": "new disk"})
        await registrar.register("web", "one", weight=3)
        (drained,) = (await registrar.call("GET", "/services/web")).body["instances"]
        await registrar.call("PUT", path, {"state": "serving"})
        (serving,) = (await registrar.call("GET", "/services/web")).body["instances"]

    assert (answer.status, answer.body["state"]) == (200, "draining")
    assert (drained["state"], drained["state_reason"]) == ("draining", "new disk")
    assert (serving["state"], serving["state_reason"]) == ("serving", None)


async def test_states_that_cannot_be_set_and_instances_that_are_not_there() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        suspect = await registrar.call(
            "PUT", "/services/web/instances/one/state", {"state": "suspect"}
        )
        unknown = await registrar.call(
            "PUT", "/services/web/instances/two/state", {"state": "serving"}
        )

    assert (suspect.status, suspect.fields, unknown.status) == (422, {"state"}, 404)


# --- settings -------------------------------------------------------------------------------


async def test_settings_of_a_service_are_kept_beyond_its_last_instance() -> None:
    async with a_registrar() as registrar:
        await registrar.register("Pay_ments", "one")
        answer = await registrar.call("PUT", "/services/PAY-ments/settings", {"answers": 1})
        await registrar.call("DELETE", "/deregister/pay_ments")
        await registrar.advance(121)
        await registrar.register("pay_ments", "one")
        explained = await registrar.call("GET", "/explain?name=pay_ments")

    assert answer.status == 200
    assert answer.body == {
        "message": "Settings set",
        "service_name": "PAY-ments",
        "answers": 1,
        "revision": answer.body["revision"],
    }
    assert explained.body["answers"] == 1


@pytest.mark.parametrize("name", ["web", "a.b", "tag", "-", "x" * 64])
async def test_settings_of_a_service_that_is_not_known_are_404(name: str) -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("PUT", f"/services/{name}/settings", {"answers": 1})

    assert answer.status == 404


async def test_settings_that_break_a_rule_are_422() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        answer = await registrar.call("PUT", "/services/web/settings", {"answers": -1})

    assert (answer.status, answer.fields) == (422, {"answers"})


async def test_services_with_settings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_SETTINGS", 1)
    async with a_registrar() as registrar:
        for service in ("web", "db"):
            await registrar.register(service, "one")
        statuses = [
            (await registrar.call("PUT", f"/services/{service}/settings", {"answers": n})).status
            for service, n in (("web", 1), ("db", 1), ("web", 2), ("web", 0), ("db", 1))
        ]

    assert statuses == [200, 429, 200, 200, 200]


# --- reads ----------------------------------------------------------------------------------


async def test_services_are_listed_sorted_as_first_spelled() -> None:
    async with a_registrar() as registrar:
        for name in ("web", "nmap_service", "nmap-service", "api"):
            await registrar.register(name, name)
        answer = await registrar.call("GET", "/services")

    assert answer.body == ["api", "nmap_service", "web"]


async def test_a_service_is_shown_with_its_instances() -> None:
    async with a_registrar() as registrar:
        await registrar.register(
            "nmap_service",
            address=None,
            ports=None,
            endpoint="http://10.0.0.9:8047",
            metadata={"version": "1"},
        )
        answer = await registrar.call("GET", "/services/nmap-service")

    document = answer.body
    registered_at = document["registered_at"]
    (instance,) = document.pop("instances")
    assert document == {
        "service_name": "nmap_service",
        "endpoint": "http://10.0.0.9:8047",
        "health_endpoint": "/health",
        "metadata": {"version": "1"},
        "registered_at": registered_at,
        "last_heartbeat": document["last_heartbeat"],
        "ttl_remaining": 60,
    }
    assert type(registered_at) is float
    assert type(document["last_heartbeat"]) is float
    assert instance == {
        "instance_id": "10-0-0-9-8047",
        "endpoint": "http://10.0.0.9:8047",
        "addresses": ["10.0.0.9"],
        "host": None,
        "ports": {"http": 8047},
        "priority": 0,
        "weight": 100,
        "version": None,
        "zone": None,
        "tags": [],
        "metadata": {"version": "1"},
        "health_endpoint": "/health",
        "state": "serving",
        "state_reason": None,
        "static": False,
        "registered_at": registered_at,
        "last_heartbeat": document["last_heartbeat"],
        "ttl_remaining": 60,
        "revision": instance["revision"],
    }


async def test_an_unknown_service_is_404() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", "/services/none_such")

    assert (answer.status, answer.headers["Content-Type"]) == (404, PROBLEM)


async def test_it_is_shown_by_the_instance_that_dns_would_give() -> None:
    """Lowest priority first; draining ones never while another serves."""
    async with a_registrar() as registrar:
        await registrar.register("web", "a", address="10.0.0.1", priority=5)
        await registrar.register("web", "b", address="10.0.0.2", priority=1)
        await registrar.register("web", "c", address="10.0.0.3", priority=0)
        await registrar.call("PUT", "/services/web/instances/c/state", {"state": "draining"})
        endpoints = {
            (await registrar.call("GET", "/services/web")).body["endpoint"] for _ in range(20)
        }

    assert endpoints == {"http://10.0.0.2:8080"}


async def test_filters_hold_all_together_and_for_instances() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one", tags=["canary", "blue"], version="1", zone="eu-1")
        await registrar.register("web", "two", tags=["blue"], version="2", zone="eu-1")
        await registrar.register("db", "three", zone="eu-2")
        await registrar.call("PUT", "/services/db/instances/three/state", {"state": "maintenance"})

        async def listed(query: str) -> Any:
            return (await registrar.call("GET", f"/services?{query}")).body

        assert await listed("tag=blue") == ["web"]
        assert await listed("tag=blue&tag=canary&version=2") == []
        assert await listed("zone=eu-2") == ["db"]
        assert await listed("state=maintenance") == ["db"]
        assert await listed("detail=false") == ["db", "web"]
        (web,) = await listed("detail=true&tag=blue&tag=canary")
        assert [i["instance_id"] for i in web["instances"]] == ["one"]
        assert web["ttl_remaining"] == 60
        assert [s["service_name"] for s in await listed("detail=true")] == ["db", "web"]


@pytest.mark.parametrize("query", ["state=up", "detail=maybe"])
async def test_a_filter_that_means_nothing_is_refused(query: str) -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", f"/services?{query}")

    assert (answer.status, answer.fields) == (422, {query.partition("=")[0]})


async def test_lease_times_cost_at_most_one_call_a_second() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.call("GET", "/services/web")
        registrar.store.calls.clear()
        for _ in range(30):
            await registrar.call("GET", "/services/web")

    assert registrar.store.calls.count("lease_times") <= 2


async def test_an_instance_without_a_lease_is_static() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one", lease_ttl=0)
        (instance,) = (await registrar.call("GET", "/services/web")).body["instances"]
        answer = await beat(registrar, "web", "one")

    assert (instance["static"], instance["ttl_remaining"]) == (True, 0)
    assert (answer.status, answer.body["ttl_remaining"]) == (200, 0)


async def test_everything_is_also_under_v1() -> None:
    async with a_registrar() as registrar:
        body = {"service_name": "web", "endpoint": "http://10.0.0.7"}
        statuses = [
            (await registrar.call("POST", "/v1/register", body)).status,
            (await registrar.call("POST", "/v1/heartbeat", {"service_name": "web"})).status,
            (await registrar.call("GET", "/v1/services")).status,
            (await registrar.call("GET", "/v1/services/web")).status,
            (await registrar.call("GET", "/v1/health")).status,
            (await registrar.call("DELETE", "/v1/deregister/web")).status,
        ]

    assert statuses == [201, 200, 200, 200, 200, 200]


# --- the store away -------------------------------------------------------------------------


async def test_while_the_store_is_away_reads_go_on_and_say_so() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        registrar.store.away = True
        registrar.view.lose(12.7)
        names = await registrar.call("GET", "/services")
        one = await registrar.call("GET", "/services/web")
        listed = await registrar.call("GET", "/services?detail=true")
        health = await registrar.call("GET", "/health")
        ready = await registrar.call("GET", "/readyz")

    assert (names.status, names.body, names.headers["Age"]) == (200, ["web"], "12")
    assert (one.status, one.body["stale"], one.headers["Age"]) == (200, True, "12")
    assert listed.body[0]["stale"] is True
    assert (health.status, health.body["status"]) == (200, "degraded")
    assert ready.status == 200


async def test_while_the_store_is_away_writes_are_503_with_retry_after() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        registrar.store.away = True
        answers = [
            await registrar.call(
                "POST", "/register", {"service_name": "x", "endpoint": "http://10.0.0.1"}
            ),
            await beat(registrar, "web", "one"),
            await registrar.call("DELETE", "/deregister/web"),
            await registrar.call("DELETE", "/services/web/instances/one"),
            await registrar.call("PUT", "/services/web/instances/one/state", {"state": "draining"}),
            await registrar.call("POST", "/heartbeat", [{"service_name": "web"}]),
        ]

    assert {a.status for a in answers} == {503}
    assert all(int(a.headers["Retry-After"]) >= 1 for a in answers)
    assert all(a.headers["Content-Type"] == PROBLEM for a in answers)


async def test_after_three_failures_the_store_is_not_asked_and_soon_after_its_return_it_is() -> (
    None
):
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        registrar.store.away = True
        for _ in range(3):
            await beat(registrar, "web", "one")
        registrar.store.calls.clear()
        for _ in range(10):
            await beat(registrar, "web", "one")
        body = {"service_name": "db", "endpoint": "http://slow.example"}
        unasked = await registrar.call("POST", "/register", body)
        metrics = (await registrar.call("GET", "/metrics")).body
        registrar.store.away = False

        assert "renew" not in registrar.store.calls
        assert unasked.status == 503
        assert "registrar_lookups_total" not in re.sub("#.*", "", metrics)
        assert "registry_circuit_breaker_open 1.0" in metrics
        assert "redis_circuit_breaker_state 1.0" in metrics
        await until(lambda: is_200(registrar), seconds=10)
        assert "redis_circuit_breaker_state 0.0" in (await registrar.call("GET", "/metrics")).body


async def is_200(registrar: Registrar) -> bool:
    return bool((await beat(registrar, "web", "one")).status == 200)


async def test_before_the_catalog_was_ever_loaded_nothing_is_claimed() -> None:
    async with a_registrar() as registrar:
        registrar.view.loaded = False
        registrar.view.lose(float("inf"))
        statuses = [
            (await registrar.call("GET", path)).status
            for path in ("/services", "/services/web", "/services?detail=true", "/health")
        ]
        health = await registrar.call("GET", "/health")
        ready = await registrar.call("GET", "/readyz")
        alive = await registrar.call("GET", "/healthz")

    assert statuses == [503, 503, 503, 503]
    assert health.body["status"] == "unhealthy"
    assert (ready.status, ready.body["missing"]) == (503, ["catalog: feed lost"])
    assert alive.status == 200


# --- HTTP -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{not json", 400),
        (b'{"service_name": "a", "service_name": "b"}', 400),
        (b'{"weight": NaN}', 400),
        (b"[" * 60000, 400),
        (b'{"a":' * 9000, 400),
        (b"9" * 5000, 400),
        (b"\xff\xfe{}", 400),
        (b"null", 422),
        (b'{"a":"' + b"x" * 70000 + b'"}', 413),
    ],
)
async def test_bodies_that_are_not_taken(raw: bytes, status: int) -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("POST", "/register", raw=raw)

    assert (answer.status, answer.headers["Content-Type"]) == (status, PROBLEM)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
    ],
)
async def test_other_media_types_are_415(headers: dict[str, str]) -> None:
    async with a_registrar() as registrar:
        body = json.dumps({"service_name": "x", "endpoint": "http://10.0.0.1"}).encode()
        answer = await registrar.call(
            "POST", "/register", raw=body, headers={"Content-Type": "application/json", **headers}
        )

    assert (answer.status, answer.headers["Content-Type"]) == (415, PROBLEM)


async def test_a_chunked_body_has_the_same_limit() -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 8192

    async with (
        a_registrar() as registrar,
        registrar.session.post(
            registrar.url + "/register",
            data=chunks(),
            headers={"Content-Type": "application/json"},
        ) as answer,
    ):
        assert answer.status == 413


async def test_a_body_that_does_not_arrive_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.02)
    async with a_registrar() as registrar:
        reader, writer = await asyncio.open_connection(*registrar.service.address)
        head = b"POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: 10\r\n\r\n{")
        status = await reader.readline()
        writer.write(b" " * 9)
        writer.close()

    assert b" 408 " in status


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/register", "POST"),
        ("PATCH", "/services/web", "GET, HEAD"),
        ("GET", "/services/web/instances/one", "DELETE"),
        ("POST", "/v1/services", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ],
)
async def test_another_method_is_405_with_allow(method: str, path: str, allow: str) -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call(method, path)

    assert (answer.status, answer.headers["Allow"]) == (405, allow)
    assert answer.headers["Content-Type"] == PROBLEM


@pytest.mark.parametrize("path", ["/", "/nothing", "/services/a/b", "/v2/services", "//services"])
async def test_an_unknown_path_is_404(path: str) -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", path)

    assert (answer.status, answer.headers["Content-Type"]) == (404, PROBLEM)


async def test_what_is_not_http_is_counted_and_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_registrar() as registrar:
        address = registrar.service.address
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nA\0B: c\r\n\r\n")
        answer = await reader.read()
        writer.close()
        metrics = (await registrar.call("GET", "/metrics")).body

    assert answer.startswith(b"HTTP/1.")
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert "registrar_malformed_requests_total 1.0" in metrics
    assert not [r for r in caplog.records if r.name == "aiohttp.server"]


async def test_an_unforeseen_error_is_500_and_says_nothing_of_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_registrar() as registrar:

        async def broken(*_: object, **__: object) -> None:
            raise KeyError("secret")

        monkeypatch.setattr(registrar.store.store, "deregister", broken)
        answer = await registrar.call("DELETE", "/services/web/instances/one")
        metrics = (await registrar.call("GET", "/metrics")).body

    assert (answer.status, answer.headers["Content-Type"]) == (500, PROBLEM)
    assert "secret" not in json.dumps(answer.body)
    assert "registrar_internal_errors_total 1.0" in metrics
    assert "secret" in caplog.text


async def test_head_is_answered_without_a_body() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("HEAD", "/services")

    assert (answer.status, answer.body) == (200, None)


async def test_an_old_clients_token_is_ignored_where_none_is_configured() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", "/services", headers={"X-Registry-Token": "x"})

    assert answer.status == 200


# --- metrics --------------------------------------------------------------------------------


async def test_a_series_exists_once_its_operation_was_used() -> None:
    async with a_registrar() as registrar:
        before = (await registrar.call("GET", "/metrics")).body
        await registrar.register("web", "one")
        await registrar.register("api", "one")
        await registrar.call("PUT", "/services/api/instances/one/state", {"state": "draining"})
        await beat(registrar, "none_such")
        await registrar.call("GET", "/services/web")
        after = (await registrar.call("GET", "/metrics")).body

    assert "registry_operations_total{" not in before
    assert "registry_operation_duration_seconds_bucket{" not in before
    assert "registry_active_services 0.0" in before
    assert "registry_active_services 1.0" in after
    for line in (
        'registry_operations_total{operation="register",status="success"} 2.0',
        'registry_operations_total{operation="heartbeat",status="not_found"} 1.0',
        'registry_operations_total{operation="get",status="success"} 1.0',
    ):
        assert line in after
    assert 'status="error"' not in after
    for bound in ("0.0025", "0.005", "0.0075", "0.01", "0.025", "0.075", "0.1", "0.25"):
        line = f'registry_operation_duration_seconds_bucket{{le="{bound}",operation="register"}}'
        assert line in after
    assert "process_resident_memory_bytes " in after
    assert "callboard_build_info{" in after


async def test_each_heartbeat_of_a_list_counts() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        item = {"service_name": "web", "instance_id": "one"}
        await registrar.call("POST", "/heartbeat", [item, item, {"service_name": "none-such"}])
        metrics = (await registrar.call("GET", "/metrics")).body

    assert 'registry_operations_total{operation="heartbeat",status="success"} 2.0' in metrics
    assert 'registry_operations_total{operation="heartbeat",status="not_found"} 1.0' in metrics


async def test_evictions_are_counted() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.advance(64)
        registrar.clock.ms += 1000

        await until(lambda: is_evicted(registrar))


async def is_evicted(registrar: Registrar) -> bool:
    metrics: str = (await registrar.call("GET", "/metrics")).body
    return "registrar_evictions_total 1.0" in metrics


# --- health, start --------------------------------------------------------------------------


async def test_a_healthy_registrar_says_so() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        answer = await registrar.call("GET", "/health")

    assert (answer.status, answer.body["status"]) == (200, "healthy")
    assert (answer.body["services"], answer.body["instances"]) == (1, 1)


async def test_the_address_file_is_written_whole(tmp_path: Any) -> None:
    path = tmp_path / "address.json"
    async with a_registrar(address_file=str(path)) as registrar:
        assert json.loads(path.read_text()) == {"registrar": registrar.url}
        assert [p.name for p in tmp_path.iterdir()] == ["address.json"]


async def test_a_taken_port_is_named_with_its_option() -> None:
    async with a_registrar() as first:
        with pytest.raises(Exception, match=r"--listen.*in use"):
            async with a_registrar(listen=first.service.address):
                pass


def test_the_default_configuration_is_for_this_machine_only() -> None:
    config = Config()

    assert config.listen.is_loopback
    assert config.allow_endpoints == networks("")
