# ruff: noqa: E501 - payloads are read whole, on one line
"""A request in is a request out, its answer back: framing, streaming, connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from resolver_gateway.door import Limits
from tests.support.http import Upstream, World, answering, gateway, head_fields
from tests.support.waiting import until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[World]:
    """A gateway to one upstream that does what *serve* does with a connection."""
    async with gateway() as world:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        world.dns.instances["payments"] = [("e", "127.0.0.1", port, 0, 1)]
        yield world
        server.close()


async def test_a_request_reaches_the_service_and_its_answer_comes_back() -> None:
    async with gateway(await Upstream("one").start()) as world:
        answer = await world.get("/v2/payments/hello?x=%20y")

        assert (answer.status, answer.body) == (200, b"one")


async def test_the_rest_of_the_path_and_the_query_keep_their_bytes() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        await world.get("/v2/payments/a;b/.../%7Euser//x?q=%2F..&;=;")

        assert up.requests[0].startswith(b"GET /a;b/.../%7Euser//x?q=%2F..&;=; HTTP/1.1\r\n")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
async def test_any_method_passes_with_its_body(method: str) -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        answer = await world.ask(
            f"{method} /v2/payments/a?b=c HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello".encode()
        )

        assert answer.status == 200
        assert up.requests[0].startswith(f"{method} /a?b=c HTTP/1.1\r\n".encode())
        assert up.requests[0].endswith(b"\r\n\r\nhello")


async def test_a_chunked_body_goes_up_chunked() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        answer = await world.ask(
            b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )

        assert answer.status == 200
        head, _, body = up.requests[0].partition(b"\r\n\r\n")
        assert head_fields(head)["transfer-encoding"] == "chunked"
        assert body == b"5\r\nabcde\r\n0\r\n\r\n"


@pytest.mark.parametrize("status", [400, 404, 418, 500, 503])
async def test_errors_of_an_upstream_pass_as_they_are(status: int) -> None:
    raw = b"HTTP/1.1 %d Whatever\r\nContent-Length: 4\r\nX-Own: yes\r\n\r\nbody" % status
    async with gateway(await Upstream(script=answering(raw)).start()) as world:
        answer = await world.get("/v2/payments/")

        assert (answer.status, answer.body, answer.fields["x-own"]) == (status, b"body", "yes")
        assert "x-callboard-error" not in answer.fields


async def test_pipelined_requests_are_answered_in_order() -> None:
    up = await Upstream(
        script=lambda u, r: [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + r.split(b" ")[1][-2:]
        ]
    ).start()
    async with gateway(up) as world:
        client = await world.client()
        await client.send(
            b"".join(b"GET /v2/payments/%02d HTTP/1.1\r\nHost: g\r\n\r\n" % i for i in range(30))
        )

        assert [(await client.answer()).body for _ in range(30)] == [b"%02d" % i for i in range(30)]
        assert len(up.connections) == 1


async def test_a_chunked_answer_goes_down_chunked_and_a_10_client_gets_it_plain() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with gateway(await Upstream(script=answering(raw)).start()) as world:
        modern = await world.get("/v2/payments/")
        old = await world.ask(b"GET /v2/payments/ HTTP/1.0\r\n\r\n")

        assert (modern.body, modern.fields["transfer-encoding"]) == (b"abc", "chunked")
        assert (old.body, old.fields["connection"]) == (b"abc", "close")
        assert "transfer-encoding" not in old.fields


async def test_an_answer_that_only_its_connection_ends_is_passed_on_chunked() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async with serving(serve) as world:
        answer = await world.get("/v2/payments/")

        assert (answer.body, answer.fields["transfer-encoding"]) == (b"all of it", "chunked")


async def test_head_gets_the_fields_and_no_body() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with gateway(await Upstream(script=answering(raw)).start()) as world:
        client = await world.client()
        await client.send(b"HEAD /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n" * 2)
        first, second = [await client.answer(head_only=True) for _ in range(2)]

        assert first.fields["content-length"] == second.fields["content-length"] == "1000"


async def test_a_great_answer_passes_in_constant_memory_to_a_client_that_reads_slowly() -> None:
    size = 8 << 20
    piece = b"x" * 65536
    written = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()
            written += len(piece)
        writer.close()

    async with serving(serve) as world:
        client = await world.client()
        await client.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
        await until(lambda: any(c.call and c._outflow for c in world.handler.clients))
        held = next(iter(world.handler.clients)).transport.get_write_buffer_size()
        answer = await client.answer()

        assert len(answer.body) == size
        assert held <= 1 << 20


async def test_a_great_body_goes_up_whole() -> None:
    seen = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head_fields(head)["content-length"])
        while len(seen) < size:
            await asyncio.sleep(0)
            seen.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with serving(serve) as world:
        body = bytes(range(256)) * 16384
        answer = await world.ask(
            b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )

        assert answer.status == 200
        assert bytes(seen) == body


async def test_100_continue_comes_from_the_upstream() -> None:
    gave = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head_fields(head)["expect"] == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(4) == b"body"
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        gave.set()
        await reader.read()
        writer.close()

    async with serving(serve) as world:
        client = await world.client()
        await client.send(
            b"PUT /v2/payments/ HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        assert (await client.answer()).status == 100
        await client.send(b"body")
        assert (await client.answer()).status == 201
        assert gave.is_set()


async def test_an_upgrade_that_was_asked_for_is_spliced_both_ways() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head_fields(head)["upgrade"] == "websocket"
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi"
        )
        while data := await reader.read(100):
            writer.write(data[::-1])
        writer.close()

    async with serving(serve) as world:
        client = await world.client()
        await client.send(
            b"GET /v2/payments/ws HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc"
        )
        answer = await client.answer()

        assert answer.status == 101
        assert answer.fields["upgrade"] == "websocket"
        assert await client.reader.readexactly(5) == b"hicba"
        await client.send(b"xyz")
        assert await client.reader.readexactly(3) == b"zyx"
        client.close()


async def test_a_client_that_leaves_is_seen_by_the_upstream() -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        left.set()
        writer.close()

    async with serving(serve) as world:
        client = await world.client()
        await client.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
        await until(lambda: world.handler.pool.connections)
        client.writer.close()  # FIN, not RST: the same as half-closing, until something is sent
        await asyncio.wait_for(left.wait(), 5)


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        await writer.drain()
        writer.close()

    async with serving(serve) as world:
        client = await world.client()
        await client.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
        client.writer.write_eof()
        await until(lambda: any(c._eof_at is not None for c in world.handler.clients))
        release.set()
        answer = await client.answer()
        while answer.status < 200:
            answer = await client.answer()

        assert answer.body == b"late"


async def test_limits_of_connections_are_told() -> None:
    async with gateway(await Upstream().start(), limits=Limits(connections_per_client=2)) as world:
        for _ in range(2):
            client = await world.client()
            await client.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
            assert (await client.answer()).status == 200
        third = await world.client()
        answer = await third.answer()

        assert (answer.status, answer.fields["x-callboard-error"]) == (429, "too-many-connections")
        assert answer.fields["retry-after"] == "1"
