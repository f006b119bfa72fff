"""DNS over TCP: framing around the responder, with bounds on what a peer may hold."""

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import cast

from dnsd.framing import Framing, frame
from dnsd.metrics import Counts
from dnsd.outgoing import Outgoing
from dnsd.responder import Peer, Responder
from dnsd.transfer import Transfer
from dnsd.udp import Senders

TICK = 1.0
"""Seconds between two looks for connections that have been idle too long."""

MESSAGES_A_TURN = 32
"""Messages of one connection before others, and UDP, have their turn: about 1 ms."""

SCARCE = 0.9
"""Of the places: when so many are taken, peers are told to leave (RFC 9210, section 4.2)."""

VICTIMS = 8
"""Of the longest idle, how many are looked at for one to close when all places are taken."""

CLOSING_TURNS = 3
"""Turns of the loop after which every closed connection has said so."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What TCP may take of a worker (RFC 7766, section 6.2; RFC 9210, section 4)."""

    connections: int = 1000
    """In all; beyond it the longest idle is closed, or the newcomer refused."""
    per_source: int = 100
    """From one address; likewise."""
    idle: float = 10.0
    """Seconds from one whole message to the next; also for a peer that does not read."""
    write_buffer: int = 256 << 10
    """Octets of answers that wait for a peer to read, before its questions wait too."""


