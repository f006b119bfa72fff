"""One client's connection: heads in, one call at a time, answers out in the same order.

Pipelined requests wait in the buffer.  After an answer that cannot be followed by another, what
still comes is read and dropped for a moment, so that the answer is not lost in a reset.
"""

import asyncio
import socket
from math import inf
from typing import TYPE_CHECKING, Final, cast

from resolver_gateway.bodies import ChunkedBody, LengthBody
from resolver_gateway.call import Call
from resolver_gateway.fields import BROKEN, MAX_HEAD
from resolver_gateway.request import MAX_TARGET, Refusal, RequestHead
from resolver_gateway.upstream import HIGH_WATER

if TYPE_CHECKING:
    from resolver_gateway.handler import Handler
    from resolver_gateway.upstream import UpstreamConnection

MAX_HELD: Final = 64 * 1024
"""Octets held of what a client sends ahead (pipelined requests, a body nobody takes yet)."""

LINGER_SECONDS: Final = 2.0
MAX_LINGER: Final = 1024 * 1024
"""After a final answer: seconds and octets that are still read, and dropped."""

WRITE_STALL: Final = 30.0
"""Seconds a client may leave an answer unread before it is cut off."""

GONE_CHECK: Final = 0.4
"""Seconds after the client's FIN.  A half-closed client waits for its answer, one that left does
not, and only sending tells them apart: so then comes an interim answer (RFC 9110, 15.2: every
HTTP/1.1 client must take it), which one that left answers with a reset."""


