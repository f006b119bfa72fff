"""dnsd over TCP: pipelining, slow and silent peers, limits, and orderly ends."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import dns.message
import pytest

from dnsd.config import PRIVATE
from dnsd.framing import frame
from dnsd.metrics import Counts
from dnsd.sockets import bind_all, close_all
from dnsd.tcp import Limits, TcpServer
from dnsd.udp import Senders
from registry.runtime.config import HostPort
from tests.support.dns import ask, header, query
from tests.support.dnsd import Dnsd, instance, rdatas
from tests.support.waiting import until

QUESTION = query("payments.svc.internal.")


@contextlib.asynccontextmanager
async def serving(
    dnsd: Dnsd, limits: Limits | None = None
) -> AsyncIterator[tuple[HostPort, Counts, TcpServer]]:
    (sockets,) = bind_all([HostPort("127.0.0.1", 0)], 1)
    counts = Counts()
    server = TcpServer(dnsd.responder, Senders(PRIVATE), counts, limits)
    for sock in sockets:
        if sock.type == socket.SOCK_STREAM:
            await server.open(sock)
    try:
        yield HostPort(*sockets[0].getsockname()), counts, server
    finally:
        await server.close()
        close_all([sockets])


@contextlib.asynccontextmanager
async def connected(
    address: HostPort, source: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(
        *address, local_addr=(source, 0) if source else None
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_message(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        size = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(size)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends the connection without another octet, within seconds."""
    async with asyncio.timeout(5):
        try:
            return await reader.read(1) == b""
        except ConnectionError:
            return True


def crowd(count: int = 60) -> Dnsd:
    return Dnsd(*(instance("crowd", f"c{n}", (f"10.0.0.{n}",)) for n in range(count)))


async def test_c1_the_same_answers_as_over_udp_and_whole() -> None:
    async with serving(crowd()) as (address, _, _server):
        answer = await ask(address, "_http._tcp.crowd.svc.internal.", "SRV", tcp=True)

    assert len(rdatas(answer)) == 60


async def test_c2_a_question_may_come_in_single_octets_and_the_answer_leaves_whole() -> None:
    async with serving(Dnsd(instance())) as (address, _, _server), connected(address) as (r, w):
        for octet in frame(QUESTION):
            w.write(bytes((octet,)))
            await w.drain()
            await asyncio.sleep(0)
        reply = await read_message(r)

    assert reply[:2] == QUESTION[:2]


async def test_c4_many_questions_without_waiting_are_all_answered() -> None:
    packets = [n.to_bytes(2, "big") + QUESTION[2:] for n in range(1000)]
    async with serving(Dnsd(instance())) as (address, _, _server), connected(address) as (r, w):
        w.write(b"".join(map(frame, packets)))
        replies = [await read_message(r) for _ in packets]

    assert [r[:2] for r in replies] == [p[:2] for p in packets]


@pytest.mark.parametrize("length", [0, 1, 11])
async def test_c5_a_length_below_a_header_closes_at_once(length: int) -> None:
    async with (
        serving(Dnsd(instance())) as (address, counts, _server),
        connected(address) as (r, w),
    ):
        w.write(frame(QUESTION) + length.to_bytes(2, "big") + b"x" * length)
        await read_message(r)

        assert await is_closed(r)
    assert counts.tcp_closed["framing"] == 1


@pytest.mark.parametrize(
    "message", [b"x" * 12, header() + b"\xc0\x0c", header(qd=9), header(0x2000, qd=0)]
)
async def test_c6_h14_well_framed_garbage_is_answered_and_the_connection_stays(
    message: bytes,
) -> None:
    async with serving(Dnsd(instance())) as (address, _, _server), connected(address) as (r, w):
        w.write(frame(message) + frame(QUESTION))
        first, second = await read_message(r), await read_message(r)

    assert first[3] & 15 in (1, 4)
    assert rdatas(dns.message.from_wire(second)) == ["10.0.0.1"]


async def test_h2_a_response_is_passed_over_and_the_next_question_answered() -> None:
    async with serving(Dnsd(instance())) as (address, _, _server), connected(address) as (r, w):
        w.write(frame(header(0x8000) + b"x") + frame(QUESTION))
        reply = await read_message(r)

    assert reply[:2] == QUESTION[:2]


async def test_c7_c8_a_trickling_peer_is_closed_when_idle_whatever_it_promised() -> None:
    """Single octets are no activity: only whole messages are."""
    async with (
        serving(Dnsd(instance()), Limits(idle=0.3)) as (address, counts, _server),
        connected(address) as (r, w),
    ):
        w.write(b"\xff\xff")
        closing = asyncio.ensure_future(is_closed(r))
        while not closing.done():
            w.write(b"x")
            await asyncio.sleep(0.02)

        assert await closing
    assert counts.tcp_closed["idle"] == 1


