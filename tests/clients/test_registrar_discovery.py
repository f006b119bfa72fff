"""Programs that find services over HTTP, as they come from their makers: Prometheus and Traefik."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.registrar import LOOPBACK, Registrar, a_registrar
from tests.support.store import free_port
from tests.support.waiting import until

SHOWN_SECONDS = 40.0
"""Bound for a change to be seen: Prometheus gathers changes for 5 s, on a busy machine."""

GO_MODULES = "CALLBOARD_TEST_GO_MODULES"
"""Environment variable that allows tests to build Go programs out of others' modules."""

PROGRAMS = Path(__file__).parent / "programs"

Targets = dict[str, dict[str, str]]
"""Address → labels."""

PROMETHEUS = """
global: {scrape_interval: 1h}
scrape_configs:
  - job_name: http
    http_sd_configs:
      - url: REGISTRAR/sd/prometheus
        refresh_interval: 1s
"""

TRAEFIK = """
entryPoints: {web: {address: "127.0.0.1:WEB"}}
log: {level: ERROR}
providers:
  providersThrottleDuration: 10ms
  consulCatalog:
    endpoint: {address: "ADDRESS"}
    refreshInterval: 300ms
    watch: WATCH
    defaultRule: "Host(`{{ normalize .Name }}.example`)"
"""


