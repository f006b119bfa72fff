"""The authoritative server, without sockets: one packet in, at most one out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from dnsd import query
from dnsd.compiler import CompiledAnswer, Rng, draw_order
from dnsd.query import Edns, Query, Reject, limit_of, parse_query
from dnsd.table import AnswerTable, ServedZone
from dnsd.wire import (
    NOT_AUTHORITATIVE,
    NOT_READY,
    PROHIBITED,
    STALE_ANSWER,
    STALE_NXDOMAIN,
    Message,
    assemble,
    refuse,
    servfail,
)

MAX_ORDERS = 8
"""Orders of one answer that are kept: enough to spread load, few enough to keep in memory."""

ORDERS_BYTES = 4096
"""Octets of the orders of one answer together; of large answers fewer are kept."""


class Peer(NamedTuple):
    """Who asks: the address as 4 or 16 octets, over TCP or not, in a trusted network or not."""

    address: bytes
    tcp: bool = False
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Keep:
    """How the same request may be answered again without asking.

    `first` is the reply that was just made; of an answer with several orders, `draw` makes
    `more` further ones.  All belong to the generation `group`.
    """

    group: str
    first: Message
    more: int
    draw: Callable[[], Message]


class Reply(NamedTuple):
    """What to send, None for nothing, and what to count it as.

    `dropped` says why nothing is sent; `error` is what went wrong within; `keep` is there
    where the reply may be remembered.
    """

    packet: bytes | None
    qtype: int = 0
    rcode: int = 0
    truncated: bool = False
    dropped: str = ""
    keep: Keep | None = None
    error: Exception | None = None


class Responder:
    """Answers from *table*; orders of records come from *rng*."""

    def __init__(self, table: AnswerTable, rng: Rng) -> None:
        self.table = table
        self._rng = rng

    def respond(self, packet: bytes, peer: Peer, now: float) -> bytes | None:
        """The reply to *packet*, None for none.  Never raises, whatever the octets."""
        return self.answer(packet, peer, now).packet

    def answer(self, packet: bytes, peer: Peer, now: float) -> Reply:
        """The reply with what is to be known of it.

        An error within is answered SERVFAIL: silence would cost the asker seconds.
        *now* (monotonic seconds) is for what depends on time: rates and cookies.
        """
        try:
            parsed = parse_query(packet)
            if isinstance(parsed, Query):
                return self._answer(parsed, peer)
            return (
                _refused(parsed)
                if isinstance(parsed, Reject)
                else Reply(None, dropped=parsed.reason)
            )
        except Exception as error:  # one bad packet must not end the server (S7)
            return self._failed(packet, error)

    def _failed(self, packet: bytes, error: Exception) -> Reply:
        try:
            asked = parse_query(packet)
        except Exception:  # the parser itself failed: the bare header will do
            return Reply(servfail(packet), rcode=query.SERVFAIL, error=error)
        if isinstance(asked, Query):
            return _coded(asked, query.SERVFAIL)._replace(error=error)
        return Reply(servfail(packet), rcode=query.SERVFAIL, error=error)

    def _answer(self, asked: Query, peer: Peer) -> Reply:
        # 9. One class: all others belong to somebody else.
        if asked.qclass != query.IN:
            return _coded(asked, query.REFUSED)
        answer = self.table.known(asked)
        if answer is not None:
            return self._assembled(asked, answer, peer)
        # 10. Not ours.  REFUSED lets the next server of a resolver's list have its chance.
        served = self.table.zone_of(asked)
        transfer = asked.qtype in (query.AXFR, query.IXFR)
        if served is None:
            if transfer:
                return _coded(asked, query.NOTAUTH)
            return _coded(asked, query.REFUSED, NOT_AUTHORITATIVE)
        # 11. NXDOMAIN would be believed; SERVFAIL leaves what the resolver knew (RFC 8767).
        if self.table.state == "loading":
            return _coded(asked, query.SERVFAIL, NOT_READY)
        # 12. Transfers, to nobody.
        if transfer:
            return self._transfer(asked, served, peer)
        # 13. and 14.
        answer = self.table.lookup(served, asked)
        if answer.rcode == query.SERVFAIL:
            return _coded(asked, query.SERVFAIL)
        return self._assembled(asked, answer, peer)

    def _transfer(self, asked: Query, served: ServedZone, peer: Peer) -> Reply:
        if len(asked.labels) != served.labels:
            return _coded(asked, query.NOTAUTH)
        if asked.qtype == query.AXFR and not peer.tcp:
            return _coded(asked, query.NOTIMP)
        return _coded(asked, query.REFUSED, PROHIBITED)

    def _assembled(self, asked: Query, answer: CompiledAnswer, peer: Peer) -> Reply:
        limit = limit_of(asked.edns, tcp=peer.tcp)
        ede = None if self.table.state != "stale" else _staleness(answer)
        message = self._drawn(asked, answer, limit, ede)
        keep = None
        if asked.plain and answer.group is not None and not peer.tcp:
            orders = _orders_of(answer, len(message.head))
            keep = Keep(
                answer.group,
                message,
                orders - 1,
                lambda: self._drawn(asked, answer, limit, ede),
            )
        packet = asked.id + message.after_id(self.table.serial)
        return Reply(packet, asked.qtype, answer.rcode, message.truncated, keep=keep)

    def _drawn(self, asked: Query, answer: CompiledAnswer, limit: int, ede: int | None) -> Message:
        many = len(answer.records) > 1
        order = draw_order(answer, self._rng) if many else _AS_IT_IS[: len(answer.records)]
        return assemble(asked, answer, order, limit, ede)


def _staleness(answer: CompiledAnswer) -> int:
    return STALE_NXDOMAIN if answer.is_negative else STALE_ANSWER


_AS_IT_IS = [0]


def _orders_of(answer: CompiledAnswer, size: int) -> int:
    if len(answer.records) < 2:
        return 1
    return min(MAX_ORDERS, max(1, ORDERS_BYTES // size))


def _coded(asked: Query, rcode: int, ede: int | None = None) -> Reply:
    """A reply of *rcode* alone to a question that was read."""
    reject = Reject(asked.id, 0, asked.rd, rcode, asked.question, asked.edns)
    return Reply(refuse(reject, ede), asked.qtype, rcode)


def _refused(reject: Reject) -> Reply:
    qtype = reject.question[-4] << 8 | reject.question[-3] if reject.question else 0
    return Reply(refuse(reject), qtype, reject.rcode)


__all__ = ["Edns", "Keep", "Peer", "Reply", "Responder"]
