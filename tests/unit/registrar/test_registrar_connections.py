"""Connections: how many, how slow, who is refused and sees why."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from registrar import connections, service
from tests.support.registrar import Registrar, a_registrar
from tests.support.waiting import until

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def everybody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no such limit as others have; here it stands for a stranger."""
    monkeypatch.setattr(service, "THIS_MACHINE", ())


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.01)


class Peer:
    """One connection, spoken to in octets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of one response."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].split("\r\n")[0])
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def ends(self) -> bytes:
        """What still comes until the other side closes."""
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read()
            return b""


@contextlib.asynccontextmanager
async def connected(registrar: Registrar, count: int = 1) -> AsyncIterator[list[Peer]]:
    host, port = registrar.service.address
    peers = [Peer(*await asyncio.open_connection(host, port)) for _ in range(count)]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.writer.close()


async def metric(registrar: Registrar, line: str) -> bool:
    return line in registrar.service.metrics.text().decode()


@pytest.mark.usefixtures("everybody_counts")
@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"max_connections": 2}, "connections"),
        ({"max_connections_per_client": 2}, "connections-per-client"),
    ],
)
async def test_one_connection_too_many_is_told_so(settings: dict[str, Any], kind: str) -> None:
    async with a_registrar(**settings) as registrar, connected(registrar, 3) as peers:
        for peer in peers:
            peer.send(REQUEST)
        answers = [await peer.answer() for peer in peers]
        rest = await peers[2].ends()
        peers[0].writer.close()
        await until(lambda: registrar.service._connections.count == 1)
        async with connected(registrar) as (another,):
            another.send(REQUEST)
            status, _ = await another.answer()

        assert [status for status, _ in answers] == [200, 200, 429]
        assert json.loads(answers[2][1])["type"] == f"urn:callboard:problem:limit-{kind}"
        assert rest == b"", "nothing else, and the end"
        assert status == 200
        assert await metric(registrar, f'registrar_refusals_total{{problem="{kind}"}} 1.0')


async def test_this_machine_and_trusted_proxies_have_no_limit_by_address() -> None:
    async with (
        a_registrar(max_connections_per_client=1) as registrar,
        connected(registrar, 3) as peers,
    ):
        for peer in peers:
            peer.send(REQUEST)

        assert [(await peer.answer())[0] for peer in peers] == [200, 200, 200]


@pytest.mark.usefixtures("quick_looks")
async def test_the_refused_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_REFUSED", 1)
    monkeypatch.setattr(connections, "REFUSED_SECONDS", 0.1)
    async with a_registrar(max_connections=1) as registrar, connected(registrar, 3) as peers:
        assert await peers[2].ends() == b"", "closed at once"
        assert await peers[1].ends() == b"", "it sent no request in time"
        peers[0].send(REQUEST)
        assert (await peers[0].answer())[0] == 200


@pytest.mark.usefixtures("quick_looks")
async def test_a_head_has_a_deadline_however_steadily_it_trickles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with a_registrar() as registrar, connected(registrar, 3) as (silent, slow, second):
        second.send(REQUEST)
        assert (await second.answer())[0] == 200
        second.send(REQUEST[:10])

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                for octet in REQUEST[:-2] + b"X: y\r\n" * 200:
                    slow.send(bytes((octet,)))
                    await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        for peer in (silent, slow, second):
            assert await peer.ends() == b""
        trickling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await trickling
        assert await metric(registrar, 'registrar_refusals_total{problem="slow-head"} 3.0')
        assert registrar.service._connections.count == 0


@pytest.mark.usefixtures("quick_looks")
async def test_work_that_takes_long_is_no_slow_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    async with a_registrar() as registrar, connected(registrar) as (peer,):
        peer.send(b"GET /services?index=999999999999&wait=300ms HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (await peer.answer())[0] == 200


@pytest.mark.usefixtures("quick_looks")
async def test_who_does_not_read_its_answer_loses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.1)
    async with a_registrar() as registrar:
        big = {f"k{n}": "v" * 250 for n in range(16)}
        for number in range(300):
            await registrar.register("web", f"i{number}", metadata=big)
        async with connected(registrar) as (peer,):
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            peer.send(b"GET /services/web HTTP/1.1\r\nHost: x\r\n\r\n" * 8)
            await until(lambda: metric(registrar, 'problem="slow-reader"} 1.0'))
            peer.writer.transport.abort()
        await until(lambda: registrar.service._connections.count == 1)  # the session's own


async def test_a_slow_crowd_does_not_keep_others_out() -> None:
    """200 heads that never end, and a request among them."""
    async with a_registrar() as registrar, connected(registrar, 200) as peers:
        for peer in peers:
            peer.send(REQUEST[:-2])
        answer = await registrar.call("GET", "/healthz")

        assert answer.status == 200
        assert registrar.service._connections.count == 201
