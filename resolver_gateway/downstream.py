"""One client's connection: heads in, one call at a time, answers out in the same order.

Pipelined requests wait in the buffer.  After an answer that cannot be followed by another, what
still comes is read and dropped for a moment, so that the answer is not lost in a reset.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final, cast

from resolver_gateway import outflow
from resolver_gateway.bodies import ChunkedBody, LengthBody
from resolver_gateway.call import Call
from resolver_gateway.fields import BROKEN, MAX_HEAD
from resolver_gateway.outflow import WRITE_STALL, Outflow
from resolver_gateway.remembered import MAX_LENGTH as MAX_REMEMBERED_HEAD
from resolver_gateway.request import (
    MAX_TARGET,
    Refusal,
    RequestHead,
    start_problem,
    target_too_long,
)
from resolver_gateway.tunnel import Tunnel

if TYPE_CHECKING:
    from resolver_gateway.handler import Handler
    from resolver_gateway.upstream import UpstreamConnection

HIGH_WATER: Final = 16 * 1024
"""Octets that a client has not taken yet (beside what the kernel holds) from which on its answer
is no longer read from the upstream.  With one read of that it makes the most that is held."""

MAX_HELD: Final = 64 * 1024
"""Octets held of what a client sends ahead (pipelined requests, a body nobody takes yet)."""

LINGER_SECONDS: Final = 2.0
MAX_LINGER: Final = 1024 * 1024
"""After a final answer was taken: seconds and octets that are still read, and dropped."""

STALL_CHECK: Final = 5.0
"""Seconds between two looks at whether a client that does not keep up takes anything."""

GONE_CHECK: Final = 0.4
"""Seconds after the client's FIN.  A half-closed client waits for its answer, one that left does
not, and only sending tells them apart: then it is probed, and one that left resets."""

DRAIN_IDLE: Final = 1.0
"""Seconds that an idle client is kept when draining: whoever sends just then gets its answer,
with `Connection: close`, where a close at once would cross it."""


class Downstream(asyncio.Protocol):
    """A client, and at most one call of it."""

    __slots__ = (
        "_body",
        "_buffer",
        "_eof_at",
        "_handler",
        "_held",
        "_lingering",
        "_outflow",
        "_quiet",
        "_reading",
        "call",
        "deadline",
        "origin",
        "peer",
        "said",
        "said_for",
        "stranger",
        "transport",
        "tunnel",
    )

    def __init__(self, handler: "Handler") -> None:
        self._handler = handler
        self.transport: asyncio.Transport
        self.peer = ""
        """The client's address."""
        self.origin = ""
        """What its connections are counted by: the address, or the /64 of an IPv6 one."""
        self.stranger = True
        """Whether what it says of its own clients is not believed."""
        self.said = b""
        self.said_for: tuple[bytes, bytes, int] | None = None
        """The forwarding lines of this connection; Host, prefix and version they were made for."""
        self.call: Call | None = None
        self.tunnel: Tunnel | None = None
        self.deadline = inf
        self._buffer = b""
        self._body: LengthBody | ChunkedBody | None = None
        self._quiet = True
        """Whether the next octet is a head's first: no call, nothing held, nothing unread."""
        self._reading = False
        self._held = False
        self._outflow: Outflow | None = None
        """While it does not take its answer, or its last answer is on its way."""
        self._lingering = 0
        self._eof_at: float | None = None

    def __repr__(self) -> str:
        return f"<Downstream {self.peer} {'idle' if self.call is None else repr(self.call)}>"

    # --- what a call and its upstream do to it

    def write(self, data: bytes) -> None:
        """Send *data*; what the client does not read yet is held by the transport."""
        self.transport.write(data)

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """Send *pieces*, in one call of the system's."""
        self.transport.writelines(pieces)

    def hold(self) -> None:
        """Stop reading: whoever should take what comes does not."""
        if not self._held and not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()
            if self._outflow is None:
                self.deadline = inf

    def go_on(self) -> None:
        """Read again."""
        if self._held and not self.transport.is_closing():
            self._held = False
            self.transport.resume_reading()
            if self._body is not None and self._outflow is None:
                self.deadline = self._handler.clock() + self._handler.limits.body_timeout

    def finished(self, *, keep: bool, now: float) -> None:
        """The call has its whole answer: on to the next request, or close."""
        self.call = None
        self._body = None
        if not keep or (self._eof_at is not None and not self._buffer):
            self._linger()
        elif self._outflow is not None or self._reading:
            pass  # the next one waits until this answer is taken, or `_read` goes on by itself
        elif self._buffer or self._held:
            self._next()
        else:
            self._quiet = True
            self.deadline = now + self._handler.limits.idle_timeout

    def may_keep(self) -> bool:
        """Whether another request may follow on this connection."""
        return not self._handler.door.draining and (self._eof_at is None or bool(self._buffer))

    def cut(self) -> None:
        """The answer broke off: only a reset tells every client that it is not whole."""
        self.call = None
        self._body = None
        outflow.reset(self.transport)

    def open_tunnel(self, connection: "UpstreamConnection") -> None:
        """HTTP is over: bytes go straight to and from *connection*."""
        self.call = None
        self.deadline = inf
        self.go_on()
        early, self._buffer = self._buffer, b""
        if early:
            connection.transport.write(early)
        limits = self._handler.limits
        self.tunnel = Tunnel(self, connection, limits.tunnel_timeout, self._handler.clock)
        if self._outflow is not None:
            self.tunnel.ends[0].pause_writing()

    def drain(self) -> None:
        """No further requests: close soon when idle, else after the call."""
        if self.call is None and self.tunnel is None and not self._lingering:
            self.deadline = min(self.deadline, self._handler.clock() + DRAIN_IDLE)

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        outflow.bound(self.transport)
        peer = self.transport.get_extra_info("peername")
        self.peer = peer[0].removeprefix("::ffff:") if peer else "0.0.0.0"
        self.origin = origin_of(self.peer)
        self.deadline = self._handler.clock() + self._handler.limits.head_timeout
        self._handler.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.disconnected(self)
        if self.call is not None:
            call, self.call = self.call, None
            call.client_gone()

    def eof_received(self) -> bool:
        """The client sends no more; whether its side stays open for the answer."""
        self._quiet = False
        self._eof_at = self._handler.clock()
        waits_for_answers = self._outflow is not None and not self._lingering
        if self.transport.get_extra_info("sslcontext") is not None:
            return False  # TLS ends both ways at once; asyncio says so in a warning each time
        if self._body is None and (self.call is not None or waits_for_answers):
            return True
        self._watch_the_end()
        return False

    def pause_writing(self) -> None:
        """The client does not read."""
        now = self._handler.clock()
        self._quiet = False
        if self._outflow is None:
            self._outflow = Outflow(self.transport, now)
        self.deadline = now + STALL_CHECK
        if self.call is not None and self.call.connection is not None:
            self.call.connection.pause()

    def resume_writing(self) -> None:
        if self._lingering:
            return
        self._outflow = None
        now, limits = self._handler.clock(), self._handler.limits
        if self.call is not None:
            self.deadline = inf if self._body is None else now + limits.body_timeout
            if self.call.connection is not None:
                self.call.connection.resume()
        else:
            self.deadline = now + limits.idle_timeout
            self._next()

    def data_received(self, data: bytes) -> None:
        if self._quiet:
            # Asked only of what can be there: to look for the octets of a body is to hash them.
            known = self._handler.parser.remembered
            head = known.get(data) if len(data) <= MAX_REMEMBERED_HEAD else None
            if head is None or head.has_body:
                self._read(data)
                return
            # One whole head that came before, as most are: nothing to be taken apart.
            now = self._handler.clock()
            self._quiet = False
            self.deadline = inf
            self.call = call = Call(self._handler, self, head, now)
            call.request_complete = True
            self._handler.handle(call)
        elif self._body is not None:
            self._read_body(data)
        elif self._lingering:
            self._lingering -= len(data)
            if self._lingering <= 0:
                self.transport.abort()
        elif self.call is not None or self._outflow is not None:
            self._keep_for_later(data)
        else:
            self._read(data)

    def tick(self, now: float) -> None:
        """Act on what has passed; called a few times a second."""
        if self.deadline < now:
            self._timed_out(now)
        elif self.tunnel is not None:
            self.tunnel.tick(now)
        elif self._eof_at is not None and self.call is not None:
            self._see_whether_it_left(self.call, now)

    def _see_whether_it_left(self, call: Call, now: float) -> None:
        """After its FIN: send something, and look for the reset that it brings."""
        assert self._eof_at is not None
        if self._eof_at == inf:
            # Neither loop reports a reset once the end was read; the socket keeps it.
            sock = self.transport.get_extra_info("socket")
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.transport.abort()
        elif now > self._eof_at + GONE_CHECK:
            self._eof_at = inf
            call.probe()

    # --- requests

    def _keep_for_later(self, data: bytes) -> None:
        """Pipelined: it waits for its turn, and beyond a bound is not read any more."""
        self._buffer += data
        if len(self._buffer) > MAX_HELD:
            self.hold()

    def _next(self) -> None:
        """Take up what came while the last call was under way."""
        self.go_on()
        self._read(b"")

    def _read(self, data: bytes) -> None:
        """Read heads, and start calls, until one is under way or the bytes end."""
        scanned = len(self._buffer) if data else 0
        self._buffer = self._buffer + data if scanned else data or self._buffer
        self._quiet = False
        self._reading = True
        while self._buffer and self.call is None and not self._lingering and not self._outflow:
            if not self._read_one(scanned):
                break
            scanned = 0
        self._reading = False
        if self.call is not None or self._lingering or self._outflow is not None:
            if len(self._buffer) > MAX_HELD:
                self.hold()
        elif not self._buffer:
            self._quiet = True
            # An empty line is no request: it does not prolong an idle connection.
            idle_until = self._handler.clock() + self._handler.limits.idle_timeout
            self.deadline = min(self.deadline, idle_until)

    def _read_one(self, scanned: int) -> bool:
        """Read a head, of which no end is in the first *scanned* octets; whether to go on."""
        data = self._buffer
        if data.startswith(b"\r\n"):
            self._buffer = data[2:]  # RFC 9112, 2.2: empty lines before a request are ignored
            return True
        end = data.find(b"\r\n\r\n", max(0, scanned - 3)) + 4
        if end < 4 or end > MAX_HEAD:
            self._incomplete_head(data, scanned)
            return False
        head, self._buffer = (data, b"") if end == len(data) else (data[:end], data[end:])
        request = self._handler.parser.parse(head)
        if isinstance(request, Refusal):
            self._refuse(request)
            return False
        self._begin(request)
        return True

    def _incomplete_head(self, data: bytes, before: int) -> None:
        """A head goes on past *data*, of which *before* octets were here already."""
        line, ended, _ = data[: MAX_TARGET + 128].partition(b"\r\n")
        if len(data) > MAX_HEAD:
            self._refuse(Refusal(431, "head-too-large", f"a head has at most {MAX_HEAD} octets"))
        elif ended and (refusal := start_problem(line)) is not None:
            self._refuse(refusal)
        elif len(line) == MAX_TARGET + 128:
            self._refuse(target_too_long())
        elif BROKEN.search(data, max(0, before - 1)):
            self._refuse(Refusal(400, "bad-request", "a CR, LF or NUL stands alone in the head"))
        elif self._eof_at is not None:
            self._linger()  # the rest will never come
        else:
            if not before:
                # From its first octet, however slowly the others come (slowloris).
                ends = self._handler.clock() + self._handler.limits.head_timeout
                self.deadline = min(self.deadline, ends)

    def _begin(self, request: RequestHead) -> None:
        """Start a call with what is here of its body; what follows that stays."""
        now = self._handler.clock()
        call = self.call = Call(self._handler, self, request, now)
        self.deadline = inf
        if not request.has_body:
            call.request_complete = True
            self._handler.handle(call)
            return
        self._body = ChunkedBody() if request.chunked else LengthBody(request.length or 0)
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._buffer = self._feed(call, data)
        if self.call is call:
            if self._body is not None:
                self.deadline = now + self._handler.limits.body_timeout
            self._handler.handle(call)

    def _read_body(self, data: bytes) -> None:
        call = self.call
        assert call is not None
        rest = self._feed(call, data)
        if self._outflow is None:
            self._set_body_deadline(len(data))
        if rest:
            if self.call is None:
                if not self._lingering:
                    self._read(rest)
            else:
                self._keep_for_later(rest)

    def _set_body_deadline(self, octets: int) -> None:
        """Each octet of a body buys time for the next, never more than `body_timeout` ahead.

        So a body comes at `min_body_rate` at least, after as long a start.
        """
        if self._body is None:
            if self.call is not None:
                self.deadline = inf
            return
        if self._held:
            return
        limits = self._handler.limits
        latest = self._handler.clock() + limits.body_timeout
        if limits.min_body_rate:
            latest = min(latest, self.deadline + octets / limits.min_body_rate)
        self.deadline = latest

    def _feed(self, call: Call, data: bytes) -> bytes:
        """Hand the body's bytes to the call; what follows the body is handed back."""
        body = self._body
        assert body is not None
        part = body.feed(data)
        if part.problem:
            self._body = None
            call.refuse(400, "bad-request", part.problem)
            return b""
        if part.data:
            call.request_part(part.data)
        if part.done:
            self._body = None
            call.request_end(body.trailers)
        return part.rest

    def _refuse(self, refusal: Refusal) -> None:
        """A head that is not taken: say why, and close, since where the next begins is unknown."""
        self._buffer = b""
        self._handler.refused(self, refusal)
        self._linger()

    # --- the end

    def _linger(self) -> None:
        """Close once the answer has been taken: FIN first, then drop what still comes."""
        if self.transport.is_closing():
            return
        self._buffer = b""
        self._watch_the_end()
        self.go_on()
        if self._eof_at is None and self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _watch_the_end(self) -> None:
        """The last answer is on its way; see to it that this ends."""
        now = self._handler.clock()
        self._quiet = False
        self._lingering = MAX_LINGER
        self._outflow = Outflow(self.transport, now)
        self.deadline = now + LINGER_SECONDS

    def _timed_out(self, now: float) -> None:
        # 1. Not taking its answer, or at its end: cut off, unless it goes on.
        # 2. A body that stopped coming: 408, or cut off when the answer has begun.
        # 3. A head that stopped coming: 408.
        # 4. Idle between two requests: closed without a word, as RFC 9112, section 9.5 has it.
        self.deadline = inf
        if self._outflow is not None:
            done = self._lingering and not outflow.unsent(self.transport)
            if done or self._outflow.is_stuck(now):
                self.transport.abort()
            else:
                self.deadline = now + (LINGER_SECONDS if self._lingering else STALL_CHECK)
        elif self.call is not None:
            self.call.refuse(408, "body-timeout", "the body of the request stopped coming")
        elif self._buffer:
            self._refuse(Refusal(408, "head-timeout", "the head of the request did not come"))
        else:
            self._watch_the_end()
            self.transport.close()


def origin_of(peer: str) -> str:
    """What the connections of *peer* are counted by: a /64 is one client's (RFC 6177)."""
    if ":" not in peer:
        return peer
    address = ipaddress.IPv6Address(peer.partition("%")[0])
    return str(ipaddress.IPv6Network((address, 64), strict=False))


assert WRITE_STALL > STALL_CHECK
