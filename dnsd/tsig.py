"""Signatures of messages by shared keys (TSIG, RFC 8945): judged, and made.

A signed query is judged first; what it asks is then answered as if it were not signed, and
the reply is signed with the same key.
"""

import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from dnsd import reading
from dnsd.keyring import NO_KEYS, Key, Keyring

BADSIG, BADKEY, BADTIME, BADTRUNC = 16, 17, 18, 22
NAMES = {0: "formerr", BADSIG: "badsig", BADKEY: "badkey", BADTIME: "badtime", BADTRUNC: "badtrunc"}

FUDGE = 300
"""Seconds that a peer's clock may differ, ours to say in what we sign (RFC 8945, section 10)."""

MAX_FUDGE = 300
"""What we grant a peer that asks for more: a captured request is good for no longer."""

MIN_MAC = 10
"""Octets of the shortest legal MAC, if half of the hash is not more (RFC 8945, 5.2.2.1)."""

MAX_SEEN = 4096
"""MACs of transfers that are remembered against replays; of more, the oldest are forgotten."""

_CLASS_AND_TTL = b"\0\xff\0\0\0\0"


class Tsig(NamedTuple):
    """A TSIG record: names on the wire in lower case, time in whole seconds since 1970."""

    name: bytes
    algorithm: bytes
    time: int
    fudge: int
    mac: bytes
    original_id: bytes
    error: int
    other: bytes


class Verified(NamedTuple):
    """A signature that is good, by whose key; `packet` is the message without it."""

    key: Key
    mac: bytes
    packet: bytes


class Refusal(NamedTuple):
    """A signature that is not: `error` is 0 where the record itself is wrong (FORMERR).

    `key` is there where the reply is signed nevertheless.
    """

    error: int
    tsig: Tsig | None = None
    key: Key | None = None


def read_tsig(packet: bytes, at: int) -> Tsig | None:
    """The record at *at*; None when it is none (RFC 8945, section 4.2)."""
    try:
        name, at = reading.read_name(packet, at)
        if packet[at : at + 8] != b"\0\xfa" + _CLASS_AND_TTL:
            return None
        rdata = at + 10
        end = rdata + _u16(packet, at + 8)
        algorithm, at = reading.read_name(packet, rdata)
        if at - rdata != len(algorithm):
            return None  # it must not be compressed
        time, fudge, size = _number(packet, at, 6), _u16(packet, at + 6), _u16(packet, at + 8)
        mac = packet[at + 10 : at + 10 + size]
        at += 10 + size
        original_id, error, length = packet[at : at + 2], _u16(packet, at + 2), _u16(packet, at + 4)
        other = packet[at + 6 : at + 6 + length]
        if at + 6 + length != end or end > len(packet):
            return None
    except (ValueError, IndexError):
        return None
    return Tsig(name, algorithm, time, fudge, mac, original_id, error, other)


def _u16(packet: bytes, at: int) -> int:
    return packet[at] << 8 | packet[at + 1]


def _number(packet: bytes, at: int, size: int) -> int:
    return int.from_bytes(packet[at : at + size], "big")


