"""Connections to upstreams: kept alive, bounded, and closed when their instance leaves."""

import asyncio
import ssl
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Final

from resolver_gateway import addresses
from resolver_gateway.addresses import Network
from resolver_gateway.balancer import Upstream
from resolver_gateway.response import ResponseParser
from resolver_gateway.retry import Failure
from resolver_gateway.tls import upstream_context
from resolver_gateway.upstream import UpstreamConnection

CONNECT_TIMEOUT: Final = 2.0
"""Seconds for a connection: two SYNs; a third would only come after 3 s."""

IDLE_SECONDS: Final = 4.0
"""How long an idle connection is kept: less than the 5 s after which uvicorn and Node close
theirs, so that a request rarely meets a connection that is being closed."""

CAREFUL_IDLE_SECONDS: Final = 1.0
"""The same for a request that cannot be repeated: it takes only a connection used just now."""

MAX_IDLE: Final = 256
"""Idle connections to one upstream; further ones are closed after their answer."""

MAX_IDLE_IN_ALL: Final = 4096


class ConnectFailed(Exception):
    """No connection to an upstream: why, in one of the words of `Failure`."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail


class Pool:
    """Every connection to every upstream; `repr` counts them."""

    def __init__(
        self,
        clock: Callable[[], float],
        timeout: float,
        allowed: Sequence[Network],
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._allowed = allowed
        self._parser = ResponseParser()
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[str, list[UpstreamConnection]] = {}
        self._idle_count = 0
        self._gone: set[str] = set()
        self.own: tuple[tuple[str, int], ...] = ()
        """Where the gateway itself listens."""
        self.connections: set[UpstreamConnection] = set()

    def __repr__(self) -> str:
        return f"<Pool {len(self.connections)} connections, {self._idle_count} idle>"

    @property
    def idle_count(self) -> int:
        return self._idle_count

    def take(self, upstream: Upstream, now: float, *, careful: bool) -> UpstreamConnection | None:
        """The idle connection to *upstream* that was used last; None when there is none fit."""
        idle = self._idle.get(upstream.key)
        if not idle:
            return None
        if careful and idle[-1].deadline - now < IDLE_SECONDS - CAREFUL_IDLE_SECONDS:
            return None
        connection = idle.pop()
        self._idle_count -= 1
        if connection.is_stale():
            connection.transport.abort()
            return self.take(upstream, now, careful=careful)
        return connection

    def give(self, connection: UpstreamConnection, now: float) -> None:
        """A connection is free again: keep it, or close it when there are enough."""
        key = connection.upstream.key
        idle = self._idle.get(key)
        if idle is None:
            idle = self._idle[key] = []
        if key in self._gone or len(idle) >= MAX_IDLE or self._idle_count >= MAX_IDLE_IN_ALL:
            connection.transport.close()
            return
        seconds = IDLE_SECONDS
        if connection.idle_seconds is not None:
            seconds = min(seconds, max(0.0, connection.idle_seconds - 1.0))
        connection.deadline = now + seconds
        idle.append(connection)
        self._idle_count += 1

    async def dial(self, upstream: Upstream) -> UpstreamConnection:
        """A new connection to *upstream*; ConnectFailed says why there is none."""
        problem = self.problem_of(upstream)
        if problem is not None:
            raise ConnectFailed(Failure.FORBIDDEN, f"{upstream.where} is not sent to: {problem}")
        self._gone.discard(upstream.key)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(
                        upstream, self, self._parser, self._clock, self._timeout
                    ),
                    upstream.address,
                    upstream.port,
                    ssl=self.tls_context() if upstream.tls_name else None,
                    server_hostname=upstream.tls_name or None,
                )
        except TimeoutError:
            detail = f"{upstream.where} does not take connections"
            raise ConnectFailed(Failure.CONNECT_TIMEOUT, detail) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectFailed(Failure.REFUSED, f"{upstream.where}: {reason}") from error
        return connection

    def problem_of(self, upstream: Upstream) -> str | None:
        """Why nothing may be sent to *upstream*; None when it may."""
        return addresses.problem_of(upstream.address, upstream.port, self.own, self._allowed)

    def tls_context(self) -> ssl.SSLContext:
        """What the certificates of upstreams are checked by."""
        if self._tls is None:
            self._tls = upstream_context("")
        return self._tls

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Check them by *context* from the next connection on."""
        self._tls = context

    def opened(self, connection: UpstreamConnection) -> None:
        self.connections.add(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection is closed, or about to be."""
        self.connections.discard(connection)
        idle = self._idle.get(connection.upstream.key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            self._idle_count -= 1
        if idle is not None and not idle:
            del self._idle[connection.upstream.key]

    def close_those_of(self, keys: Collection[str]) -> None:
        """These upstreams left: idle connections close now, working ones after their answer."""
        for key in keys:
            for connection in self._idle.pop(key, []):
                self._idle_count -= 1
                connection.transport.close()
        self._gone.update(keys)

    def tick(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.deadline = inf
            connection.timed_out()
        if self._gone and not self.connections:
            self._gone.clear()

    def close(self) -> None:
        """Close everything, at once."""
        for connection in list(self.connections):
            connection.transport.abort()
