"""Answers one datagram: from memory also where only case or cookie are new, to strangers sparingly.

The packet loop asks here what it cannot answer by itself.
"""

from collections.abc import Iterator
from typing import NamedTuple

from dnsd.cookies import CLIENT, FULL, OPTION, Cookies, Verdict
from dnsd.limits import Limited, RateLimiter
from dnsd.memo import Memo
from dnsd.metrics import Counts
from dnsd.query import (
    BADCOOKIE,
    HEADER,
    MAX_UDP,
    MIN_UDP,
    NXDOMAIN,
    Query,
    Reject,
    parse_query,
)
from dnsd.responder import AMPLIFICATION, Peer, Reply, Responder
from dnsd.wire import refuse, truncated, with_cookie

_NOTHING: Iterator[bytes] = iter(())

_ID = 2
_QUESTION_ONLY = b"\0\1\0\0\0\0\0\0"
_QUESTION_AND_OPT = b"\0\1\0\0\0\0\0\1"
_OPT_BEGINS = b"\0\0\x29"
_NO_OPTIONS = b"\0\0"
_NEW_COOKIE = b"\0\x0c\0\x0a\0\x08"
_FULL_COOKIE = b"\0\x1c\0\x0a\0\x18"
"""RDLEN of an OPT whose one option is a cookie, the option's code and length."""


class Respelled(NamedTuple):
    """A request (after its ID) as it is remembered: its name in lower case, without its cookie.

    `name_end` is where the name ends in both; `cookie` is empty where there is none.
    """

    request: bytes
    name_end: int
    cookie: bytes


def respell(request: bytes) -> Respelled | None:
    """The form of *request* in which a remembered one may be the same; None when it has none.

    Where the form is that of a plain request, *request* is one too, but for case and cookie:
    lower case makes no octet a length that was none, and the rest is compared octet for octet.
    """
    counts = request[2:10]
    cookie = b""
    if counts == _QUESTION_ONLY:
        bare, name_end = request, len(request) - 4
    elif counts == _QUESTION_AND_OPT:
        if request[-2:] == _NO_OPTIONS and request[-11:-8] == _OPT_BEGINS:
            bare = request
        elif request[-14:-8] == _NEW_COOKIE:
            bare, cookie = request[:-14] + _NO_OPTIONS, request[-CLIENT:]
        elif request[-30:-24] == _FULL_COOKIE:
            bare, cookie = request[:-30] + _NO_OPTIONS, request[-FULL:]
        else:
            return None
        name_end = len(bare) - 15
    else:
        return None
    if name_end <= 10:
        return None
    return Respelled(bare[:10] + bare[10:name_end].lower() + bare[name_end:], name_end, cookie)


