"""The gateway's own pages, its settings, metrics, and its life as a process on uvloop."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from registry.runtime import config, http
from registry.runtime.config import ConfigError, HostPort
from registry.runtime.metrics import registry_for, text_of
from resolver_gateway.config import ADMIN, Config, problems
from resolver_gateway.metrics import GAUGES, Counts, GatewayCollector
from tests.support.gateway_process import GatewayProcess
from tests.support.http import DnsStub, Upstream, answering, gateway
from tests.support.waiting import until


async def test_the_status_page_says_what_is_known() -> None:
    up = await Upstream("one").start()
    async with gateway(up) as world:
        await world.get("/v2/payments/")
        answer = await world.get("/gateway/status")
        page = json.loads(answer.body)

        assert answer.status == 200
        assert page["gateway"] == "operational"
        assert page["version"]
        assert page["circuit_breaker"] == {
            "open": False,
            "failures": 0,
            "threshold": 3,
            "opened_at": None,
            "services": [],
        }
        cache = page["service_discovery_cache"]
        assert (cache["size"], cache["services"], cache["ttl"]) == (1, ["payments"], 5.0)
        assert page["health_cache"]["size"] == 0
        assert page["upstreams"]["payments"][0]["address"] == f"127.0.0.1:{up.port}"


async def test_the_status_page_shows_breaker_and_ejection() -> None:
    async with gateway(await Upstream(script=lambda u, r: None).start()) as world:
        for _ in range(3):
            await world.get("/v2/payments/")
        page = json.loads((await world.get("/gateway/status")).body)

        assert page["circuit_breaker"]["open"] is True
        assert page["circuit_breaker"]["failures"] == 3
        assert page["circuit_breaker"]["opened_at"] > 1e9
        assert page["upstreams"]["payments"][0]["failures"] >= 3


async def test_a_health_check_asks_every_instance_and_is_kept_for_5_s() -> None:
    sick = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    well, ill = await Upstream("well").start(), await Upstream("ill", answering(sick)).start()
    async with gateway(well, ill, service="web-app") as world:
        first = json.loads((await world.get("/gateway/health-check/web_app")).body)
        second = json.loads((await world.get("/gateway/health-check/web_app")).body)

        assert first["service_name"] == "web_app"
        assert first["healthy"] is True
        assert first["service_url"] == f"http://127.0.0.1:{well.port}"
        assert (first["status_code"], first["cached"]) == (200, False)
        assert first["response_time_ms"] > 0
        assert {i["instance"]: i["healthy"] for i in first["instances"]} == {
            "well": True,
            "ill": False,
        }
        assert (second["cached"], second["timestamp"]) == (True, first["timestamp"])
        assert len(well.requests) == 1
        assert well.requests[0].startswith(b"GET /health HTTP/1.1\r\n")
        world.clock.shift += 5.1
        await world.get("/gateway/health-check/web_app")
        assert len(well.requests) == 2


async def test_a_health_check_of_a_stranger_is_404() -> None:
    async with gateway(dns=DnsStub()) as world:
        assert (await world.get("/gateway/health-check/none")).status == 404
        assert (await world.get("/gateway/health-check/none/x")).status == 404


async def test_our_pages_are_only_read() -> None:
    async with gateway(dns=DnsStub()) as world:
        answer = await world.ask(
            b"POST /gateway/status HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n"
        )

        assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD")
        assert (await world.get("/else")).fields["x-callboard-error"] == "no-route"


async def test_a_request_is_one_line_in_the_access_log(capsys: pytest.CaptureFixture[str]) -> None:
    async with gateway(await Upstream().start(), access_log="json") as world:
        await world.get("/v2/payments/a?token=secret")
        line = capsys.readouterr().err.strip()

        told = json.loads(line)
        assert (told["method"], told["target"], told["status"]) == ("GET", "/v2/payments/a", 200)
        assert (told["resolution"], told["attempts"], told["service"]) == ("miss", 1, "payments")
        assert "secret" not in line


async def test_options_of_the_server_itself_are_answered() -> None:
    async with gateway(dns=DnsStub()) as world:
        assert (await world.ask(b"OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n")).status == 200


async def test_requests_are_counted_by_status_and_cause() -> None:
    async with gateway(await Upstream().start()) as world:
        await world.get("/v2/payments/")
        await world.get("/v2/none/")
        await world.ask(b"GET / HTTP/1.1\r\n\r\n")
        registry = registry_for("gateway")
        registry.register(
            GatewayCollector(
                world.counts,
                world.handler.resolver._client.outcomes,
                lambda: dict.fromkeys(GAUGES, 0.0),
            )
        )
        text = text_of(registry).decode()

        assert 'gateway_requests_total{cause="",status="2xx"} 1.0' in text
        assert 'gateway_requests_total{cause="unknown-service",status="4xx"} 1.0' in text
        assert 'gateway_requests_total{cause="bad-request",status="4xx"} 1.0' in text
        assert 'gateway_dns_queries_total{outcome="nxdomain"} 1.0' in text
        assert 'gateway_resolutions_total{result="miss"} 2.0' in text
        assert 'gateway_request_duration_seconds_bucket{le="+Inf"} 2.0' in text


def test_counts_start_at_nothing() -> None:
    assert sum(Counts().buckets) == 0


# --- settings


def test_the_defaults_are_those_of_the_contract() -> None:
    settings, common = config.load(Config, "gateway", [], {}, admin=ADMIN, problems=problems)

    assert settings.listen == HostPort("127.0.0.1", 8000)
    assert settings.dns == (HostPort("127.0.0.1", 1053),)
    assert (settings.zone, settings.workers, settings.fallback) == (
        "svc.internal.",
        1,
        "prefer-dns",
    )
    assert common.admin == HostPort("127.0.0.1", 8001)


def test_every_problem_is_said_at_once() -> None:
    argv = [
        "--listen",
        "x",
        "--workers",
        "0",
        "--fallback",
        "maybe",
        "--allow-upstreams",
        "10.0.0.0/99",
    ]

    with pytest.raises(ConfigError) as caught:
        config.load(Config, "gateway", argv, {}, admin=ADMIN, problems=problems)

    assert len(caught.value.problems) == 4


def test_the_gateway_does_not_ask_itself() -> None:
    argv = ["--listen", "127.0.0.1:1053"]

    with pytest.raises(ConfigError, match="--dns"):
        config.load(Config, "gateway", argv, {}, admin=ADMIN, problems=problems)


# --- the process


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_process_serves_says_where_and_stops_on_sigterm(
    tmp_path: Path, workers: int
) -> None:
    stub, up = DnsStub(), await Upstream("one").start()
    dns = await stub.start()
    stub.instances["payments"] = [up.record]
    async with GatewayProcess(tmp_path, dns, "--workers", str(workers)) as process:

        async def is_ready() -> bool:
            return (await process.ready()).status == 200

        await until(is_ready, 20)
        answers = [await process.get("/v2/payments/x") for _ in range(6)]

        async def are_counted() -> bool:
            metrics = await http.request("GET", process.addresses["admin"] + "/metrics", timeout=5)
            return b'gateway_requests_total{cause="",status="2xx"} 6.0' in metrics.body

        assert {(a.status, a.body) for a in answers} == {(200, b"one")}
        await until(are_counted, 20)  # a worker that is busy starting reports later
    stub.stop()
    await up.stop()
    assert process.process.returncode == 0
    assert b"Traceback" not in process.log


async def test_the_process_starts_without_dns_and_says_what_it_waits_for(tmp_path: Path) -> None:
    stub = DnsStub(silent=True)
    dns = await stub.start()
    async with GatewayProcess(tmp_path, dns) as process:
        response = await process.ready()
        assert response.status == 503
        assert "has answered yet" in response.json()["missing"][0]

        stub.silent = False

        async def is_ready() -> bool:
            return (await process.ready()).status == 200

        await until(is_ready, 10)
    stub.stop()


async def test_a_request_under_way_is_finished_while_the_process_drains(tmp_path: Path) -> None:
    stub, up = DnsStub(), await Upstream(script=lambda u, r: []).start()
    dns = await stub.start()
    stub.instances["payments"] = [up.record]
    async with GatewayProcess(tmp_path, dns) as process:
        asked = asyncio.ensure_future(process.get("/v2/payments/"))
        await until(lambda: up.requests)
        process.process.send_signal(signal.SIGTERM)

        async def refuses() -> bool:
            try:
                await process.get("/gateway/status")
            except OSError:
                return True
            return False

        await until(refuses)
        next(iter(up._writers)).write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        answer = await asked
        assert (answer.status, answer.body) == (200, b"late")
        assert await process.process.wait() == 0
    stub.stop()
    await up.stop()
