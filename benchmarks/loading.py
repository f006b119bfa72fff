"""Requests to a registrar at a given pace, from few octets of Python each."""

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.stack import percentile

MAX_OPEN = 200
"""Connections of the generator to one registrar; who finds none waits, and that counts."""


def post(path: str, body: Any) -> bytes:
    """A whole request."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `retry_after` tells whether it said when to come again."""

    status: int
    body: bytes
    retry_after: float | None


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._answer: asyncio.Future[Answer] | None = None
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("closed before the answer"))

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        assert self._transport is not None
        self._data = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or self._answer is None or self._answer.done():
            return
        fields = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        if len(body) >= int(fields.get(b"content-length", 0)):
            after = fields.get(b"retry-after")
            status = int(head[9:12])
            self._answer.set_result(Answer(status, body, None if after is None else float(after)))


async def ask_once(port: int, request: bytes, timeout: float) -> Answer:
    """One request on a connection of its own, as sidecars make them.  OSError, TimeoutError."""
    async with asyncio.timeout(timeout):
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, "127.0.0.1", port
        )
        try:
            return await connection.ask(request)
        finally:
            connection.close()


@dataclass(slots=True)
class Figures:
    """Statuses, and seconds from when a request was due to its answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    late: float = 0.0

    def __str__(self) -> str:
        if not self.seconds:
            return f"no answers, statuses {dict(self.statuses)}"
        p50, p99, most = (percentile(self.seconds, share) * 1e3 for share in (0.5, 0.99, 1.0))
        return (
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms,"
            f" statuses {dict(self.statuses)}, generator late by up to {self.late * 1e3:.1f} ms"
        )


async def pace(
    ports: Sequence[int], requests: Sequence[bytes], rate: float, seconds: float
) -> Figures:
    """*rate* requests a second, whether or not the ones before were answered (open loop)."""
    figures = Figures()
    room = {port: asyncio.Semaphore(MAX_OPEN) for port in ports}
    free: dict[int, deque[Connection]] = {port: deque() for port in ports}
    loop = asyncio.get_running_loop()

    async def one(port: int, request: bytes, due: float) -> None:
        async with room[port]:
            await on_some_connection(port, request, due)

    async def on_some_connection(port: int, request: bytes, due: float) -> None:
        while free[port] and free[port][-1].lost:
            free[port].pop()
        try:
            if free[port]:
                connection = free[port].pop()
            else:
                _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
            answer = await asyncio.wait_for(connection.ask(request), 10.0)
        except (OSError, TimeoutError):
            figures.statuses[0] += 1
            return
        free[port].append(connection)
        figures.statuses[answer.status] += 1
        figures.seconds.append(time.monotonic() - due)

    began, tasks = time.monotonic(), set[asyncio.Task[None]]()
    for n in range(int(rate * seconds)):
        due = began + n / rate
        delay = due - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        figures.late = max(figures.late, time.monotonic() - due)
        request = requests[n % len(requests)]
        task = asyncio.create_task(one(ports[n % len(ports)], request, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for connections in free.values():
        for connection in connections:
            connection.close()
    return figures


def shuffled(items: Sequence[Any], seed: int = 1) -> list[Any]:
    return random.Random(seed).sample(items, len(items))
