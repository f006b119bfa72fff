"""One request on its way through: its body up, its answer down, whatever is tried in between.

A call knows what was sent and what was answered, so that nothing is sent twice that may not be,
and a client sees one answer or a broken one, never two.
"""

from typing import TYPE_CHECKING, Final

from resolver_gateway import bodies, headers
from resolver_gateway.fields import Line
from resolver_gateway.request import RequestHead
from resolver_gateway.response import ResponseHead
from resolver_gateway.retry import IDEMPOTENT, Failure

if TYPE_CHECKING:
    from resolver_gateway.balancer import Upstream
    from resolver_gateway.downstream import Downstream
    from resolver_gateway.gate import Gate
    from resolver_gateway.handler import Handler
    from resolver_gateway.retry import Standing
    from resolver_gateway.routing import Named
    from resolver_gateway.srv import Resolution
    from resolver_gateway.upstream import UpstreamConnection

MAX_REPLAY: Final = 64 * 1024
"""Octets of a body kept to be sent again; a request with more is not repeated once it began."""

HOLD: Final = 64 * 1024
"""Octets of a body that wait for a connection before the client is no longer read from."""

WORTH_A_VECTOR: Final = 4096
"""Octets from which on two pieces are handed to the kernel as two, instead of being copied."""


class Call:
    """A request of *client*; the handler decides, the call carries out and keeps the record."""

    # Where most calls begin; class attributes, so that a call that stays there pays nothing.
    named: "Named | None" = None
    """The service it is for, with its rule; None for pages and refusals of our own."""
    target = b""
    how = ""
    """How its service was resolved: `hit`, `stale`, `miss`, `fallback`."""
    resolution: "Resolution | None" = None
    standing: "Standing | None" = None
    """The breaker and budget of the name that was resolved."""
    left: "tuple[tuple[Named, int], ...]" = ()
    """Versions that may still be drawn, where several share the requests."""
    gate: "Gate[Call] | None" = None
    """Where it counts as under way, or waits, when its service has a limit."""
    loads = ""
    """The key of the upstream that it counts for, where requests under way are counted."""
    patience = 0.0
    """Seconds an upstream has for the beginning of its answer; 0: as long as for any silence."""
    sent_at = 0.0
    """When the last attempt went out; kept only for `Server-Timing`."""
    spent: "dict[str, float] | None" = None
    """Seconds that went by before an upstream had it, by what for."""
    upstream: "Upstream | None" = None
    connection: "UpstreamConnection | None" = None
    """Whose answer it waits for; None before, and once that is whole."""
    attempts = 0
    tried: frozenset[str] = frozenset()
    """The keys of upstreams that failed it."""
    fresh_only = False
    """A kept-alive connection turned out to be closed: the next one must be new."""
    request_complete = False
    replayable = True
    """Whether all that was sent of the request is still at hand."""
    answering = False
    """Whether anything of an answer was sent to the client."""
    informed = False
    """Whether an interim answer was."""
    over = False
    status = 0
    _pieces: list[bytes] | None = None
    _held = 0
    _was_held = False
    _chunk = False
    _keep = False

    def __init__(
        self, handler: "Handler", client: "Downstream", head: RequestHead, now: float
    ) -> None:
        self._handler = handler
        self.client = client
        self.head = head
        self.began = now
        self.request_id = head.request_id or handler.new_request_id()

    def __repr__(self) -> str:
        state = "answering" if self.answering else "waiting"
        return f"<Call {self.named or '-'} {state}, {self.attempts} attempts>"

    def spend(self, what: str, seconds: float) -> None:
        """*seconds* went by for *what* before an upstream had it: `queue`, `dns`, `connect`."""
        if self.spent is None:
            self.spent = {}
        self.spent[what] = self.spent.get(what, 0.0) + seconds

    # --- the request, from client to upstream

    def request_part(self, data: bytes) -> None:
        """Some octets of the body."""
        self._pass_on(bodies.chunk(data) if self.head.chunked else data)

    def request_end(self, trailers: tuple[Line, ...]) -> None:
        """The body is complete."""
        self.request_complete = True
        if self.head.chunked:
            self._pass_on(bodies.last_chunk(headers.trailers_that_pass(trailers)))

    def _pass_on(self, piece: bytes) -> None:
        if self.over:
            return
        self._held += len(piece)
        if self.replayable:
            if self._pieces is None:
                self._pieces = []
            self._pieces.append(piece)
        if self.connection is not None:
            if self._held > MAX_REPLAY:
                self._forget_pieces()
            self.connection.write(piece)
        elif self._held > HOLD:
            self._was_held = True
            self.client.hold()

    def _forget_pieces(self) -> None:
        self._pieces = None
        self.replayable = False

    def send(self, connection: "UpstreamConnection", head: bytes, now: float) -> None:
        """Hop 6: the request goes out on *connection*."""
        self.connection = connection
        pieces = self._pieces
        if pieces is None:
            connection.send(self, head, now)
            return
        if self._held > MAX_REPLAY or self.head.method not in IDEMPOTENT:
            self._forget_pieces()
        connection.send_with(self, [head, *pieces], now)
        if self._was_held:
            self._was_held = False
            self.client.go_on()

    # --- the answer, from upstream to client

    def without_body(self, status: int) -> bool:
        """Whether an answer of *status* to this request has no body (RFC 9112, section 6.3)."""
        return self.head.method == b"HEAD" or status in (204, 304)

    def interim(self, response: ResponseHead) -> None:
        """An interim answer; HTTP/1.0 has none."""
        if self.head.minor:
            self.informed = True
            self.client.write(headers.interim_head(response))

    def answer_whole(self, response: ResponseHead, body: bytes, now: float) -> None:
        """The whole answer at once, its length known."""
        head = self._answer_head(response, framed=True)
        if len(body) < WORTH_A_VECTOR:
            self.client.write(head + body if body else head)
        else:
            self.client.write_all((head, body))
        self._end(now)

    def answer_whole_chunked(
        self, response: ResponseHead, body: bytes, trailers: list[bytes], now: float
    ) -> None:
        """The whole answer at once, which came in chunks."""
        pieces = [self._answer_head(response, framed=False)]
        if body:
            pieces.append(bodies.chunk(body) if self._chunk else body)
        if self._chunk:
            pieces.append(bodies.last_chunk(self._passing(trailers)))
        self.client.write(b"".join(pieces))
        self._end(now)

    def answer(self, response: ResponseHead, data: bytes) -> None:
        """The head of an answer, and the first octets of its body."""
        head = self._answer_head(response, framed=response.length is not None)
        if data:
            self.client.write_all((head, bodies.chunk(data) if self._chunk else data))
        else:
            self.client.write(head)

    def answer_part(self, data: bytes) -> None:
        self.client.write(bodies.chunk(data) if self._chunk else data)

    def answer_end(self, data: bytes, trailers: list[bytes], now: float) -> None:
        """The last octets of an answer's body."""
        if self._chunk:
            last = bodies.last_chunk(self._passing(trailers))
            self.client.write(bodies.chunk(data) + last if data else last)
        elif data:
            self.client.write(data)
        self._end(now)

    def _passing(self, trailers: list[bytes]) -> list[bytes]:
        return trailers if self.head.takes_trailers else []

    def _answer_head(self, response: ResponseHead, *, framed: bool) -> bytes:
        request = self.head
        self.answering = True
        self.status = response.status
        self._chunk = not framed and request.minor == 1
        self._keep = (
            request.keep_alive
            and self.request_complete
            and (framed or self._chunk)
            and self.client.may_keep()
        )
        if self._keep and framed and request.minor:
            head = response.framed
        else:
            head = headers.response_head(response, request, keep=self._keep, chunk=self._chunk)
        return self._handler.timed(self, head) if self._handler.server_timing else head

    def probe(self) -> None:
        """Send what a client that is there takes for nothing, and one that left resets.

        Before an answer that is an interim one (RFC 9110, 15.2: every HTTP/1.1 client must take
        it); within a chunked one the zero that may stand before the next chunk's size.
        """
        if not self.answering and self.head.minor:
            self.client.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        elif self.answering and self._chunk:
            self.client.write(b"0")

    def switched(
        self, response: ResponseHead, data: bytes, connection: "UpstreamConnection"
    ) -> None:
        """The 101 that was asked for: the connections are spliced, the call is over."""
        self.status = response.status
        self.over = True
        self.connection = None
        self.client.write(headers.switching_head(response) + data)
        self._handler.finished(self, "", self._handler.clock())
        self.client.open_tunnel(connection)

    def _end(self, now: float) -> None:
        self.over = True
        self._handler.finished(self, "", now)
        self.client.finished(keep=self._keep, now=now)

    # --- what can go wrong

    def attempt_failed(
        self, failure: Failure, detail: str, connection: "UpstreamConnection"
    ) -> None:
        """*connection* will not answer: another one may, or the client is told."""
        self.connection = None
        if self.answering:
            self.over = True
            self._handler.broken(self, failure)
            self.client.cut()
            return
        self._handler.attempt_failed(self, failure, detail, reused=connection.reused)

    def refuse(
        self,
        status: int,
        cause: str,
        detail: str,
        retry_after: float | None = None,
        **further: object,
    ) -> None:
        """The gateway's own answer: a problem; the connection is cut if another answer began."""
        self.over = True
        self._abandon()
        self.status = status
        now = self._handler.clock()
        if self.answering:
            self.status = 0
            self._handler.finished(self, cause, now)
            self.client.cut()
            return
        keep = self._may_keep_after_ours()
        self.client.write(
            self._handler.problem(self, status, cause, detail, keep, retry_after, further)
        )
        self._handler.finished(self, cause, now)
        self.client.finished(keep=keep, now=now)

    def reply(self, status: int, content: bytes) -> None:
        """The gateway's own page, in JSON."""
        self.over = True
        self.status = status
        keep = self._may_keep_after_ours()
        self.client.write(self._handler.page(self, status, content, keep))
        now = self._handler.clock()
        self._handler.finished(self, "", now)
        self.client.finished(keep=keep, now=now)

    def _may_keep_after_ours(self) -> bool:
        head = self.head
        return bool(
            head.keep_alive and head.minor and self.request_complete and self.client.may_keep()
        )

    def client_gone(self) -> None:
        """The client left: so do we."""
        self.over = True
        self.status = 0
        self._abandon()
        self._handler.finished(self, "client-gone", self._handler.clock())

    def _abandon(self) -> None:
        if self.connection is not None:
            self.connection.abandon()
            self.connection = None
