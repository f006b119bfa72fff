"""One connection to an upstream: a request goes out, its answer comes in, never anyone else's.

An answer is read strictly.  Bytes that nobody asked for, or that follow an answer, end the
connection, so that no call ever sees what belongs to another.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final, cast

from resolver_gateway import headers
from resolver_gateway.balancer import Upstream
from resolver_gateway.bodies import Body, ChunkedBody, EndlessBody, LengthBody
from resolver_gateway.fields import BROKEN, MAX_HEAD
from resolver_gateway.request import Refusal
from resolver_gateway.response import ResponseHead, ResponseParser
from resolver_gateway.retry import Failure

if TYPE_CHECKING:
    from resolver_gateway.call import Call
    from resolver_gateway.downstream import Downstream
    from resolver_gateway.pool import Pool

MAX_INTERIM: Final = 8
"""Interim answers (1xx) that pass before the final one; more is an upstream that never answers."""

HIGH_WATER: Final = 128 * 1024
"""Octets held for a side that does not read, before the other is no longer read from."""

TUNNEL_IDLE: Final = 3600.0
"""Seconds a spliced connection may be silent in both directions."""


class UpstreamConnection(asyncio.Protocol):
    """A connection to *upstream*; owned by the pool while idle, by a call while it works."""

    __slots__ = (
        "_body",
        "_buffer",
        "_clock",
        "_interims",
        "_keep",
        "_parser",
        "_pool",
        "_timeout",
        "call",
        "deadline",
        "idle_seconds",
        "peer",
        "reused",
        "transport",
        "upstream",
    )

    def __init__(
        self,
        upstream: Upstream,
        pool: "Pool",
        parser: ResponseParser,
        clock: Callable[[], float],
        timeout: float,
    ) -> None:
        self.upstream = upstream
        self.call: Call | None = None
        self.peer: Downstream | None = None
        """The other end after an upgrade: bytes go straight there."""
        self.deadline = inf
        self.reused = False
        """Whether it has carried an answer before: then it may have been closed just now."""
        self.idle_seconds: float | None = None
        self.transport: asyncio.Transport
        self._pool = pool
        self._parser = parser
        self._clock = clock
        self._timeout = timeout
        self._buffer = b""
        self._body: Body | None = None
        self._interims = 0
        self._keep = False

    def __repr__(self) -> str:
        state = "idle" if self.call is None else "working"
        return f"<UpstreamConnection {self.upstream.where} {state}>"

    # --- towards the upstream

    def send(self, call: "Call", data: bytes, now: float) -> None:
        """Begin an exchange: *data* is the head and what there is of the body."""
        self.call = call
        self.deadline = now + self._timeout
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """More of the request's body, or of a spliced stream."""
        self.deadline = self._clock() + (self._timeout if self.peer is None else TUNNEL_IDLE)
        self.transport.write(data)

    def pause(self) -> None:
        """The client does not read: stop reading, and stop the clock."""
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self.deadline = inf

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.deadline = self._clock() + (self._timeout if self.peer is None else TUNNEL_IDLE)

    def abandon(self) -> None:
        """The call is over before its answer: the connection cannot be used again."""
        self.call = None
        self.peer = None
        self.transport.abort()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self)
        if self.peer is not None:
            self.peer.close_tunnel()
            self.peer = None
        call = self.call
        if call is None:
            return
        self.call = None
        if isinstance(self._body, EndlessBody) and exc is None:
            call.answer_end(b"", [], self._clock())
            return
        call.attempt_failed(Failure.CLOSED, "the upstream closed the connection", self)

    def pause_writing(self) -> None:
        client = self.peer if self.call is None else self.call.client
        if client is not None:
            client.hold()

    def resume_writing(self) -> None:
        client = self.peer if self.call is None else self.call.client
        if client is not None:
            client.go_on()

    def timed_out(self) -> None:
        """The deadline passed: an idle connection is closed, a working one has failed."""
        call = self.call
        if call is None:
            self.transport.close() if self.peer is None else self.transport.abort()
            return
        self.abandon()
        call.attempt_failed(Failure.TIMEOUT, "the upstream did not answer in time", self)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            if self.peer is not None:
                self.deadline = self._clock() + TUNNEL_IDLE
                self.peer.write(data)
            else:
                self._pool.lost(self)  # unsolicited: whose answer would it be?
                self.transport.abort()
            return
        body = self._body
        if body is None:
            self._read_head(call, data)
            return
        part = body.feed(data)
        if part.problem:
            self._failed(call, part.problem)
        elif part.done:
            self._ended(call, part.data, part.rest)
        elif part.data:
            self.deadline = self._clock() + self._timeout
            call.answer_part(part.data)

    # --- the answer, head first

    def _read_head(self, call: "Call", data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD:
                self._incomplete_head(call, data)
                return
            response = self._parser.parse(data[: end + 4])
            rest = data[end + 4 :]
            if isinstance(response, Refusal):
                self._failed(call, response.detail)
                return
            if response.status >= 200:
                self._begin(call, response, rest)
                return
            if response.status == 101:
                self._switch(call, response, rest)
                return
            self._interims += 1
            if self._interims > MAX_INTERIM:
                self._failed(call, f"the upstream sent more than {MAX_INTERIM} interim answers")
                return
            call.interim(response)
            if not rest:
                return
            data = rest

    def _incomplete_head(self, call: "Call", data: bytes) -> None:
        if len(data) > MAX_HEAD:
            self._failed(call, "the head of the upstream's answer is too long")
        elif BROKEN.search(data):
            self._failed(call, "the upstream's answer is not HTTP: a CR or LF stands alone")
        else:
            self._buffer = data

    def _begin(self, call: "Call", response: ResponseHead, rest: bytes) -> None:
        """The final head is here: what is its body, and how much of that came with it?"""
        self._keep = response.keep_alive
        self.idle_seconds = response.idle_seconds
        length = response.length
        if call.without_body(response.status) or length == 0:
            self._whole(call, response, b"", rest)
        elif length is not None:
            if len(rest) == length:
                self._whole(call, response, rest, b"")
                return
            if len(rest) > length:
                self._whole(call, response, rest[:length], rest[length:])
                return
            self._body = LengthBody(length - len(rest))
            call.answer(response, rest)
        elif response.chunked:
            self._begin_chunked(call, response, rest)
        else:
            self._keep = False
            self._body = EndlessBody()
            call.answer(response, rest)

    def _begin_chunked(self, call: "Call", response: ResponseHead, rest: bytes) -> None:
        body = ChunkedBody()
        part = body.feed(rest)
        if part.problem:
            self._failed(call, part.problem)
        elif part.done and part.rest:
            self._failed(call, "the upstream sent more than its answer")
        else:
            self._body = body
            call.answer(response, part.data)
            if part.done and self.call is call:
                self._ended(call, b"", b"")

    def _whole(self, call: "Call", response: ResponseHead, body: bytes, surplus: bytes) -> None:
        """Head and body are here at once: the connection is free before the client is told."""
        if surplus:
            self._failed(call, "the upstream sent more than its answer")
            return
        now = self._clock()
        self._release(call, now)
        call.answer_whole(response, body, now)

    def _ended(self, call: "Call", data: bytes, surplus: bytes) -> None:
        assert self._body is not None
        trailers = headers.trailers_that_pass(self._body.trailers)
        if surplus:
            self._keep = False
        now = self._clock()
        self._release(call, now)
        call.answer_end(data, trailers, now)

    def _release(self, call: "Call", now: float) -> None:
        """Back to the pool, if both sides are done and want to go on."""
        self.call = None
        self._body = None
        self._interims = 0
        self.reused = True
        if self._keep and call.request_complete:
            self._pool.give(self, now)
        else:
            self._pool.lost(self)
            self.transport.abort()

    def _failed(self, call: "Call", detail: str) -> None:
        self.abandon()
        call.attempt_failed(Failure.PROTOCOL, detail, self)

    def _switch(self, call: "Call", response: ResponseHead, rest: bytes) -> None:
        if not headers.is_asked_for(response.upgrade, call.head):
            self._failed(call, "the upstream switched to a protocol that was not asked for")
            return
        self.call = None
        self.peer = call.client
        self.deadline = self._clock() + TUNNEL_IDLE
        call.switched(response, rest, self)
