"""Transfers over real connections: beside questions, in slices, to peers that do not read."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import dns.message
import dns.rcode
import pytest

from dnsd import outgoing
from dnsd.config import PRIVATE
from dnsd.framing import frame
from dnsd.metrics import Counts
from dnsd.outgoing import Outgoing
from dnsd.sockets import bind_all, close_all
from dnsd.tcp import Limits, TcpServer
from dnsd.transfer import Transfer
from dnsd.udp import Senders
from registry.runtime.config import HostPort
from tests.support.dns import query
from tests.support.dnsd import APEX, instance
from tests.support.primary import World, replies, signed_query
from tests.support.waiting import until

QUESTION = query(APEX, "NS")


def crowd(count: int) -> World:
    world = World()
    for n in range(count):
        world.up(instance("crowd", f"c{n}", (f"10.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}",)))
    return world


@contextlib.asynccontextmanager
async def serving(
    world: World, *, at_once: int = 4, stall: float = 30.0, limits: Limits | None = None
) -> AsyncIterator[tuple[HostPort, Counts, TcpServer]]:
    (sockets,) = bind_all([HostPort("127.0.0.1", 0)], 1)
    counts = Counts()
    out = Outgoing(counts, at_once=at_once, stall=stall)
    server = TcpServer(world.responder, Senders(PRIVATE), counts, limits, out)
    for sock in sockets:
        if sock.type == socket.SOCK_STREAM:
            # So that it shows soon when a peer does not read.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
            await server.open(sock)
    try:
        yield HostPort(*sockets[0].getsockname()), counts, server
    finally:
        await server.close()
        close_all([sockets])


@contextlib.asynccontextmanager
async def connected(
    address: HostPort, *, buffer: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """With *buffer*, a peer that takes little at a time."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, tuple(address))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_message(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        size = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(size)


SOA = b"\xc0\x0c\0\x06\0\x01\0\0\0\x05"
"""A SOA record of the zone, up to its length."""


async def read_transfer(reader: asyncio.StreamReader, asked: dns.message.Message) -> list[bytes]:
    """All messages of the answer to *asked*, checked: until its SOA came twice."""
    found: list[bytes] = []
    while sum(message.count(SOA) for message in found) < 2:
        found.append(await read_message(reader))
    assert all(reply.rcode() == dns.rcode.NOERROR for reply in replies(found, asked))
    return found


async def test_x1_a_transfer_over_a_connection_is_the_one_that_was_made() -> None:
    world = crowd(200)
    asked = signed_query(rtype="AXFR")
    async with serving(world) as (address, counts, _), connected(address) as (reader, writer):
        writer.write(frame(asked.to_wire()))
        found = await read_transfer(reader, asked)
        await until(lambda: counts.transfers["axfr", "sent"] == 1)

    assert len(found) >= 2
    assert counts.transfer_octets == sum(map(len, found))
    assert counts.transfers_active == 0
    assert counts.replies[252, 0, False, True] == 1


async def test_x2_after_a_refused_transfer_the_connection_stays() -> None:
    plain = query(APEX, "AXFR")
    async with serving(crowd(3)) as (address, _, _server), connected(address) as (reader, writer):
        writer.write(frame(plain))
        refused = dns.message.from_wire(await read_message(reader))
        writer.write(frame(QUESTION))
        answered = dns.message.from_wire(await read_message(reader))

    assert refused.rcode() == dns.rcode.REFUSED
    assert answered.rcode() == dns.rcode.NOERROR


async def test_c17_questions_on_the_same_connection_are_answered_in_between() -> None:
    world = crowd(1500)
    asked = signed_query(rtype="AXFR")
    async with serving(world) as (address, _, _server), connected(address) as (reader, writer):
        writer.write(frame(asked.to_wire()))
        first = await read_message(reader)
        assert first[:2] == asked.to_wire()[:2]
        writer.write(frame(QUESTION))
        kinds: list[bool] = []
        while not kinds or kinds[-1]:
            kinds.append((await read_message(reader))[:2] != QUESTION[:2])
        after = await read_message(reader)

    assert after[:2] == asked.to_wire()[:2]


async def test_c17_several_transfers_on_one_connection_come_interleaved_and_whole() -> None:
    world = crowd(300)
    one, two = signed_query(rtype="AXFR"), signed_query(rtype="AXFR")
    one.id, two.id = 1, 2
    async with serving(world) as (address, _, _server), connected(address) as (reader, writer):
        writer.write(frame(one.to_wire()) + frame(two.to_wire()))
        found: dict[bytes, list[bytes]] = {b"\0\1": [], b"\0\2": []}
        order: list[int] = []
        while sum(order) < 4:
            message = await read_message(reader)
            order.append(message.count(SOA))
            found[message[:2]].append(message)

    for asked in (one, two):
        assert list(replies(found[asked.id.to_bytes(2, "big")], asked))
    assert order[:2] == [1, 1]  # both had begun before the first ended


