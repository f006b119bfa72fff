"""One question to one instance: is it well?  For the health page; requests never wait for it."""

import asyncio
import ssl
from typing import Final

import h11

from resolver_gateway.balancer import Upstream

MAX_HEAD: Final = 16 * 1024
"""Octets read for an answer's head; its body is not read at all."""


async def status_of(
    upstream: Upstream, path: str, tls: ssl.SSLContext | None, timeout: float
) -> int:
    """The status that GET *path* has there; OSError, TimeoutError or ValueError when it has none.

    *tls* is what its certificate is checked by, where it has one.
    """
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(
            upstream.address,
            upstream.port,
            ssl=tls if upstream.tls_name else None,
            server_hostname=upstream.tls_name or None,
        )
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
            writer.write(_request(connection, upstream, path))
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Response):
                    return event.status_code
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(MAX_HEAD))
                elif not isinstance(event, h11.InformationalResponse):
                    raise ValueError("the connection was closed without an answer")
        except h11.RemoteProtocolError as error:
            raise ValueError(f"the answer is not HTTP: {error}") from error
        finally:
            writer.transport.abort()


def _request(connection: h11.Connection, upstream: Upstream, path: str) -> bytes:
    fields = [("host", upstream.tls_name or upstream.where), ("connection", "close")]
    try:
        head = connection.send(h11.Request(method="GET", target=path, headers=fields))
    except (h11.LocalProtocolError, UnicodeError) as error:
        raise ValueError(f"{path!r} is no path") from error
    return (head or b"") + (connection.send(h11.EndOfMessage()) or b"")
