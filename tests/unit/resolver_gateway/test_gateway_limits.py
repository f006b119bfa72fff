"""What one client may use, and that it costs only itself."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest

from resolver_gateway.door import Limits
from resolver_gateway.downstream import DRAIN_IDLE, HIGH_WATER, Downstream, origin_of
from resolver_gateway.outflow import KERNEL_UNSENT, WRITE_STALL
from resolver_gateway.upstream import READ
from tests.support.http import Client, Upstream, World, gateway
from tests.support.puppet import GET, asking, played
from tests.support.waiting import until

CLOSING = b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"


def only(world: World) -> Downstream | None:
    """The gateway's side of the one connection there is; None before it is there."""
    return next(iter(world.handler.door.clients), None)


def is_unread(world: World) -> bool:
    """Whether the one client does not keep up."""
    client = only(world)
    return client is not None and client._outflow is not None


def has(world: World, end: bytes) -> bool:
    """Whether the head so far ends so."""
    client = only(world)
    return client is not None and client._buffer.endswith(end)


async def until_it_came(up: Upstream, octets: int) -> None:
    """Wait for so much of a body of `x` to reach *up*, or for that to be closed."""
    body = b"\r\n\r\n" + b"x" * octets
    await until(lambda: up.connections and (up.connections[0].endswith(body) or not up.open))


async def is_cut_off(client: Client) -> bool:
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(client.reader.read(), 5)
    return True


# --- heads


async def test_a_head_has_ten_seconds_however_it_drips() -> None:
    async with gateway(await Upstream().start()) as world:
        client = await world.client()
        for octet in b"GET /v2/payments/ HTTP/1.1\r\n":
            await client.send(bytes([octet]))
        await until(lambda: has(world, b"\n"))
        world.clock.shift += 9.5
        await client.send(b"X: ")
        await until(lambda: has(world, b"X: "))
        world.clock.shift += 1.0
        answer = await client.answer()

        assert (answer.status, answer.fields["x-callboard-error"]) == (408, "head-timeout")


async def test_the_second_head_has_its_time_from_its_first_octet() -> None:
    async with gateway(await Upstream().start()) as world:
        client = await asking(world)
        assert (await client.answer()).status == 200
        world.clock.shift += 50
        await client.send(GET[:5])
        await until(lambda: has(world, GET[:5]))
        world.clock.shift += 9.5  # idle for 60 s by then
        await client.send(GET[5:])

        assert (await client.answer()).status == 200


async def test_empty_lines_do_not_keep_an_idle_connection() -> None:
    async with gateway(await Upstream().start()) as world:
        client = await asking(world)
        await client.answer()
        for _ in range(6):
            world.clock.shift += 9.9
            await client.send(b"\r\n")
        await asyncio.sleep(0)
        world.clock.shift += 1

        assert await is_cut_off(client)


@pytest.mark.parametrize(
    "line", [b"GET /v2/payments/a\r\n", b"SSH-2.0-x\r\n", b"GET / HTTP/2.0\r\nX: "]
)
async def test_a_line_that_begins_no_request_is_refused_at_once(line: bytes) -> None:
    async with gateway(await Upstream().start()) as world:
        assert (await (await asking(world, line)).answer()).status in (400, 505)


# --- bodies


async def test_a_body_that_drips_is_408_although_it_never_stops() -> None:
    """240 octets a second are asked for, after a start of 30 s."""
    up = await Upstream().start()
    async with gateway(up) as world:
        client = await asking(
            world, b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 9000\r\n\r\n"
        )
        await until(lambda: up.open)
        for second in range(1, 40):
            world.clock.shift += 1
            await client.send(b"x")
            await until_it_came(up, second)
            if not up.open:
                break
        answer = await client.answer()

        assert (answer.status, answer.fields["x-callboard-error"]) == (408, "body-timeout")
        assert 29 <= second <= 32


async def test_a_body_that_comes_at_the_rate_may_take_its_time() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        client = await asking(
            world, b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 25000\r\n\r\n"
        )
        for second in range(2, 101, 2):
            world.clock.shift += 2
            await client.send(b"x" * 500)
            await until_it_came(up, 250 * second)

        assert (await client.answer()).status == 200


async def test_no_rate_is_asked_for_with_0() -> None:
    up = await Upstream().start()
    async with gateway(up, limits=Limits(min_body_rate=0)) as world:
        client = await asking(
            world, b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 20\r\n\r\n"
        )
        for second in range(1, 21):
            world.clock.shift += 4
            await client.send(b"x")
            await until_it_came(up, second)

        assert (await client.answer()).status == 200


# --- answers that are not read


