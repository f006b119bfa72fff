"""One bare DNS question, to see whether a service is answered yet: `up` needs no library for it."""

import asyncio
import contextlib
import secrets
import socket
import struct
from typing import Final

from registry.names import service_owner
from registry.runtime.config import HostPort

TIMEOUT: Final = 0.5
"""Seconds; the server is on this machine."""

A: Final = 1
IN: Final = 1


async def count(server: HostPort, service: str, zone: str) -> int:
    """How many addresses *server* gives for *service*; 0 also when it does not answer."""
    query = question(secrets.randbelow(65536), service_owner(service, zone))
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        async with asyncio.timeout(TIMEOUT):
            await loop.sock_connect(sock, server)
            await loop.sock_sendall(sock, query)
            return answers(await loop.sock_recv(sock, 4096), query)
    return 0


def question(number: int, owner: str) -> bytes:
    """The query for the A records of *owner* (RFC 1035, section 4.1)."""
    labels = (label.encode() for label in owner.removesuffix(".").split("."))
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!6H", number, 0, 1, 0, 0, 0) + name + struct.pack("!HH", A, IN)


def answers(packet: bytes, query: bytes) -> int:
    """ANCOUNT of *packet*; 0 when it does not answer *query*."""
    if len(packet) < 12 or packet[:2] != query[:2]:
        return 0
    count: int = struct.unpack_from("!H", packet, 6)[0]
    return count
