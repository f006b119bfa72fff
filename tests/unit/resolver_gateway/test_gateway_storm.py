"""Many clients, some of which leave at any moment: every answer is the asker's own."""

import asyncio
import random

from tests.support.http import Upstream, World, gateway
from tests.support.waiting import until

REQUESTS = 400


def nonce_script(upstream: Upstream, request: bytes) -> list[bytes]:
    """Answers with the nonce that was asked for, in one of several framings, cut anywhere."""
    nonce = request.split(b" ")[1].removeprefix(b"/")
    rng = random.Random(nonce)
    body = nonce * rng.choice([1, 50, 2000])
    if rng.random() < 0.5:
        half = len(body) // 2
        whole = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (half, body[:half], len(body) - half, body[half:])
        )
    else:
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    cut = rng.randrange(1, len(whole))
    return [whole[:cut], whole[cut:]]


async def _ask(world: World, rng: random.Random, number: int) -> str:
    """One client with one or two requests; what became of it."""
    nonces = [b"n%d-%d" % (number, i) for i in range(rng.choice([1, 2]))]
    client = await world.client()
    raw = b"".join(b"GET /v2/payments/%b HTTP/1.1\r\nHost: g\r\n\r\n" % n for n in nonces)
    fate = rng.random()
    if fate < 0.3:  # leaves, in the middle of asking or of being answered
        await client.send(raw[: rng.randrange(1, len(raw) + 1)])
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        client.close()
        return "left"
    await client.send(raw)
    for nonce in nonces:
        answer = await client.answer()
        assert answer.status == 200
        assert answer.body == nonce * (len(answer.body) // len(nonce))
    client.close()
    return "answered"


async def test_no_client_ever_sees_bytes_of_anothers_answer() -> None:
    """A request that is given up must not leave its answer on a connection that goes on."""
    rng = random.Random(20)
    ups = [await Upstream(name, nonce_script).start() for name in ("one", "two")]
    async with gateway(*ups) as world:
        fates = []
        for start in range(0, REQUESTS, 40):
            batch = (_ask(world, rng, number) for number in range(start, start + 40))
            fates += await asyncio.gather(*batch)

        assert fates.count("answered") > REQUESTS // 2
        assert fates.count("left") > REQUESTS // 10
        await until(lambda: not world.handler.clients)
        assert world.counts.unanswered.keys() <= {("none", "client-gone")}
        assert all(c.call is None for c in world.handler.pool.connections)


async def test_bytes_that_drip_one_by_one_are_the_same_request() -> None:
    up = await Upstream(script=nonce_script).start()
    async with gateway(up) as world:
        client = await world.client()
        raw = (
            b"POST /v2/payments/drip HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"4\r\nbody\r\n0\r\n\r\n"
        )
        for octet in raw:
            await client.send(bytes([octet]))
            await asyncio.sleep(0)
        answer = await client.answer()

        assert answer.body.startswith(b"drip")
        assert up.requests[0].startswith(b"POST /drip HTTP/1.1\r\n")
