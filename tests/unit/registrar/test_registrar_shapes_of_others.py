"""Services in the shapes of Consul and of Prometheus' HTTP service discovery."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from registrar import consul_reads
from registrar.consul import catalog_entry, health_entry, status_of, tags_of
from registrar.prometheus_sd import target_of
from registry.model import Instance, Port, Registration
from tests.support.registrar import Registrar, Response, a_registrar
from tests.support.waiting import until

MODEL = Registration(
    "pay_ments",
    "one",
    (Port("http", 8080), Port("metrics", 9100)),
    ("10.0.0.7", "2001:db8::7"),
    tags=("canary",),
    version="1.2",
    metadata={"git-sha": "abc", "traefik.enable": "true"},
)


def an_instance(state: str = "serving", reason: str = "", **more: Any) -> Instance:
    return Instance(replace(MODEL, **more), 7, "l", 1000, 0, state, reason, (), "Pay_ments")


# --- Prometheus -------------------------------------------------------------------------------


def test_a_target_is_the_port_for_metrics_with_what_is_known_as_labels() -> None:
    target = target_of("Pay_ments", an_instance())

    assert target == {
        "targets": ["10.0.0.7:9100"],
        "labels": {
            "__meta_callboard_service": "Pay_ments",
            "__meta_callboard_instance": "one",
            "__meta_callboard_address": "10.0.0.7",
            "__meta_callboard_host": "",
            "__meta_callboard_port": "9100",
            "__meta_callboard_port_name": "metrics",
            "__meta_callboard_state": "serving",
            "__meta_callboard_version": "1.2",
            "__meta_callboard_zone": "",
            "__meta_callboard_priority": "0",
            "__meta_callboard_weight": "100",
            "__meta_callboard_health_endpoint": "/health",
            "__meta_callboard_tags": ",canary,",
            "__meta_callboard_metadata_git_sha": "abc",
            "__meta_callboard_metadata_traefik_enable": "true",
        },
    }


@pytest.mark.parametrize(
    ("more", "port", "expected"),
    [
        ({}, "http", "10.0.0.7:8080"),
        ({}, "grpc", None),
        ({"ports": (Port("http", 80),)}, "", "10.0.0.7:80"),
        ({"ports": (Port("game", 1, "udp"), Port("web", 2))}, "", "10.0.0.7:2"),
        ({"ports": (Port("game", 1, "udp"),)}, "", None),
        ({"addresses": ("2001:db8::7",)}, "", "[2001:db8::7]:9100"),
        ({"addresses": (), "host": "vertice-nmap"}, "", "vertice-nmap:9100"),
    ],
)
def test_which_port_and_where(more: dict[str, Any], port: str, expected: str | None) -> None:
    target = target_of("x", an_instance(**more), port)

    assert (target and target["targets"]) == (expected and [expected])


async def test_no_instances_are_no_targets_and_no_error() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", "/sd/prometheus")

    assert (answer.status, answer.body) == (200, [])
    assert answer.headers["Content-Type"] == "application/json"


async def test_targets_are_filtered_as_services_are() -> None:
    """All states are listed unless one is asked for: one wants to see what is ill."""
    async with a_registrar() as registrar:
        await registrar.register("web", "one", tags=["a"], address="10.0.0.1")
        await registrar.register("web", "two", address="10.0.0.2")
        await registrar.call("PUT", "/services/web/instances/two/state", {"state": "unhealthy"})

        async def targets(query: str) -> list[str]:
            answer = await registrar.call("GET", "/sd/prometheus" + query)
            return [target for group in answer.body for target in group["targets"]]

        assert await targets("") == ["10.0.0.1:8080", "10.0.0.2:8080"]
        assert await targets("?tag=a") == ["10.0.0.1:8080"]
        assert await targets("?state=unhealthy") == ["10.0.0.2:8080"]
        assert await targets("?port=metrics") == []
        assert (await registrar.call("GET", "/sd/prometheus?state=ill")).status == 422
        assert (await registrar.call("GET", "/sd/prometheus?port=A%20B")).status == 422


async def test_while_the_store_is_away_targets_stay_and_say_so() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        registrar.view.lose(7.0)
        stale = await registrar.call("GET", "/sd/prometheus")
        registrar.view.loaded = False
        never = await registrar.call("GET", "/sd/prometheus")

    assert (stale.status, len(stale.body), stale.headers["Age"]) == (200, 1, "7")
    assert never.status == 503, "an empty list would make Prometheus forget its targets"


# --- Consul -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("serving", "passing"),
        ("suspect", "warning"),
        ("draining", "critical"),
        ("maintenance", "critical"),
        ("waiting", "critical"),
        ("unhealthy", "critical"),
    ],
)
def test_a_state_is_a_check(state: str, status: str) -> None:
    assert status_of(an_instance(state)) == status


def test_without_an_address_nothing_passes() -> None:
    assert status_of(an_instance(addresses=(), host="x")) == "critical"


def test_settings_for_traefik_are_tags() -> None:
    assert tags_of(an_instance()) == ["canary", "traefik.enable=true"]


def test_an_instance_as_consuls_health_has_it() -> None:
    entry = health_entry("Pay_ments", an_instance("draining", "new disk"))

    assert entry["Node"]["Node"] == entry["Node"]["Address"] == "10.0.0.7"
    service = entry["Service"]
    assert (service["ID"], service["Service"], service["Port"]) == ("one", "Pay_ments", 8080)
    assert service["Meta"] == {"version": "1.2", **MODEL.metadata}
    assert service["Weights"] == {"Passing": 100, "Warning": 1}
    (check,) = entry["Checks"]
    assert (check["Status"], check["Output"]) == ("critical", "new disk")
    assert check["ServiceID"] == "one"


def test_an_instance_as_consuls_catalog_has_it() -> None:
    entry = catalog_entry("Pay_ments", an_instance(weight=0))

    assert (entry["ServiceAddress"], entry["ServicePort"]) == ("10.0.0.7", 8080)
    assert entry["ServiceWeights"]["Passing"] == 1, "Consul knows no weight of 0"
    assert entry["ModifyIndex"] == 7


async def fill(registrar: Registrar) -> None:
    await registrar.register("Pay_ments", "one", tags=["a", "b"])
    await registrar.register("pay-ments", "two", tags=["b", "c"], address="10.0.0.8")
    await registrar.register("db", "d")
    await registrar.call("PUT", "/services/db/instances/d/state", {"state": "draining"})


def ids(answer: Response) -> list[str]:
    return [entry["Service"]["ID"] for entry in answer.body]


async def test_services_are_listed_with_all_their_tags() -> None:
    async with a_registrar() as registrar:
        await fill(registrar)
        answer = await registrar.call("GET", "/v1/catalog/services")
        await registrar.call("DELETE", "/deregister/db")
        after = await registrar.call("GET", "/v1/catalog/services")

    assert answer.body == {"pay_ments": ["a", "b", "c"], "db": []}
    assert after.body == {"pay_ments": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/pay_ments", ["one", "two"]),
        ("/PAY-MENTS", ["one", "two"]),
        ("/pay_ments?tag=b", ["one", "two"]),
        ("/pay_ments?tag=a", ["one"]),
        ("/pay_ments?tag=a&tag=c", []),
        ("/db", ["d"]),
        ("/db?passing", []),
        ("/db?passing=true", []),
        ("/db?passing=false", ["d"]),
        ("/none", []),
        ("/pay_ments?passing&dc=callboard&stale&near=_agent", ["one", "two"]),
    ],
)
async def test_health_of_a_service(path: str, expected: list[str]) -> None:
    async with a_registrar() as registrar:
        await fill(registrar)
        answer = await registrar.call("GET", "/v1/health/service" + path)

    assert (answer.status, ids(answer)) == (200, expected)


async def test_the_catalog_shows_instances_in_any_state() -> None:
    async with a_registrar() as registrar:
        await fill(registrar)
        answer = await registrar.call("GET", "/v1/catalog/service/db")

    assert [entry["ServiceID"] for entry in answer.body] == ["d"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [("any", ["d", "one", "two"]), ("passing", ["one", "two"]), ("critical", ["d"]),
     ("warning", [])],
)  # fmt: skip
async def test_checks_by_their_status(state: str, expected: list[str]) -> None:
    async with a_registrar() as registrar:
        await fill(registrar)
        answer = await registrar.call("GET", f"/v1/health/state/{state}")

    assert sorted(check["ServiceID"] for check in answer.body) == expected


async def test_all_checks_are_made_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_reads, "ALL_CHECKS_SECONDS", 0.05)
    async with a_registrar() as registrar:
        await fill(registrar)
        first = await registrar.call("GET", "/v1/health/state/any")
        await registrar.register("more", "m")
        second = await registrar.call("GET", "/v1/health/state/any")

    assert len(second.body) == len(first.body) + 1
    assert int(second.headers["X-Consul-Index"]) > int(first.headers["X-Consul-Index"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/catalog/services?filter=x",
        "/v1/health/service/web?node-meta=a:b",
        "/v1/health/state/ill",
        "/v1/catalog/services?index=x",
    ],
)
async def test_what_would_leave_something_out_is_refused(path: str) -> None:
    """To ignore a filter would be to show too much."""
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", path)

    assert answer.status == 422


@pytest.mark.parametrize(
    "path", ["/v1/catalog/services", "/v1/health/service/web", "/v1/health/state/any"]
)
async def test_consuls_clients_wait_by_index(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_reads, "ALL_CHECKS_SECONDS", 0.0)
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        first = await registrar.call("GET", path)
        index = first.headers["X-Consul-Index"]
        same = await registrar.call("GET", f"{path}?index={index}&wait=10ms&stale")
        changed = await registrar.register("web", "two", tags=["new"])
        later = await registrar.call("GET", f"{path}?index={index}&wait=5m")

    assert (same.body, same.headers["X-Consul-Index"]) == (first.body, index)
    assert later.body != first.body
    assert later.headers["X-Consul-Index"] == changed["revision"]


async def test_a_waiting_client_is_woken() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        index = (await registrar.call("GET", "/v1/health/service/web")).headers["X-Consul-Index"]

        async def register() -> None:
            await until(lambda: registrar.service._watchers.count == 1)
            await registrar.register("web", "two")

        path = f"/v1/health/service/web?index={index}&wait=60s"
        answer, _ = await asyncio.gather(registrar.call("GET", path), register())

    assert ids(answer) == ["one", "two"]


async def test_what_is_stale_says_so_as_consul_does() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        fresh = (await registrar.call("GET", "/v1/catalog/services")).headers
        registrar.view.lose(7.0)
        stale = (await registrar.call("GET", "/v1/catalog/services")).headers

    assert (fresh["X-Consul-KnownLeader"], fresh["X-Consul-LastContact"]) == ("true", "0")
    assert (stale["X-Consul-KnownLeader"], stale["X-Consul-LastContact"]) == ("false", "7000")


async def test_prometheus_finds_the_datacenter() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", "/v1/agent/self")

    assert answer.body["Config"]["Datacenter"] == "callboard"


async def test_consuls_paths_are_its_own() -> None:
    """`/health` is ours, and says how the registrar is."""
    async with a_registrar() as registrar:
        statuses = [
            (await registrar.call("GET", path)).status
            for path in ("/catalog/services", "/health/service/web", "/agent/self", "/v1/health")
        ]

    assert statuses == [404, 404, 404, 200]
