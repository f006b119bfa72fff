"""A container's own HEALTHCHECK as its health, from a socket that speaks as Docker's does."""

import json
from typing import Any

import pytest

from sidecar.docker import verdict_of
from sidecar.health import Healthy, Policy, Unhealthy, Verdict
from sidecar.probe import Prober
from sidecar.registration import Service
from sidecar.tables import services_from
from tests.support.fake_docker import FakeDocker, running


def service_in(container: str, url: str) -> Service:
    table = {
        "name": "web",
        "host": "web",
        "docker_container": container,
        "docker_host": url,
        "health_timeout": 0.2,
    }
    (service,), problems = services_from([table], ["web"], Policy())
    assert problems == []
    return service


async def verdict(container: str, url: str) -> Verdict:
    return await Prober().verdict(service_in(container, url))


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (running("healthy"), Healthy()),
        (running("unhealthy", "curl: (7) refused\n"), Unhealthy("HEALTHCHECK: curl: (7) refused")),
        (running("unhealthy"), Unhealthy("HEALTHCHECK: unhealthy")),
        (running("starting"), Unhealthy("HEALTHCHECK: starting")),
        (running("none"), Unhealthy("the container has no HEALTHCHECK")),
        (running(None), Unhealthy("the container has no HEALTHCHECK")),
        ({"State": {"Status": "exited"}}, Unhealthy("the container is exited")),
        ({"State": running("healthy")["State"] | {"Status": "paused"}},
         Unhealthy("the container is paused")),
        ({}, Unhealthy("the container is in no state")),
        ({"State": []}, Unhealthy("the container is in no state")),
    ],
)  # fmt: skip
def test_what_docker_says_is_a_verdict(container: dict[str, Any], expected: Verdict) -> None:
    assert verdict_of(200, json.dumps(container).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"[" * 9000, b"\xff"])
def test_whatever_else_it_says_is_unhealthy(body: bytes) -> None:
    assert isinstance(verdict_of(200, body), Unhealthy)


async def test_the_container_is_asked_for_by_name() -> None:
    async with FakeDocker() as docker:
        docker.containers["stack/web.1"] = running("healthy") | {"Config": {"Env": ["X" * 9000]}}

        assert await verdict("stack/web.1", docker.url) == Healthy()
    assert docker.targets == ["GET /containers/stack%2Fweb.1/json"]


async def test_a_container_that_docker_does_not_know_says_so() -> None:
    async with FakeDocker() as docker:
        found = await verdict("web", docker.url)

    assert found == Unhealthy("Docker answered 404: No such container: web")


async def test_a_docker_that_hangs_or_is_not_there_is_no_exception() -> None:
    async with FakeDocker() as docker:
        docker.hangs = True
        hanging = await verdict("web", docker.url)
    away = await verdict("web", docker.url)

    assert hanging == Unhealthy("no answer within 0.2 s")
    assert away == Unhealthy("No such file or directory")


async def test_it_may_be_behind_a_proxy_that_allows_only_to_read() -> None:
    """Who can write to Docker's socket owns the machine; a proxy passes GET alone."""
    found = await verdict("web", "tcp://127.0.0.1:9")

    assert found == Unhealthy("Connection refused")


def test_the_host_is_the_container_where_it_is_a_name() -> None:
    tables = [
        {"name": "a", "host": "vertice-nmap", "probe": "docker"},
        {"name": "b", "host": "10.0.0.7", "probe": "docker"},
        {"name": "c", "host": "web", "probe": "docker", "docker_host": "ssh://web"},
    ]

    services, problems = services_from(tables, ["a", "b", "c"], Policy())

    assert services[0].container == "vertice-nmap"
    assert services[0].probed == "HEALTHCHECK of vertice-nmap"
    assert [p.split(":")[:2] for p in problems] == [
        ["b", " docker_container"],
        ["c", " docker_host"],
    ]
