"""The authoritative server, without sockets: one packet in, at most one out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from dnsd import query, tsig
from dnsd.compiler import CompiledAnswer, Rng, draw_order, draw_orders
from dnsd.cookies import CLIENT, Cookies, Verdict
from dnsd.keyring import Key
from dnsd.query import Edns, Query, Reject, Signed, limit_of, parse_query
from dnsd.served import ServedZone
from dnsd.table import AnswerTable
from dnsd.transfer import Denied, Single, Transfer, Transfers
from dnsd.tsig import Chain, Refusal, Signatures
from dnsd.wire import (
    NOT_AUTHORITATIVE,
    NOT_READY,
    PROHIBITED,
    STALE_ANSWER,
    STALE_NXDOMAIN,
    Message,
    assemble,
    identity,
    option,
    refuse,
    servfail,
    truncated,
)
from dnsd.zone import EXPIRE

MAX_ORDERS = 8
"""Orders of one answer that are kept: enough to spread load, few enough to keep in memory."""

ORDERS_BYTES = 4096
"""Octets of the orders of one answer together; of large answers fewer are kept."""


AMPLIFICATION = 10
"""By how many times the octets of its question an answer to a stranger may exceed it over UDP:
his address may be forged, and the answer hit somebody else."""

KEEPALIVE_UNIT = 0.1
"""Seconds (RFC 7828, section 3.1)."""

IDENTITIES = frozenset({b"\x02id\x06server\0", b"\x08hostname\x04bind\0"})
"""Names in class CHAOS that ask who answers (RFC 4892)."""


class Peer(NamedTuple):
    """Who asks: the address as 4 or 16 octets, over TCP or not, in a trusted network or not.

    `key` is the one that the query is signed with, and the reply will be.  `idle` are the
    seconds that its connection may be idle, 0 when it should be ended.
    """

    address: bytes
    tcp: bool = False
    trusted: bool = True
    key: Key | None = None
    idle: float = 10.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How the same request may be answered again without asking.

    `first` is the reply that was just made; `further` makes those of the answer's other orders,
    at most `more`, when they are taken.  All belong to the generation `group`.
    """

    group: str
    first: Message
    more: int
    further: Iterator[Message]


class Reply(NamedTuple):
    """What to send, None for nothing, and what to count it as.

    `dropped` says why nothing is sent; `error` is what went wrong within; `keep` is there
    where the reply may be remembered.  `transfer` makes the messages of one that takes several;
    `tsig` names the fault of a signature that was not good.  `plain`: the request was, so that
    to another case of its name the same octets are the answer.  `cookie` is the verdict on
    the asker's.
    """

    packet: bytes | None
    qtype: int = 0
    rcode: int = 0
    truncated: bool = False
    dropped: str = ""
    keep: Keep | None = None
    error: Exception | None = None
    transfer: Transfer | None = None
    tsig: str = ""
    plain: bool = False
    cookie: Verdict | None = None


AskedT = TypeVar("AskedT", Query, Reject)


