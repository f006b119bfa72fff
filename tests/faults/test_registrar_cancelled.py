"""Callers that leave in the middle: nobody is ever given the answer to another's question (T44)."""

import asyncio
import random
from collections.abc import AsyncIterator

import aiohttp
import pytest

from registrar.config import Config
from registrar.service import build
from registry.runtime.config import Common, HostPort
from tests.support.store import StoreServer
from tests.support.waiting import until

CALLS, AT_ONCE = 600, 30
SEED = 44


@pytest.fixture
async def url(store_server: StoreServer) -> AsyncIterator[str]:
    """A registrar over a real store."""
    config = Config(
        listen=HostPort("127.0.0.1", 0),
        redis=store_server.url,
        zone=(store_server.fresh_zone(),),
    )
    service = build(config, Common())
    try:
        await service.start()
        await until(lambda: not service.missing(), seconds=15)
        yield f"http://{service.address}"
    finally:
        await service.stop()


async def test_each_answer_names_what_its_caller_asked_for(url: str) -> None:
    rng = random.Random(SEED)
    answered = 0

    async def one(session: aiohttp.ClientSession, n: int) -> None:
        nonlocal answered
        name = {"service_name": f"nonce-{n}", "instance_id": f"i{n}"}
        body = {**name, "address": "10.0.0.7", "ports": {"http": 1 + n}, "lease_ttl": 20 + n}
        try:
            async with asyncio.timeout(rng.choice([None, rng.uniform(0.0, 0.05)])):
                async with session.post(url + "/register", json=body) as answer:
                    document = await answer.json()
                assert answer.status in (200, 201), document
                assert document["service_name"] == f"nonce-{n}"
                assert document["instance_id"] == f"i{n}"
                assert document["lease_ttl"] == 20 + n
                # In a list with others', of which some are not there.
                beats = [name, {"service_name": "nobody", "instance_id": "x"}, name]
                async with session.post(url + "/heartbeat", json=beats) as answer:
                    results = (await answer.json())["results"]
                assert [r["status"] for r in results] == [200, 404, 200]
                assert [r.get("ttl_remaining") for r in results] == [20 + n, None, 20 + n]
                answered += 1
        except (TimeoutError, aiohttp.ClientError):
            return

    async with aiohttp.ClientSession() as session:
        for start in range(0, CALLS, AT_ONCE):
            await asyncio.gather(*(one(session, n) for n in range(start, start + AT_ONCE)))

    assert CALLS / 4 < answered < CALLS
