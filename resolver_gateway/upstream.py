"""One connection to an upstream: a request goes out, its answer comes in, never anyone else's.

An answer is read strictly.  Bytes that nobody asked for, or that follow an answer, end the
connection, so that no call ever sees what belongs to another.
"""

import asyncio
import select
from collections.abc import Callable, Sequence
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
    from resolver_gateway.pool import Pool

MAX_INTERIM: Final = 8
"""Interim answers (1xx) that pass before the final one; more is an upstream that never answers."""

HIGH_WATER: Final = 128 * 1024
"""Octets of a request that an upstream has not taken, before its client is no longer read from."""

READ: Final = 80 * 1024
"""Octets read at once: an answer of 64 KiB with its head; and the most that a client who reads
nothing is held for, beside its own high water.  (uvloop alone would read 250 KiB.)"""

_read_buffer: Final = memoryview(bytearray(READ))
"""Shared: between asking for it and being told what is in it, a loop does nothing else."""

_MORE_THAN_AN_ANSWER: Final = "the upstream sent more than its answer"


class UpstreamConnection(asyncio.BufferedProtocol):
    """A connection to *upstream*; owned by the pool while idle, by a call while it works."""

    __slots__ = (
        "_body",
        "_buffer",
        "_clock",
        "_interims",
        "_keep",
        "_parser",
        "_paused",
        "_poll",
        "_pool",
        "_timeout",
        "call",
        "deadline",
        "idle_seconds",
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
        self.deadline = inf
        self.reused = False
        """Whether it has carried an answer before: then it may have been closed just now."""
        self.idle_seconds: float | None = None
        self.transport: asyncio.Transport
        self._pool = pool
        self._parser = parser
        self._clock = clock
        self._timeout = timeout
        self._poll = select.poll()
        self._buffer = b""
        self._body: Body | None = None
        self._interims = 0
        self._keep = False
        self._paused = False

    def __repr__(self) -> str:
        state = "idle" if self.call is None else "working"
        return f"<UpstreamConnection {self.upstream.where} {state}>"

    # --- towards the upstream

    def is_stale(self) -> bool:
        """Whether it was closed, or sent what nobody asked for, and the loop has not told yet.

        What comes before a request was sent cannot be its answer.
        """
        return self.transport.is_closing() or bool(self._poll.poll(0))

    def send(self, call: "Call", head: bytes, now: float) -> None:
        """Begin an exchange whose request is *head* so far."""
        self.call = call
        self.deadline = now + (call.patience or self._timeout)
        self.transport.write(head)

    def send_with(self, call: "Call", pieces: Sequence[bytes], now: float) -> None:
        """Begin an exchange: *pieces* are the head and what there is of the body."""
        self.call = call
        self.deadline = now + (call.patience or self._timeout)
        self.transport.writelines(pieces)

    def write(self, data: bytes) -> None:
        """More of the request's body."""
        patience = self.call.patience if self.call is not None else 0.0
        self.deadline = self._clock() + (patience or self._timeout)
        self.transport.write(data)

    def pause(self) -> None:
        """The client does not read: stop reading, and stop the clock."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()
            self.deadline = inf

    def resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
            self.deadline = self._clock() + self._timeout

    def abandon(self) -> None:
        """The call is over before its answer: the connection cannot be used again."""
        self.call = None
        self.transport.abort()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self)
        call = self.call
        if call is None:
            return
        self.call = None
        if isinstance(self._body, EndlessBody) and exc is None:
            call.connection = None
            call.answer_end(b"", [], self._clock())
            return
        call.attempt_failed(Failure.CLOSED, "the upstream closed the connection", self)

    def pause_writing(self) -> None:
        if self.call is not None:
            self.call.client.hold()

    def resume_writing(self) -> None:
        if self.call is not None:
            self.call.client.go_on()

    def timed_out(self) -> None:
        """The deadline passed: an idle connection is closed, a working one has failed."""
        call = self.call
        if call is None:
            self.transport.close()
            return
        self.abandon()
        call.attempt_failed(Failure.TIMEOUT, "the upstream did not answer in time", self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_read_buffer[:nbytes])
        call = self.call
        if call is None:
            self._pool.lost(self)  # unsolicited: whose answer would it be?
            self.transport.abort()
        elif self._body is None:
            self._read_head(call, data)
        else:
            self._read_body(call, self._body, data)

    # --- the answer, head first

    def _read_head(self, call: "Call", data: bytes) -> None:
        scanned = len(self._buffer)
        if scanned:
            data, self._buffer = self._buffer + data, b""
        end = data.find(b"\r\n\r\n", max(0, scanned - 3)) + 4
        if end < 4 or end > MAX_HEAD:
            self._incomplete_head(call, data, scanned)
            return
        response = self._parser.parse(data[:end])
        if isinstance(response, Refusal):
            self._failed(call, response.detail)
        elif response.status >= 200:
            self._begin(call, response, data[end:])
        elif response.status == 101:
            self._switch(call, response, data[end:])
        else:
            self._interim(call, response, data[end:])

    def _interim(self, call: "Call", response: ResponseHead, rest: bytes) -> None:
        """An interim answer passes; then comes another head."""
        self._interims += 1
        if self._interims > MAX_INTERIM:
            self._failed(call, f"the upstream sent more than {MAX_INTERIM} interim answers")
            return
        self.deadline = self._clock() + self._timeout
        call.interim(response)
        if rest:
            self._read_head(call, rest)

    def _incomplete_head(self, call: "Call", data: bytes, scanned: int) -> None:
        if len(data) > MAX_HEAD:
            self._failed(call, "the head of the upstream's answer is too long")
        elif BROKEN.search(data, max(0, scanned - 1)):
            self._failed(call, "the upstream's answer is not HTTP: a CR or LF stands alone")
        else:
            self._buffer = data

    def _begin(self, call: "Call", response: ResponseHead, rest: bytes) -> None:
        """The final head is here: what is its body, and how much of that came with it?"""
        self._keep = response.keep_alive
        self.idle_seconds = response.idle_seconds
        length = response.length
        if call.without_body(response.status):
            length = 0
        if length is not None:
            if len(rest) == length:
                now = self._clock()
                self._release(call, now)
                call.answer_whole(response, rest, now)
            elif len(rest) > length:
                self._failed(call, _MORE_THAN_AN_ANSWER)
            else:
                self._body = LengthBody(length - len(rest))
                self._go_on(call, response, rest)
        elif response.chunked:
            self._begin_chunked(call, response, rest)
        else:
            self._keep = False
            self._body = EndlessBody()
            self._go_on(call, response, rest)

    def _begin_chunked(self, call: "Call", response: ResponseHead, rest: bytes) -> None:
        body = ChunkedBody()
        part = body.feed(rest)
        if part.problem:
            self._failed(call, part.problem)
        elif not part.done:
            self._body = body
            self._go_on(call, response, part.data)
        elif part.rest:
            self._failed(call, _MORE_THAN_AN_ANSWER)
        else:
            now = self._clock()
            self._release(call, now)
            trailers = headers.trailers_that_pass(body.trailers)
            call.answer_whole_chunked(response, part.data, trailers, now)

    def _go_on(self, call: "Call", response: ResponseHead, data: bytes) -> None:
        """An answer begins whose body is still to come."""
        self.deadline = self._clock() + self._timeout
        call.answer(response, data)

    def _read_body(self, call: "Call", body: Body, data: bytes) -> None:
        part = body.feed(data)
        if part.problem:
            self._failed(call, part.problem)
        elif part.done:
            if part.rest:
                self._keep = False  # the client has its answer, and nothing of that is in it
            now = self._clock()
            self._release(call, now)
            call.answer_end(part.data, headers.trailers_that_pass(body.trailers), now)
        elif part.data:
            self.deadline = self._clock() + self._timeout
            call.answer_part(part.data)

    def _release(self, call: "Call", now: float) -> None:
        """The answer is whole: back to the pool, if both sides are done and want to go on.

        Before the client is written to, whose not reading must hold nobody else.
        """
        call.connection = None
        self.call = None
        self._body = None
        self._interims = 0
        self.reused = True
        self.resume()
        if self._keep and call.request_complete and not self._owes(call):
            self._pool.give(self, now)
        else:
            self._pool.lost(self)
            self.transport.abort()

    def _owes(self, call: "Call") -> bool:
        """Whether some of the request is still to be written: it answered without reading it."""
        return call.head.has_body and self.transport.get_write_buffer_size() > 0

    def _failed(self, call: "Call", detail: str) -> None:
        self.abandon()
        call.attempt_failed(Failure.PROTOCOL, detail, self)

    def _switch(self, call: "Call", response: ResponseHead, rest: bytes) -> None:
        if not headers.is_asked_for(response.upgrade, call.head):
            self._failed(call, "the upstream switched to a protocol that was not asked for")
            return
        self.call = None
        self.deadline = inf
        call.switched(response, rest, self)