def judge(
    packet: bytes, at: int, keys: Keyring, now: float, prior: bytes = b""
) -> Verified | Refusal:
    """Whether the TSIG record at *at*, the last of *packet*, is good at *now* (RFC 8945, 5.2).

    *prior* is the request's MAC, where *packet* is a reply.
    """
    tsig = read_tsig(packet, at)
    if tsig is None:
        return Refusal(0)
    # 1. The key, with its own algorithm.
    key = keys.get(tsig.name)
    if key is None or tsig.algorithm != key.algorithm.name:
        return Refusal(BADKEY, tsig)
    # 2. The MAC: of a legal length, and right as far as it goes.
    size = len(tsig.mac)
    if not max(MIN_MAC, key.algorithm.size // 2) <= size <= key.algorithm.size:
        return Refusal(0, tsig)
    count = (_u16(packet, 10) - 1).to_bytes(2, "big")
    body = packet[2:10] + count + packet[12:at]
    mac = _mac(key, prior, tsig.original_id + body, _variables(tsig))
    if not hmac.compare_digest(mac[:size], tsig.mac):
        return Refusal(BADSIG, tsig)
    # 3. The time.
    if abs(now - tsig.time) > min(tsig.fudge, MAX_FUDGE):
        return Refusal(BADTIME, tsig, key)
    # 4. Our policy: no truncation.
    if size < key.algorithm.size:
        return Refusal(BADTRUNC, tsig, key)
    return Verified(key, tsig.mac, packet[:2] + body)


def _mac(key: Key, prior: bytes, message: bytes, variables: bytes) -> bytes:
    """RFC 8945, section 4.3: the MAC before it, the message, and what the record says."""
    before = len(prior).to_bytes(2, "big") + prior if prior else b""
    return hmac.digest(key.secret, before + message + variables, key.algorithm.hash)


def _timers(tsig: Tsig) -> bytes:
    return tsig.time.to_bytes(6, "big") + tsig.fudge.to_bytes(2, "big")


def _variables(tsig: Tsig) -> bytes:
    return b"".join(
        (
            tsig.name,
            _CLASS_AND_TTL,
            tsig.algorithm,
            _timers(tsig),
            tsig.error.to_bytes(2, "big"),
            len(tsig.other).to_bytes(2, "big"),
            tsig.other,
        )
    )


def _with_record(message: bytes, tsig: Tsig) -> bytes:
    rdata = b"".join(
        (
            tsig.algorithm,
            _timers(tsig),
            len(tsig.mac).to_bytes(2, "big"),
            tsig.mac,
            tsig.original_id,
            tsig.error.to_bytes(2, "big"),
            len(tsig.other).to_bytes(2, "big"),
            tsig.other,
        )
    )
    count = (_u16(message, 10) + 1).to_bytes(2, "big")
    head = tsig.name + b"\0\xfa" + _CLASS_AND_TTL + len(rdata).to_bytes(2, "big")
    return b"".join((message[:10], count, message[12:], head, rdata))


def _signed(
    message: bytes, key: Key, prior: bytes, now: float, *, timers_only: bool = False
) -> tuple[bytes, bytes]:
    tsig = Tsig(key.name, key.algorithm.name, int(now), FUDGE, b"", message[:2], 0, b"")
    mac = _mac(key, prior, message, _timers(tsig) if timers_only else _variables(tsig))
    return _with_record(message, tsig._replace(mac=mac)), mac


def sign(message: bytes, key: Key, now: float) -> tuple[bytes, bytes]:
    """*message*, a request of ours, signed; and its MAC, by which the reply is judged."""
    return _signed(message, key, b"", now)


class Chain:
    """Signs the messages of one reply: each by the MAC before it (RFC 8945, section 5.3.1)."""

    def __init__(self, verified: Verified) -> None:
        self._key = verified.key
        self._mac = verified.mac
        self._begun = False

    def sign(self, message: bytes, now: float) -> bytes:
        """*message*, the next of the reply, with its signature."""
        signed, self._mac = _signed(message, self._key, self._mac, now, timers_only=self._begun)
        self._begun = True
        return signed


def refused(message: bytes, refusal: Refusal, now: float) -> bytes:
    """*message*, an error reply, with the record that says why (RFC 8945, section 5.3.2).

    BADTIME and BADTRUNC are signed, the former with the asker's time and ours beside it.
    """
    if refusal.tsig is None or not refusal.error:
        return message
    asked = refusal.tsig
    other = int(now).to_bytes(6, "big") if refusal.error == BADTIME else b""
    tsig = asked._replace(mac=b"", original_id=message[:2], error=refusal.error, other=other)
    if refusal.key is not None:
        if refusal.error != BADTIME:
            tsig = tsig._replace(time=int(now), fudge=FUDGE)
        tsig = tsig._replace(mac=_mac(refusal.key, asked.mac, message, _variables(tsig)))
    return _with_record(message, tsig)


class Signatures:
    """The keys as they are now, the clock that judges by them, and what was seen before."""

    def __init__(self, keys: Keyring = NO_KEYS, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.keys = keys
        self.clock = clock
        """Seconds since 1970."""
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Signatures of {len(self.keys)} keys>"

    def judge(self, packet: bytes, at: int, *, once: bool = False) -> Verified | Refusal:
        """Whether *packet*, a query with a TSIG record at *at*, is signed well.

        With *once* the same is BADTIME a second time: what was captured is of no use again.  For
        transfers over TCP alone; over UDP a client repeats what it sent when the answer got lost.
        """
        verdict = judge(packet, at, self.keys, self.clock())
        if not once or isinstance(verdict, Refusal):
            return verdict
        if verdict.mac in self._seen:
            return Refusal(BADTIME, read_tsig(packet, at), verdict.key)
        self._seen[verdict.mac] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return verdict

    def refused(self, message: bytes, refusal: Refusal) -> bytes:
        return refused(message, refusal, self.clock())
