"""Two registrars over one real store: what one is told the other knows, and tells."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from registrar.config import Config
from registrar.mint import entry_for
from registrar.service import Service, build
from registry.runtime.config import Common, HostPort
from tests.support.store import StoreServer
from tests.support.waiting import until

BODY = {"instance_id": "one", "address": "10.0.0.7", "ports": {"http": 80}}


class Replica:
    """One registrar, and a client for it."""

    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        self.url = f"http://{service.address}"
        self.session = session

    async def call(
        self, method: str, path: str, body: Any = None, token: str = ""
    ) -> tuple[int, Any, Any]:
        headers = {"X-Registry-Token": token} if token else {}
        async with self.session.request(
            method, self.url + path, json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers

    async def register(self, service: str, token: str = "", **more: Any) -> tuple[int, Any]:
        body = {**BODY, "service_name": service, **more}
        status, document, _ = await self.call("POST", "/register", body, token)
        return status, document


@contextlib.asynccontextmanager
async def replicas(
    server: StoreServer, count: int, tokens: Path | None = None
) -> AsyncIterator[list[Replica]]:
    zone = server.fresh_zone()
    config = Config(
        listen=HostPort("127.0.0.1", 0),
        redis=server.url,
        zone=(zone,),
        tokens="" if tokens is None else str(tokens),
    )
    services = [build(config, Common()) for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for service in services:
            stack.push_async_callback(service.stop)
            await service.start()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        made = [Replica(service, session) for service in services]
        for replica in made:

            async def is_current(replica: Replica = replica) -> bool:
                return bool((await replica.call("GET", "/health"))[1]["status"] == "healthy")

            await until(is_current, seconds=15)
        yield made


async def next_event(answer: aiohttp.ClientResponse) -> tuple[str, dict[str, Any]]:
    """The kind and the data of the next event."""
    kind = ""
    async with asyncio.timeout(5):
        while line := (await answer.content.readline()).decode().strip() or "\n":
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return kind, json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream has ended")


async def test_events_tell_what_happened_at_another_replica(store_server: StoreServer) -> None:
    """And whoever changes replicas goes on where the other one left off."""
    async with replicas(store_server, 2) as (one, two):
        async with one.session.get(two.url + "/events") as stream:
            _, first = await one.register("web")
            kind, data = await next_event(stream)
        assert (kind, data["service"], data["revision"]) == ("up", "web", first["revision"])

        await one.call("PUT", "/services/web/settings", {"answers": 1})
        await two.call("DELETE", "/services/web/instances/one")
        headers = {"Last-Event-ID": first["revision"]}
        async with one.session.get(one.url + "/events", headers=headers) as stream:
            kinds = [(await next_event(stream))[0] for _ in range(2)]

    assert kinds == ["settings", "down"]


async def test_one_waits_at_one_replica_for_what_happens_at_the_other(
    store_server: StoreServer,
) -> None:
    async with replicas(store_server, 2) as (one, two):
        await one.register("web")

        async def knows() -> bool:
            return (await two.call("GET", "/services/web"))[0] == 200

        await until(knows)
        _, _, headers = await two.call("GET", "/services/web")
        index = headers["X-Callboard-Index"]
        waiting = asyncio.create_task(two.call("GET", f"/services/web?index={index}&wait=30s"))
        await one.register("web", instance_id="two")
        status, document, _ = await waiting

    assert (status, len(document["instances"])) == (200, 2)


async def test_replicas_give_one_state_one_tag(store_server: StoreServer) -> None:
    """So a client behind a load balancer is told 304 by whichever it meets."""
    async with replicas(store_server, 2) as (one, two):
        await one.register("web")
        await one.register("web", instance_id="two")
        await one.call("DELETE", "/services/web/instances/one")

        async def tags(path: str) -> set[str]:
            return {(await replica.call("GET", path))[2]["ETag"] for replica in (one, two)}

        async def agree() -> bool:
            paths = ("/services", "/services/web", "/services?detail=true", "/sd/prometheus")
            return all([len(await tags(path)) == 1 for path in paths])

        await until(agree)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.toml"
    file.write_text(entry_for("cbt_red", "red", ["*"]) + entry_for("cbt_blue", "blue", ["*"]))
    return file


async def test_of_two_who_register_a_name_at_once_at_two_replicas_one_owns_it(
    store_server: StoreServer, tokens: Path
) -> None:
    """Each replica lets it pass; the store decides."""
    async with replicas(store_server, 2, tokens) as (one, two):
        for number in range(20):
            name = f"name-{number}"
            answers = await asyncio.gather(
                one.register(name, "cbt_red"), two.register(name, "cbt_blue", instance_id="two")
            )
            assert sorted(status for status, _ in answers) == [201, 403]
            owner = "cbt_red" if answers[0][0] == 201 else "cbt_blue"
            other = "cbt_blue" if owner == "cbt_red" else "cbt_red"

            path = f"/deregister/{name}"
            for replica in (one, two):
                assert (await replica.call("DELETE", path, token=other))[0] == 403
            assert (await one.register(name, owner, weight=5))[0] == 200
