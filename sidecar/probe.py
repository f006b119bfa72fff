"""Asks whether a service is healthy; what the answer means, health.py says."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

import h11

from sidecar.health import Healthy, Unhealthy, Verdict, verdict_of
from sidecar.registration import Service

if TYPE_CHECKING:
    from sidecar.commands import Commands

MAX_BODY = 4096
"""Octets of a health answer that are read; a service that sends more is no less healthy."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Prober:
    """Gives verdicts of every kind; loads what a kind needs when it is first asked for it.

    *commands* runs the commands of those that are probed by one; None: a runner of its own.
    """

    def __init__(self, commands: "Commands | None" = None) -> None:
        self._commands = commands

    async def verdict(self, service: Service) -> Verdict:
        """One verdict within the service's time-out; never an exception for what it does."""
        timeout = service.policy.timeout
        try:
            match service.probe:
                case "none":
                    return Healthy()
                case "command":
                    return await self._runner().verdict(service)
                case "docker":
                    from sidecar import docker

                    async with asyncio.timeout(timeout):
                        return await docker.verdict(service)
                case _:
                    async with asyncio.timeout(timeout):
                        return await _connect(service)
        except TimeoutError:
            return Unhealthy(f"no answer within {timeout:g} s")
        except OSError as error:
            return Unhealthy(explained(error))
        except h11.ProtocolError as error:
            return Unhealthy(f"the answer is not HTTP: {error}")

    def _runner(self) -> "Commands":
        if self._commands is None:
            from sidecar.children import Children
            from sidecar.commands import Commands

            self._commands = Commands(Children())
        return self._commands


def explained(error: OSError) -> str:
    """An error in the system's words; asyncio puts its own, with addresses, in their place."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


async def _connect(service: Service) -> Verdict:
    # As bytes, because looking up a str loads Python's IDNA tables, 1 MB, for any name.
    host: Any = service.host.encode()
    reader, writer = await asyncio.open_connection(host, service.probe_port, limit=MAX_BODY)
    try:
        if service.probe == "tcp":
            return Healthy()
        name = f"[{service.host}]" if ":" in service.host else service.host
        authority = f"{name}:{service.probe_port}"
        status, body = await get((reader, writer), authority, service.health_endpoint, MAX_BODY)
        return verdict_of(status, body)
    finally:
        writer.transport.abort()


async def get(streams: Streams, authority: str, target: str, limit: int) -> tuple[int, bytes]:
    """Status and the first *limit* octets of the body of a GET; OSError without an answer."""
    reader, writer = streams
    connection = h11.Connection(h11.CLIENT)
    headers = [
        ("host", authority),
        ("user-agent", "callboard-sidecar"),
        ("accept", "application/json, */*;q=0.1"),
        ("connection", "close"),
    ]
    request = h11.Request(method="GET", target=target, headers=headers)
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    while len(body) < limit:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            break
    if not status:
        raise ConnectionResetError("the connection was closed without an answer")
    return status, bytes(body[:limit])