class TcpServer:
    """Serves the listening sockets it is given until closed."""

    def __init__(
        self,
        responder: Responder,
        senders: Senders,
        counts: Counts,
        limits: Limits | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.responder = responder
        self.counts = counts
        self.limits = limits or Limits()
        self.outgoing = outgoing or Outgoing(counts)
        self._senders = senders
        self._servers: list[asyncio.Server] = []
        self._is_stopping = False
        self._open: OrderedDict[Connection, None] = OrderedDict()
        self._of_source: dict[bytes, OrderedDict[Connection, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<TcpServer {len(self._open)} connections>"

    async def open(self, sock: socket.socket) -> None:
        """Accept on *sock*, which listens already."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Connection(self), sock=sock))
        if self._timer is None:
            self._timer = loop.call_later(TICK, self._tick)

    def stop_accepting(self) -> None:
        """Take no more connections; those that are open are still served."""
        self._is_stopping = True
        for server in self._servers:
            server.close()

    @property
    def idle(self) -> float:
        """Seconds that a connection may be idle from now on; 0 when it should end."""
        short = len(self._open) >= self.limits.connections * SCARCE
        return 0.0 if self._is_stopping or short else self.limits.idle

    async def close(self) -> None:
        """Close all."""
        self.stop_accepting()
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._open):
            connection.end("stopping")
        await self.outgoing.close()
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)

    def admit(self, connection: "Connection", address: bytes) -> Peer | None:
        """A place for *connection*; None when there is none."""
        mine = self._of_source.get(address, OrderedDict())
        for places, limit in (
            (mine, self.limits.per_source),
            (self._open, self.limits.connections),
        ):
            if len(places) >= limit and not self._make_room(places):
                self.counts.tcp_closed["refused"] += 1
                return None
        self._open[connection] = None
        self._of_source.setdefault(address, OrderedDict())[connection] = None
        self.counts.tcp_accepted += 1
        self.counts.tcp_open = len(self._open)
        trusted = self._senders.trusts(address)
        return Peer(address, tcp=True, trusted=trusted, idle=self.idle)

    def _make_room(self, places: "OrderedDict[Connection, None]") -> bool:
        victim = next((c for c in islice(places, VICTIMS) if not c.is_busy), None)
        if victim is None:
            return False
        self.forget(victim)
        victim.end("crowded")
        return True

    def touched(self, connection: "Connection") -> None:
        """A whole message came: *connection* is now the least idle."""
        if connection in self._open:
            self._open.move_to_end(connection)
            self._of_source[connection.address].move_to_end(connection)

    def forget(self, connection: "Connection") -> None:
        if connection in self._open:
            del self._open[connection]
            mine = self._of_source[connection.address]
            del mine[connection]
            if not mine:
                del self._of_source[connection.address]
            self.counts.tcp_open = len(self._open)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        over = loop.time() - self.limits.idle
        for connection in tuple(self._open):
            if connection.last_message > over:
                break
            if not connection.is_sending:  # a transfer has its own bound
                connection.end("idle")
        self._timer = loop.call_later(TICK, self._tick)


class Connection(asyncio.Protocol):
    """One peer: its questions are answered in their order, as fast as it reads."""

    def __init__(self, server: TcpServer) -> None:
        self.address = b""
        self.last_message = 0.0
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._framing = Framing()
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        self._peer_is_slow = False
        self._turn: asyncio.Handle | None = None
        self._ended_by_peer = self._is_aborted = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._transfers: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether something is under way, which closing would lose."""
        transport = self._transport
        return (
            self._turn is not None
            or self.is_sending
            or (transport is not None and transport.get_write_buffer_size() > 0)
        )

    @property
    def is_sending(self) -> bool:
        """Whether a transfer is under way, or waits for its turn."""
        return bool(self._transfers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.last_message = self._loop.time()
        peer = transport.get_extra_info("peername")
        if peer:  # gone already, where there is none
            self.address = ipaddress.ip_address(peer[0].partition("%")[0]).packed
            self._peer = self._server.admit(self, self.address)
        if self._peer is None:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=self._server.limits.write_buffer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._transport = None
        for task in self._transfers:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._framing.feed(data)
        if self._turn is None and not self._peer_is_slow:
            self._serve()

    def eof_received(self) -> bool:
        """The peer asks no more: what it asked is still answered, then we close."""
        self._ended_by_peer = True
        return self._turn is not None or self._peer_is_slow or self.is_sending

    def pause_writing(self) -> None:
        self._peer_is_slow = True
        self._writable.clear()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._peer_is_slow = False
        self._writable.set()
        if self._turn is None:
            self._serve()

    def _serve(self) -> None:
        """Answer what has arrived, a bounded number at a time."""
        self._turn = None
        transport, peer = self._transport, self._peer
        if transport is None or peer is None or transport.is_closing():
            return
        now = self._loop.time()
        if peer.idle != self._server.idle:
            peer = self._peer = peer._replace(idle=self._server.idle)
        served = 0
        while (
            served < MESSAGES_A_TURN
            and not self._peer_is_slow
            and (message := self._framing.next_message()) is not None
        ):
            served += 1
            reply = self._server.responder.answer(message, peer, now)
            self._server.counts.note(reply, tcp=True)
            if reply.packet is not None:
                transport.write(frame(reply.packet))
            elif reply.transfer is not None:
                self._start(reply.transfer)
        if served:
            self.last_message = now
            self._server.touched(self)
        self._go_on(transport, more=served == MESSAGES_A_TURN)

    def _go_on(self, transport: asyncio.Transport, *, more: bool) -> None:
        # 1. A frame that cannot be: nothing behind it can be read.
        # 2. More may have arrived than one turn takes: reading waits for the next turn.
        # 3. All answered: read on, or close behind a peer that has closed.
        if transport.is_closing():
            return
        if self._framing.broken:
            self.end("framing")
        elif self._peer_is_slow:
            return  # resume_writing goes on
        elif more:
            transport.pause_reading()
            self._turn = self._loop.call_soon(self._serve)
        elif self._ended_by_peer:
            if not self.is_sending:
                transport.close()
        else:
            transport.resume_reading()

    # --- what a transfer needs ------------------------------------------------------------------

    def _start(self, transfer: Transfer) -> None:
        """Send *transfer* beside what else is asked: its messages and answers interleave."""
        task = self._server.outgoing.start(transfer, self)
        if task is not None:
            self._transfers.add(task)
            task.add_done_callback(self._transfer_ended)

    def _transfer_ended(self, task: asyncio.Task[None]) -> None:
        self._transfers.discard(task)
        self.last_message = self._loop.time()
        self._server.touched(self)
        if self._turn is None and not self._peer_is_slow:
            self._serve()

    def write(self, message: bytes) -> None:
        """Send one message, unless the peer is gone."""
        if self._transport is not None:
            self._transport.write(frame(message))

    async def writable(self) -> None:
        """Wait until the peer has read most of what was written."""
        await self._writable.wait()

    def end(self, reason: str) -> None:
        """Close: at once where answers are stuck, else after they have left."""
        if self._transport is None or self._is_aborted:
            return
        self._server.counts.tcp_closed[reason] += 1
        if reason != "framing" and self._transport.get_write_buffer_size() > 0:
            self._is_aborted = True
            self._transport.abort()
        else:
            self._transport.close()
