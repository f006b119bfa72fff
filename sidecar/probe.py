"""Asks a service whether it is healthy, over HTTP or TCP; what that means, health.py says."""

import asyncio
from typing import Any

import h11

from sidecar.health import Healthy, Unhealthy, Verdict, verdict_of
from sidecar.registration import Service

MAX_BODY = 4096
"""Octets of a health answer that are read; a service that sends more is no less healthy."""


async def probe(service: Service, timeout: float) -> Verdict:
    """One verdict on *service* within *timeout* seconds; never an exception for what it does."""
    if service.probe == "none":
        return Healthy()
    try:
        async with asyncio.timeout(timeout):
            # As bytes, because looking up a str loads Python's IDNA tables, 1 MB, for any name.
            host: Any = service.host.encode()
            reader, writer = await asyncio.open_connection(host, service.probe_port, limit=MAX_BODY)
            try:
                if service.probe == "tcp":
                    return Healthy()
                return await _ask(service, reader, writer)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return Unhealthy(f"no answer within {timeout:g} s")
    except OSError as error:
        return Unhealthy(error.strerror or str(error) or type(error).__name__)
    except h11.ProtocolError as error:
        return Unhealthy(f"the answer is not HTTP: {error}")


async def _ask(
    service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Verdict:
    connection = h11.Connection(h11.CLIENT)
    host = f"[{service.host}]" if ":" in service.host else service.host
    headers = [
        ("host", f"{host}:{service.probe_port}"),
        ("user-agent", "callboard-sidecar"),
        ("accept", "application/json, */*;q=0.1"),
        ("connection", "close"),
    ]
    request = h11.Request(method="GET", target=service.health_endpoint, headers=headers)
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    while len(body) < MAX_BODY:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_BODY))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            break
    if not status:
        return Unhealthy("the connection was closed without an answer")
    return verdict_of(status, bytes(body[:MAX_BODY]))
