"""Bodies that stream, connections that go on, and connections that are spliced."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from resolver_gateway.door import Limits
from resolver_gateway.outflow import WRITE_STALL
from resolver_gateway.tunnel import HALF_CLOSED
from tests.support.http import Client, Upstream, World, gateway, head_fields
from tests.support.judges import requests_in
from tests.support.puppet import GET, Puppet, asking, played
from tests.support.waiting import until

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    b"GET /v2/payments/ws HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


# --- streams


async def test_events_arrive_while_the_answer_goes_on() -> None:
    """Server-sent events: each is there before the next is said."""
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        puppet.say(OK + b"Content-Type: text/event-stream\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            puppet.say(event)

            assert await client.reader.readexactly(len(event) + 5) == b"9\r\n" + event + b"\r\n"


async def test_both_sides_stream_at_once() -> None:
    async with played() as (world, puppet):
        client = await asking(
            world, b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert head_fields(await puppet.asked())["transfer-encoding"] == "chunked"
        puppet.say(CHUNKED)
        await client.reader.readuntil(b"\r\n\r\n")
        for word in (b"one", b"two", b"six"):
            await client.send(b"3\r\n" + word + b"\r\n")
            assert await puppet.gets(8) == b"3\r\n" + word + b"\r\n"
            puppet.say(b"3\r\n" + word[::-1] + b"\r\n")
            assert await client.reader.readexactly(8) == b"3\r\n" + word[::-1] + b"\r\n"
        await client.send(b"0\r\n\r\n")
        assert await puppet.gets(5) == b"0\r\n\r\n"
        puppet.say(b"0\r\n\r\n")

        assert await client.reader.readexactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("asked", [True, False])
async def test_trailers_reach_a_client_that_takes_them(asked: bool) -> None:
    lines = b"TE: trailers\r\nConnection: TE\r\n" if asked else b""
    async with played() as (world, puppet):
        client = await asking(world, b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n" + lines + b"\r\n")
        assert (head_fields(await puppet.asked()).get("te") == "trailers") is asked
        puppet.say(CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: evil\r\n\r\n")
        answer = await client.answer()

        assert answer.body == (b"ok<trailer>X-Sum: 1\r\n" if asked else b"ok")


async def test_gzip_is_left_alone() -> None:
    packed = bytes(range(256)) * 8
    async with played() as (world, puppet):
        client = await asking(
            world, b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\nAccept-Encoding: gzip, br\r\n\r\n"
        )
        assert head_fields(await puppet.asked())["accept-encoding"] == "gzip, br"
        puppet.say(OK + b"Content-Encoding: gzip\r\nContent-Length: 2048\r\n\r\n" + packed)
        answer = await client.answer()

        assert (answer.body, answer.fields["content-encoding"]) == (packed, "gzip")


async def test_an_upstream_that_does_not_read_holds_its_client_back() -> None:
    async with played() as (world, puppet):
        client = await asking(
            world, b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 20000000\r\n\r\n"
        )
        await puppet.asked()
        puppet.reading(False)

        async def upload() -> None:
            for _ in range(200):
                await client.send(b"x" * 100_000)

        uploading = asyncio.create_task(upload())
        await until(lambda: any(c._held for c in world.handler.door.clients))
        (connection,) = world.handler.pool.connections
        assert connection.transport.get_write_buffer_size() < 1 << 20
        puppet.reading(True)
        left = 20_000_000
        while left:
            left -= len(await puppet.streams[0][0].read(1 << 20))
        puppet.say(OK + b"Content-Length: 0\r\n\r\n")
        await uploading

        assert (await client.answer()).status == 200


# --- connections that go on


async def test_pipelined_requests_with_bodies_are_answered_in_order() -> None:
    up = await Upstream(
        script=lambda u, r: [OK + b"Content-Length: 3\r\n\r\n" + r.partition(b"\r\n\r\n")[2][-3:]]
    ).start()
    raw = b"".join(
        b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\n%03d" % i
        for i in range(50)
    )
    async with gateway(up) as world:
        client = await asking(world, raw)

        assert [(await client.answer()).body for _ in range(50)] == [b"%03d" % i for i in range(50)]
        assert [r.body for r in requests_in(up.connections[0])] == [b"%03d" % i for i in range(50)]


async def test_more_than_is_kept_of_pipelined_requests_is_not_read_until_their_turn() -> None:
    up = await Upstream().start()
    line = b"X: " + b"a" * 1000 + b"\r\n"
    async with gateway(up) as world:
        client = await world.client()
        await client.send((GET[:-2] + line + b"\r\n") * 300)

        assert [(await client.answer()).status for _ in range(300)] == [200] * 300


async def test_a_10_client_that_wants_to_be_kept_is() -> None:
    raw = b"GET /v2/payments/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    async with gateway(await Upstream().start()) as world:
        client = await world.client()
        for _ in range(2):
            await client.send(raw)
            answer = await client.answer()
            assert (answer.status, answer.fields["connection"]) == (200, "keep-alive")


async def test_what_follows_a_request_that_closes_is_not_read() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        client = await asking(world, GET[:-2] + b"Connection: close\r\n\r\n" + GET)
        assert (await client.answer()).fields["connection"] == "close"

        assert await client.rest() == b""
        assert len(up.requests) == 1


async def test_all_pipelined_requests_of_a_half_closed_client_are_answered() -> None:
    async with gateway(await Upstream().start()) as world:
        client = await asking(world, GET * 4 + b"GET /elsewhere HTTP/1.1\r\nHost: g\r\n\r\n" + GET)
        client.writer.write_eof()
        statuses: list[int] = []
        while len(statuses) < 6:
            answer = await client.answer()
            if answer.status >= 200:
                statuses.append(answer.status)

        assert statuses == [200, 200, 200, 200, 404, 200]
        assert await client.rest() == b""


async def test_a_half_closed_client_gets_all_of_a_chunked_answer_that_pauses() -> None:
    """The probe for whether it is still there is a zero before the next size."""
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        puppet.say(CHUNKED + b"4\r\nhalf\r\n")
        await client.reader.readuntil(b"half\r\n")
        client.writer.write_eof()
        assert await client.reader.readexactly(1) == b"0"
        puppet.say(b"5\r\nwhole\r\n0\r\n\r\n")

        assert await client.rest() == b"5\r\nwhole\r\n0\r\n\r\n"


async def test_a_client_that_leaves_a_quiet_stream_is_seen_by_the_upstream() -> None:
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        puppet.say(CHUNKED + b"4\r\nhalf\r\n")
        await client.reader.readuntil(b"half\r\n")
        client.writer.close()

        assert await puppet.is_left()
        await until(lambda: world.counts.unanswered["none", "client-gone"] == 1)


async def test_a_client_that_leaves_its_upload_is_seen_by_the_upstream() -> None:
    async with played() as (world, puppet):
        client = await asking(
            world, b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nhalf"
        )
        await puppet.asked()
        client.writer.close()

        assert await puppet.is_left()


# --- spliced connections


@contextlib.asynccontextmanager
async def spliced(limits: Limits | None = None) -> AsyncIterator[tuple[World, Puppet, Client]]:
    """A gateway, an upstream played by hand, and a client that was upgraded to it."""
    async with played(limits=limits) as (world, puppet):
        client = await asking(world, UPGRADE)
        assert head_fields(await puppet.asked())["upgrade"] == "websocket"
        puppet.say(SWITCHED)
        answer = await client.answer()
        assert (answer.status, answer.fields["connection"]) == (101, "upgrade")
        yield world, puppet, client


async def test_one_side_may_end_and_the_other_go_on() -> None:
    async with spliced() as (world, puppet, client):
        await client.send(b"last words")
        client.writer.write_eof()
        assert await puppet.streams[0][0].read() == b"last words"
        puppet.say(b"an answer, later")
        assert await client.reader.readexactly(16) == b"an answer, later"
        puppet.close()

        assert await client.rest() == b""
        client.close()
        await until(lambda: not world.handler.door.clients and not world.handler.pool.connections)


async def test_the_upstream_may_end_first() -> None:
    async with spliced() as (world, puppet, client):
        puppet.say(b"bye")
        puppet.streams[0][1].write_eof()
        assert await client.reader.read() == b"bye"
        await client.send(b"still here")
        assert await puppet.gets(10) == b"still here"
        client.writer.close()

        assert await puppet.streams[0][0].read() == b""
        puppet.close()
        await until(lambda: not world.handler.door.clients and not world.handler.pool.connections)


async def test_a_reset_of_one_side_ends_the_other() -> None:
    async with spliced() as (world, puppet, client):
        puppet.reset()

        assert await client.rest() == b""
        await until(lambda: not world.handler.door.clients and not world.handler.pool.connections)


@pytest.mark.parametrize(("silent", "half"), [(100.0, False), (HALF_CLOSED, True)])
async def test_a_silent_tunnel_is_closed_in_the_end(silent: float, half: bool) -> None:
    async with spliced(Limits(tunnel_timeout=100.0)) as (world, puppet, client):
        await client.send(b"x")
        await puppet.gets(1)
        if half:
            client.writer.write_eof()
            assert await puppet.streams[0][0].read() == b""
        world.clock.shift += silent - 1
        await client.reader.readexactly(0)
        await asyncio.sleep(0.05)
        assert world.handler.pool.connections
        world.clock.shift += 2

        assert await client.rest() == b""
        assert await puppet.is_left()


async def test_what_goes_through_a_tunnel_keeps_it_open() -> None:
    async with spliced(Limits(tunnel_timeout=100.0)) as (world, puppet, client):
        for _ in range(4):
            world.clock.shift += 60
            puppet.say(b"x")
            assert await client.reader.readexactly(1) == b"x"
            await asyncio.sleep(0.03)

        assert world.handler.pool.connections


async def test_a_tunnel_holds_little_for_a_side_that_does_not_read_and_cuts_it_off() -> None:
    async with spliced() as (world, puppet, client):
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]

        async def flood() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    puppet.say(b"x" * 65536)
                    await puppet.streams[0][1].drain()

        flooding = asyncio.create_task(flood())
        here = next(iter(world.handler.door.clients))
        await until(lambda: here.tunnel is not None and here.tunnel.ends[0].outflow is not None)
        assert here.transport.get_write_buffer_size() < 1 << 20
        world.clock.shift += WRITE_STALL + 1
        await flooding

        await until(lambda: not world.handler.door.clients)


async def test_what_a_client_said_before_the_101_comes_after_it() -> None:
    async with played() as (world, puppet):
        client = await asking(world, UPGRADE + b"early")
        await puppet.asked()
        puppet.say(SWITCHED + b"too")
        assert (await client.answer()).status == 101

        assert await client.reader.readexactly(3) == b"too"
        assert await puppet.gets(5) == b"early"


@pytest.mark.parametrize(
    ("asked", "goes_on"),
    [
        (b"websocket", "websocket"),
        (b"h2c", None),
        (b"H2C", None),
        (b"h2c, websocket", "websocket"),
        (b"foo/1.2 , websocket", "foo/1.2, websocket"),
        (b"websocket\r\nUpgrade: h2c", "websocket"),
        (b'we b, "x", /, websocket', "websocket"),
    ],
)
async def test_which_protocols_are_asked_for(asked: bytes, goes_on: str | None) -> None:
    async with played() as (world, puppet):
        await asking(
            world,
            b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\n"
            % asked,
        )
        fields = head_fields(await puppet.asked())

        assert fields.get("upgrade") == goes_on
        assert fields.get("connection") == (None if goes_on is None else "upgrade")


async def test_an_upgrade_that_is_declined_is_an_answer_like_any() -> None:
    async with played() as (world, puppet):
        client = await asking(world, UPGRADE)
        await puppet.asked()
        puppet.say(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
        assert (await client.answer()).status == 426
        await client.send(GET)  # and HTTP goes on
        assert (await puppet.asked()).startswith(b"GET /a ")