class Downstream(asyncio.Protocol):
    """A client, and at most one call of it."""

    __slots__ = (
        "_body",
        "_buffer",
        "_draining",
        "_eof_at",
        "_handler",
        "_held",
        "_lingering",
        "_reading",
        "_stalled",
        "call",
        "deadline",
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
        self.stranger = True
        """Whether what it says of its own clients is not believed."""
        self.said = b""
        self.said_for: tuple[bytes, bytes, int] | None = None
        """The forwarding lines of this connection; Host, prefix and version they were made for."""
        self.call: Call | None = None
        self.tunnel: UpstreamConnection | None = None
        self.deadline = inf
        self._buffer = b""
        self._body: LengthBody | ChunkedBody | None = None
        self._reading = False
        self._held = False
        self._stalled = False
        self._lingering = 0
        self._eof_at: float | None = None
        self._draining = False

    def __repr__(self) -> str:
        return f"<Downstream {self.peer} {'idle' if self.call is None else repr(self.call)}>"

    # --- what a call and its upstream do to it

    def write(self, data: bytes) -> None:
        """Send *data*; what the client does not read yet is held by the transport."""
        self.transport.write(data)

    def hold(self) -> None:
        """Stop reading: whoever should take what comes does not."""
        if not self._held and not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()
            if not self._stalled:
                self.deadline = inf

    def go_on(self) -> None:
        """Read again."""
        if self._held and not self.transport.is_closing():
            self._held = False
            self.transport.resume_reading()
            if self._body is not None and not self._stalled:
                self.deadline = self._handler.clock() + self._handler.limits.body_timeout

    def finished(self, *, keep: bool, now: float) -> None:
        """The call has its whole answer: on to the next request, or close."""
        self.call = None
        self._body = None
        if not keep or self._eof_at is not None:
            self._linger()
            return
        if not self._stalled:
            self.deadline = now + self._handler.limits.idle_timeout
        if (self._buffer or self._held) and not self._reading and not self._stalled:
            self._next()

    def may_keep(self) -> bool:
        """Whether another request may follow on this connection."""
        return not self._draining and self._eof_at is None

    def cut(self) -> None:
        """The answer broke off: only a reset tells the client that it is not whole."""
        self.call = None
        self._body = None
        self.transport.abort()

    def open_tunnel(self, connection: "UpstreamConnection") -> None:
        """HTTP is over: bytes go straight to and from *connection*."""
        self.call = None
        self.tunnel = connection
        self.deadline = inf
        early, self._buffer = self._buffer, b""
        if early:
            connection.write(early)
        self.go_on()

    def close_tunnel(self) -> None:
        """The upstream closed: so do we, after what is still to be written."""
        self.tunnel = None
        self.transport.close()

    def drain(self) -> None:
        """No further requests: close now when idle, else after the call."""
        self._draining = True
        if self.call is None and self.tunnel is None and not self._buffer:
            self.transport.close()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        peer = self.transport.get_extra_info("peername")
        self.peer = peer[0].removeprefix("::ffff:") if peer else "0.0.0.0"
        self.deadline = self._handler.clock() + self._handler.limits.head_timeout
        self._handler.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.disconnected(self)
        if self.tunnel is not None:
            self.tunnel.abandon()
            self.tunnel = None
        if self.call is not None:
            call, self.call = self.call, None
            call.client_gone()

    def eof_received(self) -> bool:
        """The client sends no more; whether its side stays open for the answer."""
        if self.call is None or self._body is not None or self.tunnel is not None:
            return False
        self._eof_at = self._handler.clock()
        return True

    def pause_writing(self) -> None:
        """The client does not read."""
        self._stalled = True
        self.deadline = self._handler.clock() + WRITE_STALL
        if self.tunnel is not None:
            self.tunnel.pause()
        elif self.call is not None and self.call.connection is not None:
            self.call.connection.pause()

    def resume_writing(self) -> None:
        self._stalled = False
        if self.tunnel is not None:
            self.deadline = inf
            self.tunnel.resume()
        elif self.call is not None:
            self.deadline = inf
            if self.call.connection is not None:
                self.call.connection.resume()
        elif not self._lingering:
            self.deadline = self._handler.clock() + self._handler.limits.idle_timeout
            self._next()

    def data_received(self, data: bytes) -> None:
        if self._body is not None:
            self._read_body(data)
        elif self.call is not None:
            self._keep_for_later(data)
        elif self.tunnel is not None:
            self.tunnel.write(data)
        elif self._lingering:
            self._lingering -= len(data)
            if self._lingering <= 0:
                self.transport.abort()
        else:
            self._read(data)

    def tick(self, now: float) -> None:
        """Act on what has passed; called a few times a second."""
        if self.deadline < now:
            self.deadline = inf
            self._timed_out()
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
            if not call.answering and call.head.minor:
                self.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")

    # --- requests

    def _keep_for_later(self, data: bytes) -> None:
        """Pipelined: it waits for its turn, and beyond a bound is not read any more."""
        self._buffer += data
        if len(self._buffer) > MAX_HELD:
            self.hold()

    def _next(self) -> None:
        """Take up what came while the last call was under way."""
        self.go_on()
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Read heads, and start calls, until one is under way or the bytes end."""
        before = len(self._buffer)
        if before:
            data, self._buffer = self._buffer + data, b""
        self._reading = True
        while data and self.call is None and not self._lingering and not self._stalled:
            if data[:2] == b"\r\n":
                data = data[2:]  # RFC 9112, 2.2: an empty line before a request is ignored
            end = data.find(b"\r\n\r\n", max(0, before - 3))
            if end < 0 or end > MAX_HEAD:
                self._incomplete_head(data, before)
                data = b""
                break
            before = 0
            request = self._handler.parser.parse(data[: end + 4])
            data = data[end + 4 :]
            if isinstance(request, Refusal):
                self._refuse(request)
                break
            data = self._begin(request, data)
        self._reading = False
        if data and not self._lingering:
            self._keep_for_later(data)

    def _incomplete_head(self, data: bytes, before: int) -> None:
        """A head goes on past *data*, of which *before* octets were here already."""
        if len(data) > MAX_HEAD:
            self._refuse(Refusal(431, "head-too-large", f"a head has at most {MAX_HEAD} octets"))
        elif len(data) > MAX_TARGET + 128 and b"\r" not in data[: MAX_TARGET + 128]:
            self._refuse(
                Refusal(414, "target-too-long", f"a target has at most {MAX_TARGET} octets")
            )
        elif BROKEN.search(data, max(0, before - 1)):
            self._refuse(Refusal(400, "bad-request", "a CR, LF or NUL stands alone in the head"))
        else:
            if not before:
                # From its first octet, however slowly the others come (slowloris).
                ends = self._handler.clock() + self._handler.limits.head_timeout
                self.deadline = min(self.deadline, ends)
            self._buffer = data

    def _begin(self, request: RequestHead, data: bytes) -> bytes:
        """Start a call with what is here of its body; what follows that is handed back."""
        call = self.call = Call(self._handler, self, request, self._handler.clock())
        self.deadline = inf
        if request.chunked:
            self._body = ChunkedBody()
        elif request.length:
            self._body = LengthBody(request.length)
        else:
            call.request_complete = True
            self._handler.handle(call)
            return data
        if data:
            data = self._feed(call, data)
        if self.call is call:
            if self._body is not None:
                self.deadline = self._handler.clock() + self._handler.limits.body_timeout
            self._handler.handle(call)
        return data

    def _read_body(self, data: bytes) -> None:
        call = self.call
        assert call is not None
        rest = self._feed(call, data)
        if self._body is not None:
            self.deadline = self._handler.clock() + self._handler.limits.body_timeout
        elif self.call is call:
            self.deadline = inf
        if rest:
            if self.call is None and not self._lingering:
                self._read(rest)
            else:
                self._keep_for_later(rest)

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

    def _linger(self) -> None:
        """Close once the answer has been read: FIN first, then drop what still comes."""
        if self.transport.is_closing():
            return
        self._buffer = b""
        self._lingering = MAX_LINGER
        self.deadline = self._handler.clock() + LINGER_SECONDS
        self.go_on()
        if self._eof_at is not None:
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _timed_out(self) -> None:
        # 1. Spliced, lingering, or not reading its answer: cut off.
        # 2. A body that stopped coming: 408, or cut off when the answer has begun.
        # 3. A head that stopped coming: 408.
        # 4. Idle between two requests: closed without a word, as RFC 9112, section 9.5 has it.
        if self.tunnel is not None or self._lingering or self._stalled:
            self.transport.abort()
        elif self.call is not None:
            self.call.refuse(408, "body-timeout", "the body of the request stopped coming")
        elif self._buffer:
            self._refuse(Refusal(408, "head-timeout", "the head of the request did not come"))
        else:
            self.transport.close()
