"""HTTP/1.1 over asyncio streams and h11: one small client, one small server.

Light enough for the sidecar; whoever needs more (registrar, gateway) brings its own.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11

from registry.runtime.config import HostPort

MAX_RESPONSE = 1 << 20
"""Octets of a body that `request` reads when the caller names no limit."""

MAX_REQUEST = 1 << 16
"""Octets of a body that the server reads."""

SERVER_TIMEOUT = 10.0
"""Seconds a client of the server has for a whole request, and to read the answer."""

MAX_CONNECTIONS = 64
"""Of one server: admin sides are asked by a few probes and scrapers; more are closed at once."""

READ_SIZE = 65536


class ProtocolError(ValueError):
    """The peer did not speak HTTP, or said more than the limit."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the server was asked; *target* as it came, query included."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers under lower-case names, body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON; ProtocolError when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ProtocolError(f"not JSON: {error}") from error


def json_response(status: int, document: Any) -> Response:
    """A response whose body is *document*."""
    body = (json.dumps(document) + "\n").encode()
    return Response(status, body, {"content-type": "application/json"})


async def request(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float,
    limit: int = MAX_RESPONSE,
    tls: Any = None,
) -> Response:
    """One request on a connection of its own; https by *tls*, an ssl.SSLContext, where given.

    OSError or TimeoutError when nobody answers in time, ProtocolError when the answer is not
    HTTP or its body exceeds *limit* octets.
    """
    try:
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
    except ValueError as error:
        raise ProtocolError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ProtocolError(f"{url!r} is not an http or https URL")
    async with asyncio.timeout(timeout):
        reader, writer = await _connect(host, port, (tls or True) if secure else None)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            writer.write(
                _request_bytes(method, target, parts.netloc.rpartition("@")[2], headers, body)
            )
            await writer.drain()
            return await _read_response(reader, method, limit)
        finally:
            writer.transport.abort()


async def _connect(
    host: str, port: int, tls: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # As octets, because a host given as text loads Python's tables of all scripts (0.7 MB).
    name: Any = host.encode() if host.isascii() else host
    if tls is not None:
        return await asyncio.open_connection(name, port, ssl=tls, server_hostname=host)
    return await asyncio.open_connection(name, port)


def _request_bytes(
    method: str, target: str, host: str, headers: Mapping[str, str] | None, body: bytes | None
) -> bytes:
    fields = {"host": host, "connection": "close", **(headers or {})}
    if body is not None:
        fields["content-length"] = str(len(body))
    connection = h11.Connection(h11.CLIENT)
    try:
        head = connection.send(
            h11.Request(method=method, target=target, headers=list(fields.items()))
        )
    except (h11.LocalProtocolError, UnicodeError) as error:
        raise ProtocolError(str(error)) from error
    return (head or b"") + (body or b"")


async def _read_response(reader: asyncio.StreamReader, method: str, limit: int) -> Response:
    connection = h11.Connection(h11.CLIENT)
    # h11 must know the method to frame the answer (HEAD has no body).
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    head: h11.Response | None = None
    body = bytearray()
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ_SIZE))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    raise ProtocolError(f"the answer is longer than {limit} octets")
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError as error:
        raise ProtocolError(f"the answer is not HTTP: {error}") from error
    if head is None:
        raise ProtocolError("the connection was closed without an answer")
    fields = {k.decode("latin-1"): v.decode("latin-1") for k, v in head.headers}
    return Response(head.status_code, bytes(body), fields)


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """A small HTTP server: *handle* gets whole requests.  Not meant for strangers' traffic."""

    def __init__(self, address: HostPort, handle: Handler) -> None:
        self.address = address
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self) -> None:
        """Listen; afterwards `address` holds the port taken.  OSError when it cannot."""
        self._server = await asyncio.start_server(
            self._connected, self.address.host, self.address.port
        )
        port = self._server.sockets[0].getsockname()[1]
        self.address = HostPort(self.address.host, port)

    async def stop(self) -> None:
        """Stop listening; connections end by themselves within their time-out."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections += 1
        try:
            connection = h11.Connection(h11.SERVER)
            async with asyncio.timeout(SERVER_TIMEOUT):
                while await self._serve_one(connection, reader, writer):
                    connection.start_next_cycle()
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            pass  # the client's mistake, or its end; nobody is left to be told
        finally:
            self._connections -= 1
            with contextlib.suppress(OSError):
                writer.close()

    async def _serve_one(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether the connection may serve another."""
        request = await _read_request(connection, reader)
        if request is None:
            return False
        response = await self._handle(request)
        fields = {**response.headers, "content-length": str(len(response.body))}
        head = h11.Response(status_code=response.status, headers=list(fields.items()))
        data = connection.send(head) or b""
        if request.method != "HEAD":
            data += connection.send(h11.Data(data=response.body)) or b""
        data += connection.send(h11.EndOfMessage()) or b"" if request.method != "HEAD" else b""
        writer.write(data)
        await writer.drain()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_SIZE))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_REQUEST:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            fields = {k.decode("latin-1"): v.decode("latin-1") for k, v in head.headers}
            return Request(head.method.decode(), head.target.decode("latin-1"), fields, bytes(body))
        else:
            return None
