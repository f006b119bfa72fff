"""Which address of this machine reaches the registrar: what clients are told with `--host auto`."""

import asyncio
import socket
from urllib.parse import urlsplit


async def source_address(url: str) -> str:
    """The kernel's choice of source address towards *url*; OSError when there is no way.

    Connecting a datagram socket sends nothing: it only asks the routing table.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probing:
        probing.connect(address)
        return str(probing.getsockname()[0])
