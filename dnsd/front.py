"""Answers one datagram: from memory also where only case or cookie are new, to strangers sparingly.

The packet loop asks here what it cannot answer by itself.
"""

from collections.abc import Iterator

from dnsd.cookies import CLIENT, FULL, OPTION, VALID, Cookies, Verdict
from dnsd.limits import Limited, RateLimiter
from dnsd.memo import Memo
from dnsd.metrics import Counts
from dnsd.query import (
    BADCOOKIE,
    HEADER,
    MAX_UDP,
    MIN_UDP,
    NXDOMAIN,
    PLAIN_SIZES,
    Query,
    Reject,
    parse_query,
)
from dnsd.responder import AMPLIFICATION, Peer, Reply, Responder
from dnsd.wire import refuse, truncated, with_cookie

_NOTHING: Iterator[bytes] = iter(())

_ID = 2
_QUESTION_ONLY = b"\0\1\0\0\0\0\0\0"
_COUNTS = (_QUESTION_ONLY, b"\0\1\0\0\0\0\0\1")
_OPT_BEGINS = b"\0\0\x29"
_NO_OPTIONS = b"\0\0"
_PREFER = b"\x06prefer"
_NEW_COOKIE = b"\0\x0c\0\x0a\0\x08"
_FULL_COOKIE = b"\0\x1c\0\x0a\0\x18"
"""RDLEN of an OPT whose one option is a cookie, the option's code and length."""


def respell(request: bytes) -> tuple[bytes, int, bytes] | None:
    """(form, where its name ends, cookie) of *request*, all after the ID; None when it has none.

    The form is what is remembered: the name in lower case; no cookie; no flags but those that
    a reply depends on; a buffer that is usual and no less than all that we would use.  Where it
    is a plain request, *request* asks the same: lower case makes no octet a length that was
    none, and the rest is compared octet for octet.
    """
    counts = request[2:10]
    if counts not in _COUNTS or request[0] > 7:  # a response, or another opcode
        return None
    head = (b"\1\0" if request[0] & 1 else b"\0\0") + counts
    if counts == _QUESTION_ONLY:
        name_end = len(request) - 4
        if name_end <= 10:
            return None
        return head + request[10:name_end].lower() + request[name_end:], name_end, b""
    if request[-30:-24] == _FULL_COOKIE:
        end, cookie = len(request) - 30, request[-FULL:]
    elif request[-14:-8] == _NEW_COOKIE:
        end, cookie = len(request) - 14, request[-CLIENT:]
    elif request[-2:] == _NO_OPTIONS:
        end, cookie = len(request) - 2, b""
    else:
        return None
    name_end = end - 13
    opt = request[end - 9 : end]
    if name_end <= 10 or opt[:3] != _OPT_BEGINS or opt[6]:
        return None
    usual = _USUAL.get(opt)
    if usual is None:
        size = opt[3] << 8 | opt[4]
        if MIN_UDP < size < MAX_UDP and size not in PLAIN_SIZES:
            return None
        fits = size if size in PLAIN_SIZES else MIN_UDP if size < MIN_UDP else MAX_UDP
        usual = _opt(fits, do=bool(opt[7] & 0x80))
    form = head + request[10:name_end].lower() + request[name_end : end - 9] + usual
    return form, name_end, cookie


def _opt(size: int, *, do: bool) -> bytes:
    """An OPT without options, as a plain request has it."""
    return _OPT_BEGINS + size.to_bytes(2, "big") + (b"\0\0\x80" if do else b"\0\0\0") + b"\0\0\0"


_USUAL = {
    opt[:-2]: opt for size in PLAIN_SIZES for do in (True, False) for opt in (_opt(size, do=do),)
}
"""OPT records that may stay as they are, by their octets before RDLEN."""


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
        if found is None:
            return self._asked(packet, peer, now)
        form, name_end, cookie = found
        option = b""
        if cookie:
            if self._cookies is None:
                return self._asked(packet, peer, now)
            kind, option = self._cookies.judge(cookie, peer.address)
            if not peer.trusted:
                if kind != VALID:
                    return self._asked(packet, peer, now)
                peer = peer._replace(trusted=True)
        elif form == request:
            return self._asked(packet, peer, now)
        memo = self._memo.trusted if peer.trusted else self._memo.strangers
        body = next(memo.get(form, _NOTHING), None)
        if body is None:
            made = self._responder.answer(packet[:_ID] + form, peer, now)
            if not made.plain or made.packet is None:
                return self._asked(packet, peer, now)
            self._note(made, form, trusted=peer.trusted)
            body = made.packet[_ID:]
        reply = packet[:_ID] + body[:10] + request[10:name_end] + body[name_end:]
        if option:
            full = with_cookie(reply, option) if _has_room(reply, form) else None
            # Where there is none, the responder knows what to leave out.
            return full or self._responder.answer(packet, peer, now).packet
        if peer.trusted:
            return reply
        return self._sparingly(packet, reply, peer, None, now)

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
        # Any label before this one has the same answers (see places.py).
        return b"+" + name[max(0, name.find(_PREFER)) :]
    # The SOA behind the question is owned by a pointer to the zone's name within it.
    owner = end + 5
    zone = (reply[owner] << 8 | reply[owner + 1]) & 0x3FFF
    return b"-" + name[zone - HEADER :]


def _has_room(reply: bytes, form: bytes) -> bool:
    """Whether a cookie fits *reply* to an asker whose request's form is *form*, with its OPT."""
    size = len(reply) + OPTION
    return size <= MIN_UDP or size <= min(int.from_bytes(form[-8:-6], "big"), MAX_UDP)


def _come_by_tcp(packet: bytes, reply: bytes, cookie: Verdict | None) -> bytes | None:
    asked = parse_query(packet)
    if not isinstance(asked, Query | Reject):
        return None
    if cookie is not None and asked.edns is not None:
        asked = asked._replace(edns=asked.edns._replace(reply=cookie.option))
    return truncated(reply, asked)
