"""Two connections spliced after an upgrade: bytes go from each to the other as they are.

Each direction ends by itself: a FIN goes on as a FIN, and what the other side still sends comes
through.  What one side does not take is not read from the other.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from resolver_gateway.outflow import WRITE_STALL, Outflow

if TYPE_CHECKING:
    from resolver_gateway.downstream import Downstream
    from resolver_gateway.upstream import UpstreamConnection

HALF_CLOSED: Final = 60.0
"""Seconds of silence after one side's FIN: most often the other has nothing more to say."""


class End(asyncio.Protocol):
    """One side of a tunnel; *owner* was its protocol before, and keeps its account."""

    __slots__ = ("ended", "other", "outflow", "owner", "transport", "tunnel")

    def __init__(
        self,
        tunnel: "Tunnel",
        owner: "Downstream | UpstreamConnection",
        transport: asyncio.Transport,
    ) -> None:
        self.tunnel = tunnel
        self.owner = owner
        self.transport = transport
        self.other: End
        self.ended = False
        """Whether its peer sends no more."""
        self.outflow: Outflow | None = None
        """While its peer does not take what comes for it."""

    def data_received(self, data: bytes) -> None:
        self.tunnel.active = self.tunnel.clock()
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        self.tunnel.active = self.tunnel.clock()
        there = self.other.transport
        if self.other.ended or not there.can_write_eof():
            self.tunnel.close()
            return False
        there.write_eof()
        return True

    def pause_writing(self) -> None:
        self.outflow = Outflow(self.transport, self.tunnel.clock())
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.outflow = None
        if not self.other.ended and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.connection_lost(exc)
        if self.other.transport.is_closing():
            return
        if exc is None:
            self.tunnel.close()
        else:
            self.tunnel.abort()


class Tunnel:
    """Both ends, and how long they may be silent."""

    __slots__ = ("_closed_at", "_idle", "active", "clock", "ends")

    def __init__(
        self,
        client: "Downstream",
        connection: "UpstreamConnection",
        idle: float,
        clock: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.active = clock()
        """When a byte last went through."""
        self._idle = idle
        self._closed_at: float | None = None
        here, there = (End(self, owner, owner.transport) for owner in (client, connection))
        here.other, there.other = there, here
        self.ends = here, there
        for end in self.ends:
            # typeshed: uvloop and asyncio both take any protocol here.
            end.transport.set_protocol(cast(asyncio.BaseProtocol, end))

    def __repr__(self) -> str:
        ended = sum(end.ended for end in self.ends)
        return f"<Tunnel {['open', 'half closed', 'closed'][ended]}>"

    def tick(self, now: float) -> None:
        """Close it after too long a silence, or when one side takes nothing any more."""
        half = any(end.ended for end in self.ends)
        if self._closed_at is not None:
            if now - self._closed_at > WRITE_STALL:
                self.abort()
        elif now - self.active > (min(self._idle, HALF_CLOSED) if half else self._idle):
            self.close()
        elif any(end.outflow is not None and end.outflow.is_stuck(now) for end in self.ends):
            self.abort()

    def close(self) -> None:
        """Close both sides, after what is still to be written."""
        self._closed_at = self.clock()
        for end in self.ends:
            end.transport.close()

    def abort(self) -> None:
        """Close both sides at once."""
        for end in self.ends:
            end.transport.abort()
