"""An upstream whose connections a test plays by hand, line by line."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

from resolver_gateway.door import Limits
from tests.support.http import Client, World, gateway
from tests.support.waiting import until

GET = b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n"


@dataclass
class Puppet:
    """An upstream whose connections a test plays by hand."""

    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams.append((reader, writer))

    async def asked(self, number: int = 0) -> bytes:
        """The head of the next request on connection *number*."""
        await until(lambda: len(self.streams) > number)
        return await self.streams[number][0].readuntil(b"\r\n\r\n")

    def say(self, data: bytes, number: int = 0) -> None:
        self.streams[number][1].write(data)

    async def is_left(self, number: int = 0) -> bool:
        """Whether the gateway closed connection *number*; waits for it."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.streams[number][0].read(), 5)
        return True

    async def gets(self, octets: int, number: int = 0) -> bytes:
        """The next octets of connection *number*."""
        return await self.streams[number][0].readexactly(octets)

    def reading(self, goes_on: bool, number: int = 0) -> None:
        """Stop taking what comes, or go on."""
        transport = cast(asyncio.Transport, self.streams[number][1].transport)
        transport.resume_reading() if goes_on else transport.pause_reading()

    def close(self, number: int = 0) -> None:
        self.streams[number][1].close()

    def reset(self, number: int = 0) -> None:
        sock = self.streams[number][1].get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.streams[number][1].transport.abort()


@contextlib.asynccontextmanager
async def played(
    upstream_timeout: float = 5.0, limits: Limits | None = None
) -> AsyncIterator[tuple[World, Puppet]]:
    """A gateway with one upstream, which is a puppet."""
    puppet = Puppet()
    async with gateway(upstream_timeout=upstream_timeout, limits=limits) as world:
        server = await asyncio.start_server(puppet.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        world.dns.instances["payments"] = [("e", "127.0.0.1", port, 0, 1)]
        yield world, puppet
        server.close()
        for _, writer in puppet.streams:
            writer.transport.abort()


async def asking(world: World, raw: bytes = GET) -> Client:
    client = await world.client()
    await client.send(raw)
    return client
