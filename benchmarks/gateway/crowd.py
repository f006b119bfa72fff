"""Many clients that cost patience: idle ones, idle WebSockets, drippers, and slow readers.

python -m benchmarks.gateway.crowd PORT DRIPPERS READERS
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator

DRIP_SECONDS = 1.0
"""Between two octets of a head: ten of them until the gateway's absolute deadline."""

READ_SECONDS = 1.0
READ_OCTETS = 4096
"""A slow reader takes this much in that time: above what the gateway cuts off, far below a pipe."""

ONE = b"GET /v2/web/small HTTP/1.1\r\nHost: bench\r\n\r\n"
HUGE = b"GET /v2/web/huge HTTP/1.1\r\nHost: bench\r\n\r\n"

UPGRADE = (
    b"GET /v2/ws/ HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@contextlib.contextmanager
def idle(port: int, number: int, request: bytes) -> Iterator[None]:
    """*number* connections that each had *request* answered and then say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            sock.sendall(request)
            answer = sock.recv(4096)
            if answer[9:12] not in (b"200", b"101"):
                raise SystemExit(f"error: port {port} answered {answer!r}")
        yield


async def drip(port: int) -> None:
    """Send a head an octet at a time, for ever; begin anew whenever cut off."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /v2/web/small HTTP/1.1\r\nHost: bench\r\nX: ")
                while not reader.at_eof():
                    writer.write(b"x")
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(DRIP_SECONDS):
                            await reader.read(4096)
            finally:
                writer.close()


async def sip(port: int) -> None:
    """Ask for more than anyone wants, and take it in sips."""
    loop = asyncio.get_running_loop()
    while True:
        sock = socket.socket()
        # What the kernel takes off the wire by itself would be read at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_OCTETS)
        sock.setblocking(False)
        with contextlib.suppress(OSError), sock:
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, HUGE)
            while await loop.sock_recv(sock, READ_OCTETS):  # noqa: ASYNC110 - it is slow by intent
                await asyncio.sleep(READ_SECONDS)


async def main(port: int, drippers: int, readers: int) -> None:
    """Be all of them until killed."""
    async with asyncio.TaskGroup() as group:
        for _ in range(drippers):
            group.create_task(drip(port))
        for _ in range(readers):
            group.create_task(sip(port))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