class Responder:
    """Answers from *table*; orders of records come from *rng*.

    Without *transfers* nobody gets one; without *signatures* no key is known; without *cookies*
    they are ignored.  *name* is what it calls itself to those who ask (empty: nothing).
    """

    def __init__(
        self,
        table: AnswerTable,
        rng: Rng,
        *,
        transfers: Transfers | None = None,
        signatures: Signatures | None = None,
        cookies: Cookies | None = None,
        name: bytes = b"",
    ) -> None:
        self.table = table
        self._rng = rng
        self._transfers = transfers
        self._signatures = signatures or Signatures()
        self._cookies = cookies
        self._name = name

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
            match parsed:
                case Query():
                    if parsed.edns is None or not (parsed.edns.options or peer.tcp):
                        return self._answer(parsed, peer, packet)
                    return self._with_options(parsed, peer, packet)
                case Reject():
                    return self._rejected(parsed, peer)
                case Signed():
                    return self._signed(parsed, packet, peer, now)
            return Reply(None, dropped=parsed.reason)
        except Exception as error:  # one bad packet must not end the server (S7)
            return self._failed(packet, error)

    def _failed(self, packet: bytes, error: Exception) -> Reply:
        try:
            asked = parse_query(packet)
        except Exception:  # the parser itself failed: the bare header will do
            return Reply(servfail(packet), rcode=query.SERVFAIL, error=error)
        if isinstance(asked, Query):
            return _coded(asked, query.SERVFAIL)._replace(error=error, plain=False)
        return Reply(servfail(packet), rcode=query.SERVFAIL, error=error)

    def _with_options(self, asked: Query, peer: Peer, packet: bytes) -> Reply:
        """The reply to a query that has options, or may be given some."""
        asked, verdict = self._greeted(asked, peer)
        if verdict is None:
            return self._answer(asked, peer, packet)
        if verdict.valid and not peer.trusted:
            peer = peer._replace(trusted=True)  # it has shown that it is where it says
        return self._answer(asked, peer, packet)._replace(cookie=verdict)

    def _rejected(self, asked: Reject, peer: Peer) -> Reply:
        asked, verdict = self._greeted(asked, peer)
        if asked.rcode == query.NOERROR and verdict is not None:
            # RFC 7873, section 5.4: it asks whether its cookie is good.
            _, cookie = query.cookie_in(asked.edns.options if asked.edns else b"")
            is_new = cookie is not None and len(cookie) == CLIENT
            if not verdict.valid and not is_new and not peer.tcp:
                asked = asked._replace(rcode=query.BADCOOKIE)
        return _refused(asked)._replace(cookie=verdict)

    def _greeted(self, asked: AskedT, peer: Peer) -> tuple[AskedT, Verdict | None]:
        """*asked* with the options that any reply to it has, and the verdict on its cookie."""
        edns = asked.edns
        if edns is None or edns.version:
            return asked, None
        whole, cookie = query.cookie_in(edns.options)
        if not whole or (cookie is not None and len(cookie) not in query.COOKIE_LENGTHS):
            return asked, None
        codes = {code for code, _ in query.options_in(edns)}
        options, verdict = b"", None
        if query.NSID in codes and self._name:
            options += option(query.NSID, self._name)  # RFC 5001, section 2.1
        if peer.tcp and (query.KEEPALIVE in codes or peer.idle == 0):
            # RFC 7828, section 3.3.2: whoever should leave is told unasked.
            units = round(peer.idle / KEEPALIVE_UNIT)
            options += option(query.KEEPALIVE, units.to_bytes(2, "big"))
        if cookie is not None and self._cookies is not None:
            verdict = self._cookies.judge(cookie, peer.address)
            options += verdict.option
        return asked._replace(edns=edns._replace(reply=options)), verdict

    def _signed(self, parsed: Signed, packet: bytes, peer: Peer, now: float) -> Reply:
        """The reply to a signed query: that to the same without signature, and signed."""
        asked, _ = self._greeted(parsed.unverified, peer)
        once = peer.tcp and _qtype_of(asked) in _TRANSFERS
        verdict = self._signatures.judge(packet, parsed.tsig_at, once=once)
        if isinstance(verdict, Refusal):
            return self._unverified(asked, verdict)
        reply = self.answer(verdict.packet, peer._replace(key=verdict.key), now)
        reply = reply._replace(keep=None, plain=False)
        chain, clock = Chain(verdict), self._signatures.clock
        if reply.transfer is not None:
            reply.transfer.sign_with(lambda message: chain.sign(message, clock()))
        if reply.packet is None:
            return reply
        signed = chain.sign(reply.packet, clock())
        if reply.truncated or len(signed) > limit_of(asked.edns, tcp=peer.tcp):
            # RFC 8945, section 5.3: the question, OPT and TSIG alone.
            bare = truncated(reply.packet, asked)
            signed, reply = Chain(verdict).sign(bare, clock()), reply._replace(truncated=True)
        return reply._replace(packet=signed)

    def _unverified(self, reject: Reject, refusal: Refusal) -> Reply:
        rcode = query.NOTAUTH if refusal.error else query.FORMERR
        reply = _refused(reject._replace(rcode=rcode))
        assert reply.packet is not None
        packet = self._signatures.refused(reply.packet, refusal)
        return reply._replace(packet=packet, tsig=tsig.NAMES[refusal.error])

    def _answer(self, asked: Query, peer: Peer, packet: bytes) -> Reply:
        # 9. One class: all others belong to somebody else.
        if asked.qclass != query.IN:
            return self._of_other_class(asked)
        speaking = asked  # for our zone, that is
        if asked.edns is not None and asked.edns.options:
            options = self._options(asked)
            if options is None:
                return _coded(asked, query.FORMERR)
            if options:
                edns = asked.edns._replace(reply=options + asked.edns.reply)
                speaking = asked._replace(edns=edns)
        limit = limit_of(asked.edns, tcp=peer.tcp)
        if not (peer.trusted or peer.tcp):
            limit = min(limit, AMPLIFICATION * len(packet))
        answer = self.table.known(asked)
        if answer is not None:
            return self._assembled(speaking, answer, peer, limit)
        # 10. Not ours.  REFUSED lets the next server of a resolver's list have its chance.
        served = self.table.zone_of(asked)
        transfer = asked.qtype in _TRANSFERS
        if served is None:
            if transfer:
                return _coded(asked, query.NOTAUTH)
            return _coded(asked, query.REFUSED, NOT_AUTHORITATIVE)
        # 11. NXDOMAIN would be believed; SERVFAIL leaves what the resolver knew (RFC 8767).
        if self.table.state == "loading":
            return _coded(asked, query.SERVFAIL, NOT_READY)
        # 12. Transfers.
        if transfer:
            return self._transfer(asked, speaking, served, peer, packet)
        # 13. and 14.
        answer = self.table.lookup(served, asked)
        if answer.rcode == query.SERVFAIL:
            return _coded(asked, query.SERVFAIL)
        return self._assembled(speaking, answer, peer, limit)

    def _of_other_class(self, asked: Query) -> Reply:
        if not (
            self._name
            and asked.qclass == query.CH
            and asked.qtype in (query.TXT, query.ANY)
            and asked.key in IDENTITIES
        ):
            return _coded(asked, query.REFUSED)
        return Reply(identity(asked, self._name), asked.qtype, query.NOERROR)

    def _options(self, asked: Query) -> bytes | None:
        """The options of a reply that speaks for a zone of ours; None where they were asked
        for in a form that is not allowed."""
        found = query.options_in(asked.edns)
        versions = [data for code, data in found if code == query.ZONEVERSION]
        if versions not in ([], [b""]):
            return None  # RFC 9660, section 3.2.1
        served = self.table.zone_of(asked)
        if served is None or self.table.state == "loading":
            return b""
        options = b""
        if versions:
            # RFC 9660, section 2.1: labels of the zone without the root, type 0 a serial.
            options += option(query.ZONEVERSION, bytes((served.labels - 1, 0)) + self.table.serial)
        at_apex = len(asked.labels) == served.labels and asked.qtype in _WITH_EXPIRE
        if at_apex and any(code == query.EXPIRE for code, _ in found):
            # RFC 7314, section 3.1: a primary always has all of it left.
            options += option(query.EXPIRE, EXPIRE.to_bytes(4, "big"))
        return options

    def _transfer(
        self, asked: Query, speaking: Query, served: ServedZone, peer: Peer, packet: bytes
    ) -> Reply:
        if len(asked.labels) != served.labels:
            return _coded(asked, query.NOTAUTH)
        if asked.qtype == query.AXFR and not peer.tcp:
            return _coded(asked, query.NOTIMP)
        if self._transfers is None:
            return _coded(asked, query.REFUSED, PROHIBITED)
        outcome = self._transfers.answer(
            speaking, served, packet, key=peer.key, address=peer.address, tcp=peer.tcp
        )
        match outcome:
            case Denied(rcode, ede):
                return _coded(asked, rcode, ede)
            case Single(reply):
                return Reply(reply, asked.qtype, query.NOERROR)
            case _:
                return Reply(None, asked.qtype, query.NOERROR, transfer=outcome)

    def _assembled(self, asked: Query, answer: CompiledAnswer, peer: Peer, limit: int) -> Reply:
        if peer.key is not None:
            limit -= peer.key.tsig_size
        ede = None if self.table.state != "stale" else _staleness(answer)
        if answer.group is None and answer.soa is not None:  # random names: in as few steps
            message = assemble(asked, answer, (), limit, ede)
            packet = b"".join((asked.id, message.head, self.table.serial, message.tail))
            plain = asked.plain and not peer.tcp
            return Reply(packet, asked.qtype, answer.rcode, plain=plain)
        if not asked.plain or answer.group is None or peer.tcp:
            order = draw_order(answer, self._rng) if len(answer.records) > 1 else _in_order(answer)
            message, keep = assemble(asked, answer, order, limit, ede), None
        else:
            message, keep = self._kept(asked, answer, answer.group, limit, ede)
        packet = asked.id + message.after_id(self.table.serial)
        return Reply(
            packet,
            asked.qtype,
            answer.rcode,
            message.truncated,
            keep=keep,
            plain=asked.plain and not peer.tcp,
        )

    def _kept(
        self, asked: Query, answer: CompiledAnswer, group: str, limit: int, ede: int | None
    ) -> tuple[Message, Keep]:
        """A reply, and how to make its like: the further ones only when they are asked for."""
        if len(answer.records) < 2:
            message = assemble(asked, answer, _in_order(answer), limit, ede)
            return message, Keep(group, message, 0, iter(()))
        most = min(MAX_ORDERS, max(1, ORDERS_BYTES // min(limit, answer.size + answer.glue_size)))
        orders = draw_orders(answer, self._rng, most)
        messages = (assemble(asked, answer, order, limit, ede) for order in orders)
        message = next(messages)
        return message, Keep(group, message, most - 1, messages)


_TRANSFERS = (query.AXFR, query.IXFR)
_WITH_EXPIRE = (query.SOA, *_TRANSFERS)


def _in_order(answer: CompiledAnswer) -> range:
    return range(len(answer.records))


def _staleness(answer: CompiledAnswer) -> int:
    return STALE_NXDOMAIN if answer.is_negative else STALE_ANSWER


def _coded(asked: Query, rcode: int, ede: int | None = None) -> Reply:
    """A reply of *rcode* alone to a question that was read; it speaks for no zone."""
    reject = Reject(asked.id, 0, asked.rd, rcode, asked.question, asked.edns)
    return Reply(refuse(reject, ede), asked.qtype, rcode, plain=asked.plain)


def _refused(reject: Reject) -> Reply:
    return Reply(refuse(reject), _qtype_of(reject), reject.rcode)


def _qtype_of(reject: Reject) -> int:
    return reject.question[-4] << 8 | reject.question[-3] if reject.question else 0


__all__ = ["Edns", "Keep", "Peer", "Reply", "Responder"]
