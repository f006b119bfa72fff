"""What stands behind the proxies beside nginx: a DNS server that knows them, and a WebSocket end.

python -m benchmarks.gateway.origin DNS-PORT WEBSOCKET-PORT SERVICE=PORT[,PORT] ...
"""

import asyncio
import sys
from typing import cast

import dnslib

ZONE = "svc.internal."
TTL = 5

SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
"""The accept is that of RFC 6455's example key, which every client here sends."""


class Names(asyncio.DatagramProtocol):
    """Answers SRV for each service with its ports on this machine, glue included."""

    def __init__(self, services: dict[str, list[int]]) -> None:
        self._services = services
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's is none by class

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dnslib.DNSRecord.parse(data)
        reply = query.reply(ra=0, aa=1)
        asked = str(query.q.qname).lower()
        service = asked.removeprefix("_http._tcp.").removesuffix(f".{ZONE}")
        for port in self._services.get(service, []):
            target = f"i{port}.{service}.{ZONE}"
            reply.add_answer(
                dnslib.RR(asked, dnslib.QTYPE.SRV, ttl=TTL, rdata=dnslib.SRV(0, 1, port, target))
            )
            reply.add_ar(dnslib.RR(target, dnslib.QTYPE.A, ttl=TTL, rdata=dnslib.A("127.0.0.1")))
        packed = bytearray(reply.pack())
        end = data.index(b"\0", 12) + 5
        packed[12:end] = data[12:end]  # the question's letters as they were asked
        self._transport.sendto(bytes(packed), addr)


class Switching(asyncio.Protocol):
    """Takes an upgrade and then sends back what it gets."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._head = b""
        self._switched = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._switched:
            self._transport.write(data)
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._switched = True
            self._transport.write(SWITCHED)


async def main(dns_port: int, websocket_port: int, services: dict[str, list[int]]) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Names(services), local_addr=("127.0.0.1", dns_port))
    server = await loop.create_server(Switching, "127.0.0.1", websocket_port, backlog=4096)
    await server.serve_forever()


def _services(words: list[str]) -> dict[str, list[int]]:
    pairs = (word.partition("=") for word in words)
    return {name: [int(port) for port in ports.split(",")] for name, _, ports in pairs}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), _services(sys.argv[3:])))