def program(name: str) -> str:
    """Where *name* is: beside this Python, or where the system has it; else the test is skipped."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"not installed: {name}")
    return found


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def json_of(session: aiohttp.ClientSession, url: str) -> Any:
    try:
        async with session.get(url) as answer:
            return await answer.json() if answer.status == 200 else None
    except aiohttp.ClientError:
        return None  # not listening yet


# --- Prometheus -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def prometheus(registrar: Registrar, directory: Path) -> AsyncIterator[str]:
    config, port = directory / "prometheus.yml", free_port()
    config.write_text(PROMETHEUS.replace("REGISTRAR", registrar.url))
    async with running(
        *(program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory}/db"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"),
    ):
        yield f"http://127.0.0.1:{port}"


async def register_three(registrar: Registrar) -> None:
    await registrar.register(
        "Pay_ments",
        "one",
        ports={"http": 8080, "metrics": 9100},
        tags=["canary"],
        metadata={"git-sha": "abc"},
        version="1.2",
    )
    await registrar.register("pay-ments", "two", address="10.0.0.8")
    await registrar.register("orders", "o", address="2001:db8::7")


@pytest.mark.timeout(120)
async def test_prometheus_finds_instances_over_http(tmp_path: Path) -> None:
    async with a_registrar() as registrar, prometheus(registrar, tmp_path) as url:
        await register_three(registrar)

        async def targets() -> Targets:
            document = await json_of(registrar.session, url + "/api/v1/targets?state=active")
            active = document["data"]["activeTargets"] if document else []
            return {
                one["discoveredLabels"]["__address__"]: one["discoveredLabels"] for one in active
            }

        async def finds(*expected: str) -> None:
            async def is_so() -> bool:
                return set(await targets()) == set(expected)

            await until(is_so, SHOWN_SECONDS, str(expected))

        await finds("10.0.0.7:9100", "10.0.0.8:8080", "[2001:db8::7]:8080")
        one = (await targets())["10.0.0.7:9100"]
        assert one["__meta_callboard_service"] == "pay_ments"
        assert one["__meta_callboard_instance"] == "one"
        assert one["__meta_callboard_tags"] == ",canary,"
        assert one["__meta_callboard_metadata_git_sha"] == "abc"
        assert one["__meta_callboard_state"] == "serving"

        await registrar.call("DELETE", "/deregister/orders")
        await finds("10.0.0.7:9100", "10.0.0.8:8080")


@pytest.mark.skipif(
    not os.environ.get(GO_MODULES), reason=f"{GO_MODULES} is not set: it builds for a minute, once"
)
@pytest.mark.timeout(600)
async def test_prometheus_finds_instances_as_from_consul(tmp_path: Path) -> None:
    """By Prometheus' own module: Debian's program is built without `consul_sd_configs`."""
    go = program("go")
    build = await asyncio.create_subprocess_exec(
        *(go, "build", "-o", str(tmp_path / "consul_sd"), "."), cwd=PROGRAMS / "consul_sd"
    )
    assert await build.wait() == 0
    async with a_registrar() as registrar:
        await register_three(registrar)
        process = await asyncio.create_subprocess_exec(
            *(str(tmp_path / "consul_sd"), str(registrar.service.address)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        found: dict[str, Targets] = {}

        async def finds(service: str, **expected: str) -> None:
            """Read on until the targets have these statuses."""
            assert process.stdout is not None
            async with asyncio.timeout(SHOWN_SECONDS):
                while statuses(found.get(service, {})) != expected:
                    group = json.loads(await process.stdout.readline())
                    targets = {
                        t["__address__"]: t | group["labels"] for t in group["targets"] or ()
                    }
                    found[group["source"]] = targets

        try:
            await finds("pay_ments", **{"10.0.0.7:8080": "passing", "10.0.0.8:8080": "passing"})
            await finds("orders", **{"[2001:db8::7]:8080": "passing"})
            one = found["pay_ments"]["10.0.0.7:8080"]
            assert one["__meta_consul_service"] == "pay_ments"
            assert one["__meta_consul_service_id"] == "one"
            assert one["__meta_consul_tags"] == ",canary,"
            assert one["__meta_consul_dc"] == "callboard"
            assert one["__meta_consul_service_metadata_git_sha"] == "abc"

            drained = {"state": "draining"}
            await registrar.call("PUT", "/services/pay-ments/instances/two/state", drained)
            await finds("pay_ments", **{"10.0.0.7:8080": "passing", "10.0.0.8:8080": "critical"})
            await registrar.call("DELETE", "/deregister/orders")
            await finds("orders")
        finally:
            process.kill()
            await process.communicate()


def statuses(targets: Targets) -> dict[str, str]:
    return {address: labels["__meta_consul_health"] for address, labels in targets.items()}


# --- Traefik --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def a_web_server(text: str) -> AsyncIterator[int]:
    """One that answers *text*; its port on 127.0.0.1."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=text)

    application = web.Application()
    application.router.add_get("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("watch", ["true", "false"], ids=["watching", "polling"])
async def test_traefik_routes_to_what_is_registered(watch: str, tmp_path: Path) -> None:
    """By its default rule, and by settings that stand in metadata."""
    traefik, port, config = program("traefik"), free_port(), tmp_path / "traefik.yml"
    async with (
        a_registrar(allow_endpoints=LOOPBACK) as registrar,
        a_web_server("one") as one,
        a_web_server("two") as two,
    ):
        text = TRAEFIK.replace("WEB", str(port)).replace("WATCH", watch)
        config.write_text(text.replace("ADDRESS", str(registrar.service.address)))
        for name, number in (("one", one), ("two", two)):
            await registrar.register("web_app", name, address="127.0.0.1", ports={"http": number})
        await registrar.register(
            "hidden",
            "h",
            address="127.0.0.1",
            ports={"http": one},
            metadata={"traefik.enable": "false"},
        )
        await registrar.register(
            "ruled",
            "r",
            address="127.0.0.1",
            ports={"http": two},
            metadata={"traefik.http.routers.ruled.rule": "Host(`other.example`)"},
        )

        async def answer(host: str) -> tuple[int, str]:
            try:
                headers = {"Host": host}
                async with registrar.session.get(f"http://127.0.0.1:{port}/", headers=headers) as r:
                    return r.status, await r.text()
            except aiohttp.ClientError:
                return 0, ""

        async def answers(host: str) -> set[tuple[int, str]]:
            return {await answer(host) for _ in range(8)}

        async def is_answered(host: str, *expected: tuple[int, str]) -> bool:
            return await answers(host) == set(expected)

        async with running(traefik, f"--configFile={config}"):
            both = (200, "one"), (200, "two")
            await until(lambda: is_answered("web-app.example", *both), SHOWN_SECONDS)
            assert await answers("other.example") == {(200, "two")}
            assert {status for status, _ in await answers("hidden.example")} == {404}

            state = {"state": "draining"}
            await registrar.call("PUT", "/services/web_app/instances/one/state", state)
            await until(lambda: is_answered("web-app.example", (200, "two")), SHOWN_SECONDS)
            await registrar.call(
                "PUT", "/services/web_app/instances/one/state", {"state": "serving"}
            )
            await until(lambda: is_answered("web-app.example", *both), SHOWN_SECONDS)