async def test_x8_so_many_at_a_time_the_others_wait_for_their_turn() -> None:
    world = crowd(1000)
    async with serving(world, at_once=1) as (address, counts, _):
        async with connected(address, buffer=4096) as (slow, slow_writer):
            asked = signed_query(rtype="AXFR")
            for _ in range(3):  # more than the buffers between us hold
                slow_writer.write(frame(signed_query(rtype="AXFR").to_wire()))
            await read_message(slow)
            async with connected(address) as (reader, writer):
                writer.write(frame(asked.to_wire()) + frame(QUESTION))
                assert (await read_message(reader))[:2] == QUESTION[:2]
                assert counts.transfers_active == 1
                slow_writer.close()
                assert (await read_message(reader))[:2] == asked.to_wire()[:2]
        await until(lambda: counts.transfers["axfr", "aborted"] >= 1)


async def test_x8_when_too_many_wait_the_next_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MAX_WAITING", 0)
    asked = signed_query(rtype="AXFR")
    async with serving(crowd(3)) as (address, counts, _), connected(address) as (reader, writer):
        writer.write(frame(asked.to_wire()))
        reply = dns.message.from_wire(
            await read_message(reader), keyring=asked.keyring, request_mac=asked.mac or b""
        )

    assert reply.rcode() == dns.rcode.REFUSED
    assert counts.transfers["axfr", "refused"] == 1


async def test_x8_a_secondary_that_does_not_read_is_cut_off() -> None:
    """It has its own time, longer than that of a silent connection."""
    world = crowd(1500)
    limits = Limits(write_buffer=16 << 10)
    async with (
        serving(world, stall=0.2, limits=limits) as (address, counts, _),
        connected(address, buffer=4096) as (_reader, writer),
    ):
        for _ in range(3):
            writer.write(frame(signed_query(rtype="AXFR").to_wire()))
        await until(lambda: counts.tcp_closed["stalled"] == 1)
        await until(lambda: counts.transfers["axfr", "stalled"] >= 1)
        await until(lambda: counts.tcp_open == 0)


async def test_a_peer_that_half_closes_still_gets_all_of_its_transfer() -> None:
    world = crowd(1000)
    asked = signed_query(rtype="AXFR")
    async with serving(world) as (address, _, _server), connected(address) as (reader, writer):
        writer.write(frame(asked.to_wire()))
        writer.write_eof()
        found = await read_transfer(reader, asked)
        async with asyncio.timeout(5):
            assert await reader.read(1) == b""

    assert len(found) > 3


async def test_a_peer_that_leaves_ends_its_transfer() -> None:
    world = crowd(1500)
    async with serving(world) as (address, counts, _):
        async with connected(address, buffer=4096) as (reader, writer):
            for _ in range(3):
                writer.write(frame(signed_query(rtype="AXFR").to_wire()))
            await read_message(reader)
        await until(lambda: counts.transfers["axfr", "aborted"] >= 1)
        await until(lambda: counts.transfers_active == 0)


async def test_a_transfer_that_fails_ends_the_connection_without_a_last_soa(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Transfer) -> object:
        yield b"x" * 12
        raise ValueError("broken")

    monkeypatch.setattr(Transfer, "messages", broken)
    async with (
        serving(crowd(3)) as (address, counts, _),
        connected(address) as (reader, writer),
    ):
        writer.write(frame(signed_query(rtype="AXFR").to_wire()))
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                assert len(await reader.read()) in (0, 14)

    assert counts.transfers["axfr", "failed"] == 1
    assert counts.errors == 1


async def test_a_waiting_or_running_transfer_is_no_idle_connection() -> None:
    world = crowd(1500)
    limits = Limits(idle=0.0, write_buffer=16 << 10)
    async with (
        serving(world, limits=limits) as (address, counts, server),
        connected(address, buffer=4096) as (reader, writer),
    ):
        for _ in range(3):
            writer.write(frame(signed_query(rtype="AXFR").to_wire()))
        await read_message(reader)
        server._tick()

        assert counts.tcp_closed["idle"] == 0


async def test_stopping_ends_transfers() -> None:
    world = crowd(1500)
    async with serving(world, limits=Limits(write_buffer=16 << 10)) as (address, counts, server):
        async with connected(address, buffer=4096) as (reader, writer):
            for _ in range(3):
                writer.write(frame(signed_query(rtype="AXFR").to_wire()))
            await read_message(reader)
            await server.close()

        assert counts.transfers_active == 0
        assert counts.transfers["axfr", "aborted"] >= 1