async def test_c9_a_peer_that_ends_its_side_still_gets_every_answer() -> None:
    async with serving(Dnsd(instance())) as (address, _, server), connected(address) as (r, w):
        w.write(frame(QUESTION) * 500)
        w.write_eof()
        replies = [await read_message(r) for _ in range(500)]

        assert len(replies) == 500
        assert await is_closed(r)
        await until(lambda: "0 connections" in repr(server))


async def test_c11_a_peer_that_does_not_read_holds_a_bounded_amount_and_is_closed() -> None:
    limits = Limits(idle=0.5, write_buffer=16 << 10)
    big = query("_http._tcp.crowd.svc.internal.", "SRV")
    async with serving(crowd(200), limits) as (address, counts, server):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        with sock:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, address)
            sending = asyncio.ensure_future(loop.sock_sendall(sock, frame(big) * 20_000))
            await until(lambda: counts.tcp_closed["idle"] == 1, 10)
            await until(lambda: "0 connections" in repr(server))
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    assert counts.replies[33, 0, False, True] < 1000


async def test_c12_at_the_limit_the_longest_idle_makes_room() -> None:
    async with (
        serving(Dnsd(instance()), Limits(connections=3)) as (address, counts, _server),
        contextlib.AsyncExitStack() as stack,
    ):
        peers = [await stack.enter_async_context(connected(address)) for _ in range(3)]
        for r, w in (peers[1], peers[2], peers[0]):
            w.write(frame(QUESTION))
            await read_message(r)
        newcomer = await stack.enter_async_context(connected(address))

        assert await is_closed(peers[1][0])
        for r, w in (peers[0], peers[2], newcomer):
            w.write(frame(QUESTION))
            assert (await read_message(r))[:2] == QUESTION[:2]
        assert counts.tcp_closed["crowded"] == 1
        assert counts.tcp_open == 3


async def test_c12_a_source_has_a_limit_of_its_own() -> None:
    limits = Limits(connections=10, per_source=2)
    async with (
        serving(Dnsd(instance()), limits) as (address, counts, _server),
        contextlib.AsyncExitStack() as stack,
    ):
        other = await stack.enter_async_context(connected(address, "127.0.0.2"))
        mine = [await stack.enter_async_context(connected(address)) for _ in range(5)]
        await until(lambda: counts.tcp_open == 3)

        assert [await is_closed(r) for r, _ in mine[:3]] == [True] * 3
        for r, w in (other, *mine[3:]):
            w.write(frame(QUESTION))
            assert (await read_message(r))[:2] == QUESTION[:2]


async def test_c12_a_newcomer_is_refused_when_all_others_are_busy() -> None:
    big = query("_http._tcp.crowd.svc.internal.", "SRV")
    async with (
        serving(crowd(200), Limits(connections=1)) as (address, counts, server),
        connected(address) as (_reader, writer),
    ):
        writer.write(frame(big) * 3000)
        await until(lambda: any(c.is_busy for c in server._open))
        async with connected(address) as (r, _w):
            assert await is_closed(r)
        assert counts.tcp_closed["refused"] == 1


async def test_e26_c14_keepalive_says_the_idle_time_and_leave_when_it_stops() -> None:
    asked = query("payments.svc.internal.", edns=1232, options=[(11, b"")])
    async with serving(Dnsd(instance())) as (address, _, server), connected(address) as (r, w):
        w.write(frame(asked))
        assert (await read_message(r)).endswith(b"\0\x0b\0\2\0\x64")
        server.stop_accepting()
        for packet in (asked, query("payments.svc.internal.", edns=1232)):
            w.write(frame(packet))
            assert (await read_message(r)).endswith(b"\0\x0b\0\2\0\0")


async def test_e26_where_places_are_scarce_peers_are_told_to_leave() -> None:
    asked = frame(query("payments.svc.internal.", edns=1232, options=[(11, b"")]))
    async with (
        serving(Dnsd(instance()), Limits(connections=2)) as (address, counts, _server),
        connected(address) as (r, w),
    ):
        w.write(asked)
        assert (await read_message(r)).endswith(b"\0\x64")
        async with connected(address):
            await until(lambda: counts.tcp_open == 2)
            w.write(asked)
            assert (await read_message(r)).endswith(b"\0\0")


async def test_a_server_that_stops_closes_every_connection() -> None:
    async with serving(Dnsd(instance())) as (address, _, server), connected(address) as (r, w):
        w.write(frame(QUESTION))
        await read_message(r)
        await server.close()

        assert await is_closed(r)