def deaf(world: World, octets: int = 4096) -> socket.socket:
    """A connection whose kernel takes little, so that not reading is felt."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
    sock.setblocking(False)
    return sock


async def connect(world: World, raw: bytes) -> socket.socket:
    sock = deaf(world)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, tuple(world.address))
    await loop.sock_sendall(sock, raw)
    return sock


async def read_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    found = b""
    while data := await loop.sock_recv(sock, 65536):
        found += data
    return found


def of(size: int) -> Callable[[Upstream, bytes], list[bytes]]:
    return lambda u, r: [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size]


async def test_little_is_held_for_a_client_that_does_not_read() -> None:
    up = await Upstream(script=of(4 << 20)).start()
    async with gateway(up) as world:
        with await connect(world, GET):
            await until(lambda: is_unread(world))
            client = only(world)
            assert client is not None

            assert client.transport.get_write_buffer_size() <= HIGH_WATER + READ
            kernel = client.transport.get_extra_info("socket")
            lowat = kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert lowat == KERNEL_UNSENT


async def test_a_client_that_takes_nothing_is_cut_off_and_so_is_the_upstream() -> None:
    up = await Upstream(script=of(4 << 20)).start()
    async with gateway(up) as world:
        with await connect(world, GET):
            await until(lambda: is_unread(world))
            world.clock.shift += WRITE_STALL + 1
            await until(lambda: not world.handler.door.clients)
            await until(lambda: not up.open)


async def test_a_client_that_takes_little_and_little_is_not_cut_off() -> None:
    size = 1 << 20
    up = await Upstream(script=of(size)).start()
    async with gateway(up) as world:
        with await connect(world, GET) as sock:
            await until(lambda: is_unread(world))
            loop = asyncio.get_running_loop()
            got = 0
            for _ in range(20):  # 16 KiB in 10 s, for 200 s
                wanted = got + 16384
                while got < wanted:
                    got += len(await loop.sock_recv(sock, wanted - got))
                world.clock.shift += 10
                await asyncio.sleep(0.03)  # a tick looks at it
            got += len(await read_rest(sock, size - got))

            assert got >= size


async def read_rest(sock: socket.socket, least: int) -> bytes:
    loop = asyncio.get_running_loop()
    found = b""
    while len(found) < least:
        data = await loop.sock_recv(sock, 65536)
        assert data
        found += data
    return found


async def test_the_last_answer_of_a_connection_is_waited_for() -> None:
    """It is all in our hands, and the client slow: a close must not throw the rest away."""
    size = 90_000
    up = await Upstream(script=of(size)).start()
    async with gateway(up) as world:
        with await connect(world, CLOSING) as sock:
            await until(lambda: is_unread(world))
            for _ in range(3):
                world.clock.shift += 9
                await asyncio.sleep(0.05)
            answer = await read_all(sock)

            assert answer.endswith(b"x" * size)


async def test_the_last_answer_is_not_waited_for_for_ever() -> None:
    up = await Upstream(script=of(400_000)).start()
    async with gateway(up) as world:
        with await connect(world, CLOSING) as sock:
            await until(lambda: is_unread(world))
            await read_rest(sock, 330_000)  # so that the rest is ours to keep
            await until(lambda: world.handler.pool.idle_count == 1)  # it is all in our hands
            world.clock.shift += WRITE_STALL + 3
            await asyncio.sleep(0.05)
            world.clock.shift += WRITE_STALL + 3
            await until(lambda: not world.handler.door.clients)


async def test_an_idle_client_that_has_not_read_its_answer_is_let_go_in_the_end() -> None:
    """Below the high water nothing is paused; closing alone would wait for it for ever."""
    up = await Upstream(script=of(30_000)).start()
    async with gateway(up) as world:
        with await connect(world, GET * 6):
            await until(lambda: len(up.requests) >= 2)
            for _ in range(4):
                world.clock.shift += 61
                await asyncio.sleep(0.05)
            await until(lambda: not world.handler.door.clients)


# --- many of them


async def test_a_hundred_drippers_and_twenty_slow_readers_hold_up_nobody() -> None:
    up = await Upstream(script=of(200_000)).start()
    async with gateway(up) as world, contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            dripper = await world.client()
            await dripper.send(b"GET /v2/payments/ HTTP/1.1\r\nX: ")
        for _ in range(20):
            stack.enter_context(await connect(world, GET))
        await until(lambda: len(world.handler.door.clients) == 120)

        for _ in range(5):
            assert len((await world.get("/v2/payments/")).body) == 200_000
        world.clock.shift += 11
        await until(lambda: world.counts.unanswered["4xx", "head-timeout"] == 100)
        world.clock.shift += 3
        await until(lambda: len(world.handler.door.clients) <= 20)
        assert len((await world.get("/v2/payments/")).body) == 200_000


def test_an_ipv6_client_is_its_64() -> None:
    assert origin_of("192.0.2.1") == "192.0.2.1"
    assert origin_of("2001:db8:1:2:3:4:5:6") == origin_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert origin_of("fe80::1%eth0") == "fe80::/64"


async def test_a_limit_in_all_is_told() -> None:
    async with gateway(await Upstream().start(), limits=Limits(connections=1)) as world:
        first = await asking(world)
        assert (await first.answer()).status == 200
        answer = await (await world.client()).answer()

        assert (answer.status, answer.fields["x-callboard-error"]) == (503, "too-many-connections")
        assert world.counts.refused_connections["connections"] == 1


# --- draining


async def test_draining_closes_idle_connections_after_a_second_and_answers_until_then() -> None:
    async with gateway(await Upstream().start()) as world:
        idle, asks = await asking(world), await asking(world)
        for client in (idle, asks):
            assert "connection" not in (await client.answer()).fields
        world.handler.drain()
        await asks.send(GET)
        answer = await asks.answer()
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert await is_cut_off(asks)
        asks.close()
        await until(lambda: len(world.handler.door.clients) == 1)
        world.clock.shift += DRAIN_IDLE + 0.1

        assert await is_cut_off(idle)
        await asyncio.wait_for(world.handler.door.quiet.wait(), 5)


async def test_draining_waits_for_an_answer_that_is_under_way() -> None:
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        world.handler.drain()
        world.clock.shift += DRAIN_IDLE + 0.1
        await asyncio.sleep(0.05)
        puppet.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answer = await client.answer()

        assert (answer.body, answer.fields["connection"]) == (b"ok", "close")