class Front:
    """Answers from *memo*, else from *responder*, whose cookies are *cookies*.

    Without *limiter* strangers may ask as often as they like.
    """

    def __init__(
        self,
        responder: Responder,
        memo: Memo,
        counts: Counts,
        *,
        cookies: Cookies | None = None,
        limiter: RateLimiter | None = None,
    ) -> None:
        self._responder = responder
        self._memo = memo
        self._counts = counts
        self._cookies = cookies
        self._limiter = limiter

    def answer(self, packet: bytes, peer: Peer, now: float) -> bytes | None:
        """The reply to *packet*, None for none.  Never raises, whatever the octets."""
        memo = self._memo.trusted if peer.trusted else self._memo.strangers
        body = next(memo.get(packet[_ID:], _NOTHING), None)
        if body is None:
            return self.missed(packet, peer, now)
        reply = packet[:_ID] + body
        return reply if peer.trusted else self._sparingly(packet, reply, peer, None, now)

    def missed(self, packet: bytes, peer: Peer, now: float) -> bytes | None:
        """The same for a *packet* that is known not to be remembered as it stands."""
        request = packet[_ID:]
        found = respell(request)
        if found is None or (not found.cookie and found.request == request):
            return self._asked(packet, peer, now)
        verdict = None
        if found.cookie:
            if self._cookies is None:
                return self._asked(packet, peer, now)
            verdict = self._cookies.judge(found.cookie, peer.address)
            if not (peer.trusted or verdict.valid):
                return self._asked(packet, peer, now)
        trusted = peer.trusted or verdict is not None
        body = self._plainly(packet, found.request, peer._replace(trusted=trusted), now)
        if body is None:
            return self._asked(packet, peer, now)
        reply = _spelled(packet, body, found, verdict)
        if reply is None:  # no room left for a cookie: the responder knows what to leave out
            return self._responder.answer(packet, peer, now).packet
        return reply if trusted else self._sparingly(packet, reply, peer, None, now)

    def _plainly(self, packet: bytes, request: bytes, peer: Peer, now: float) -> bytes | None:
        """The reply, after its ID, to *request*, if that is a plain one."""
        memo = self._memo.trusted if peer.trusted else self._memo.strangers
        body = next(memo.get(request, _NOTHING), None)
        if body is not None:
            return body
        reply = self._responder.answer(packet[:_ID] + request, peer, now)
        if not reply.plain or reply.packet is None:
            return None
        self._note(reply, request, trusted=peer.trusted)
        return reply.packet[_ID:]

    def _asked(self, packet: bytes, peer: Peer, now: float) -> bytes | None:
        """What the responder says."""
        reply = self._responder.answer(packet, peer, now)
        self._note(reply, packet[_ID:], trusted=peer.trusted)
        if reply.packet is None or peer.trusted or (reply.cookie and reply.cookie.valid):
            return reply.packet
        return self._sparingly(packet, reply.packet, peer, reply.cookie, now)

    def _note(self, reply: Reply, request: bytes, *, trusted: bool) -> None:
        self._counts.note(reply, tcp=False)
        if reply.keep is not None:
            self._memo.keep(request, trusted, reply, reply.keep)

    def _sparingly(
        self, packet: bytes, reply: bytes, peer: Peer, cookie: Verdict | None, now: float
    ) -> bytes | None:
        """*reply*, or what a stranger gets in its place, whose address may be forged."""
        if self._limiter is not None:
            fate = self._limiter.judge(peer.address, kind_of(reply), now)
            if fate is not Limited.SENT:
                return self._limited(packet, reply, cookie, fate)
        if len(reply) > AMPLIFICATION * len(packet):
            self._counts.limited["capped"] += 1
            return _come_by_tcp(packet, reply, cookie)
        return reply

    def _limited(
        self, packet: bytes, reply: bytes, cookie: Verdict | None, fate: Limited
    ) -> bytes | None:
        if fate is Limited.DROPPED:
            self._counts.limited["dropped"] += 1
            return None
        asked = parse_query(packet)
        if cookie is not None and isinstance(asked, Query) and asked.edns is not None:
            # RFC 7873, section 5.2.3: whoever knows cookies comes again with the right one.
            self._counts.limited["badcookie"] += 1
            edns = asked.edns._replace(reply=cookie.option)
            return refuse(Reject(asked.id, 0, asked.rd, BADCOOKIE, asked.question, edns))
        self._counts.limited["slipped"] += 1
        return _come_by_tcp(packet, reply, cookie)


def kind_of(reply: bytes) -> bytes:
    """What an answer is counted with: those to one name, the negative ones of a zone, errors."""
    rcode = reply[3] & 15
    if rcode not in (0, NXDOMAIN) or reply[4:6] != b"\0\1":
        return b"!"
    end = HEADER
    while reply[end]:
        end += reply[end] + 1
    name = reply[HEADER : end + 1].lower()
    if rcode == 0 and (reply[6:8] != b"\0\0" or reply[2] & 2):
        return b"+" + name
    # The SOA behind the question is owned by a pointer to the zone's name within it.
    owner = end + 5
    zone = (reply[owner] << 8 | reply[owner + 1]) & 0x3FFF
    return b"-" + name[zone - HEADER :]


def _spelled(packet: bytes, body: bytes, found: Respelled, verdict: Verdict | None) -> bytes | None:
    """*body* as the reply to *packet*: with its ID, the name as it spells it, and its cookie."""
    end = _ID + found.name_end
    reply = packet[:_ID] + body[: HEADER - _ID] + packet[HEADER:end] + body[end - _ID :]
    if verdict is None:
        return reply
    size = int.from_bytes(found.request[-8:-6], "big")
    if len(reply) + OPTION > min(max(size, MIN_UDP), MAX_UDP):
        return None
    return with_cookie(reply, verdict.option)


def _come_by_tcp(packet: bytes, reply: bytes, cookie: Verdict | None) -> bytes | None:
    asked = parse_query(packet)
    if not isinstance(asked, Query | Reject):
        return None
    if cookie is not None and asked.edns is not None:
        asked = asked._replace(edns=asked.edns._replace(reply=cookie.option))
    return truncated(reply, asked)
