"""The registrar's connections: how many, how slow a head or a reader may be, who is refused.

What aiohttp's own protocol leaves open is closed here; requests tell it when they begin and end.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from registrar import problems
from registrar.callers import is_within
from registrar.endpoints import Network, canonical_address
from registrar.errors import LimitReached

HEAD_SECONDS = 10.0
"""From a connection's begin, or the first octet of a later head, to that head's end."""

STALL_SECONDS = 30.0
"""That a client may leave an answer unread, once what the kernel holds for it is full."""

REFUSED_SECONDS = 2.0
"""That a refused connection has to send its request, so that it may read why it is refused."""

MAX_REFUSED = 256
"""Refused connections that are told why; more are just closed."""

LOOK_SECONDS = 1.0
"""Between looks at all connections."""


class Connections:
    """All connections of one server.  *refused* is told the name of the limit that was met.

    Connections from *exempt* networks (proxies, this machine) count in all, but not by client.
    """

    def __init__(
        self,
        most: int,
        most_per_client: int,
        exempt: Sequence[Network],
        refused: Callable[[str], None],
    ) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._exempt = exempt
        self._tell = refused
        self._open: set[Connection] = set()
        self._clients: Counter[str] = Counter()
        self._refused: set[Refused] = set()

    def __repr__(self) -> str:
        return f"<Connections {self.count} open, {len(self._refused)} refused>"

    @property
    def count(self) -> int:
        return len(self._open)

    def factory(self, server: web.Server, **settings: Any) -> Callable[[], "Connection"]:
        """What makes the protocol of each new connection to *server*."""
        loop = asyncio.get_running_loop()
        return lambda: Connection(self, server, loop=loop, **settings)

    async def run(self) -> None:
        """Close whoever is too slow, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                connection.look(now)
            for refused in list(self._refused):
                refused.look(now)

    def admit(self, connection: "Connection") -> LimitReached | None:
        """Count *connection*, or say which limit forbids it."""
        client = connection.client
        if len(self._open) >= self._most:
            return LimitReached("connections", f"{self._most} connections are open already")
        if self._clients[client] >= self._most_per_client and not is_within(client, self._exempt):
            return LimitReached(
                "connections-per-client",
                f"{self._most_per_client} connections of {client} are open",
            )
        self._open.add(connection)
        self._clients[client] += 1
        return None

    def gone(self, connection: "Connection") -> None:
        if connection in self._open:
            self._open.discard(connection)
            self._clients[connection.client] -= 1
            if not self._clients[connection.client]:
                del self._clients[connection.client]

    def refuse(self, transport: asyncio.Transport, why: LimitReached) -> None:
        """Let whoever is at the other end of *transport* know *why*, if there is room for it."""
        self._tell(why.name)
        if len(self._refused) >= MAX_REFUSED:
            transport.abort()
            return
        refused = Refused(transport, why, self._refused.discard)
        transport.set_protocol(refused)
        self._refused.add(refused)

    def too_slow(self, name: str) -> None:
        self._tell(name)


class Connection(RequestHandler):
    """aiohttp's protocol, bounded in time."""

    __slots__ = ("_all", "_busy", "_head_since", "_stalled_since", "client")

    def __init__(self, all_: Connections, server: web.Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._all = all_
        self._busy = False
        self._head_since: float | None = None
        self._stalled_since: float | None = None
        self.client = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.client = (canonical_address(peer[0]) or "") if isinstance(peer, tuple) else ""
        refusal = self._all.admit(self)
        if refusal is not None:
            self._all.refuse(cast(asyncio.Transport, transport), refusal)
            return
        self._head_since = self._loop.time()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._all.gone(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_since is None and not self._busy:
            self._head_since = self._loop.time()
        super().data_received(data)

    def pause_writing(self) -> None:
        self._stalled_since = self._loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    def request_begins(self) -> None:
        """Its head is complete, and somebody works for it."""
        self._busy, self._head_since = True, None

    def request_ends(self) -> None:
        """Its answer is ready; the next head may come."""
        self._busy, self._head_since = False, None

    def look(self, now: float) -> None:
        """Close it when it is too slow; a reader that stalls holds what it was sent, until then."""
        if self._head_since is not None and now - self._head_since >= HEAD_SECONDS:
            self._end("slow-head")
        elif self._stalled_since is not None and now - self._stalled_since >= STALL_SECONDS:
            self._end("slow-reader")

    def _end(self, why: str) -> None:
        self._all.too_slow(why)
        if self.transport is not None:
            self.transport.abort()


class Refused(asyncio.Protocol):
    """A connection that gets one answer, and then ends.

    It waits for a request: closing while one is still unread would reset the connection, and
    the answer with it.
    """

    def __init__(
        self, transport: asyncio.Transport, why: LimitReached, gone: Callable[["Refused"], None]
    ) -> None:
        self._transport = transport
        self._why = why
        self._gone = gone
        self._since = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self._transport.write(refusal(self._why))
        self._transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gone(self)

    def look(self, now: float) -> None:
        if now - self._since >= REFUSED_SECONDS:
            self._transport.abort()


def refusal(why: LimitReached) -> bytes:
    """The whole response to whoever has no place."""
    answer = problems.answer_to(why)
    assert answer is not None, "every limit has its answer"
    body = answer.body()
    headers = {
        "Content-Type": problems.CONTENT_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} Too Many Requests"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
