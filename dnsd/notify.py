"""NOTIFY: what to tell a secondary and when, and what its reply means (RFC 1996).

Nothing here knows sockets or clocks; notifier.py obeys what this module decides.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from dnsd import query, reading, tsig
from dnsd.contents import soa_rr
from dnsd.keyring import Key, Keyring
from dnsd.query import HEADER
from dnsd.served import ServedZone

INTERVAL = 1.0
"""Seconds between two of one zone to one secondary: changes between them are gathered."""

RETRIES = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds after each message without a reply until the next; after the last we are silent."""

IDLE = 1.0
"""Seconds between two looks at the serial while nothing says that it moved."""

NOTIFY = 4
_OPCODE_AND_AA = NOTIFY << 3 | 0x04

Outcome = Literal["accepted", "refused", "unreachable", "unanswered"]
"""`accepted` is NOTIMP too: the secondary will not hear, and asks unbidden (RFC 1996, 3.12)."""


@dataclass(frozen=True, slots=True)
class Send:
    """Tell the secondary of *serial*."""

    serial: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It was told often enough."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for *seconds*, unless the serial moves or a reply comes."""

    seconds: float


class Notice:
    """One zone for one secondary.  *settling*: seconds until every worker answers a new serial."""

    def __init__(self, settling: float = 0.0) -> None:
        self._settling = settling
        self._serial: int | None = None
        self._due: float | None = None
        self._attempts = 0
        self._first_change = self._last_change = 0.0
        self._last_sent = float("-inf")

    def next_action(self, serial: int | None, now: float) -> Send | GiveUp | Wait:
        """What to do at *now*; *serial* is the zone's, None while it has none to tell."""
        if serial is None:
            return Wait(IDLE)
        if serial != self._serial:
            self._moved(serial, now)
        if self._due is None:
            return Wait(IDLE)
        if now < self._due:
            return Wait(min(IDLE, self._due - now))
        if self._attempts > len(RETRIES):
            self._due = None
            return GiveUp()
        return Send(serial)

    def _moved(self, serial: int, now: float) -> None:
        """A new change starts afresh.  It waits for the slowest worker; but of many, each after
        the other, the first is not kept waiting for the last."""
        if self._due is None or self._attempts:
            self._first_change = now
        self._last_change = now
        settled = min(now + self._settling, self._first_change + INTERVAL)
        self._due = max(settled, self._last_sent + INTERVAL)
        self._serial, self._attempts = serial, 0

    def sent(self, now: float) -> None:
        """It was told; until it replies it is told again, less and less often."""
        self._last_sent = now
        self._attempts += 1
        waits = (*RETRIES, RETRIES[-1])
        self._due = now + waits[self._attempts - 1]

    def done(self) -> None:
        """It replied, or cannot be reached: nothing more until the next change.

        If the last change was told before it had settled, it is told once more.
        """
        if not self._attempts:
            return
        is_settled = self._last_sent - self._last_change >= self._settling
        self._attempts = 0
        self._due = None if is_settled else self._last_sent + INTERVAL


class Message(NamedTuple):
    """A NOTIFY as it leaves, with what its reply is known by."""

    packet: bytes
    id: bytes
    question: bytes
    key: Key | None
    mac: bytes


def compose(served: ServedZone, serial: int, number: int, key: Key | None, now: float) -> Message:
    """The message that *served* is at *serial*, under the ID *number*, signed where a key is."""
    question = served.wire + query.SOA.to_bytes(2, "big") + query.IN.to_bytes(2, "big")
    id_ = number.to_bytes(2, "big")
    counts = b"\0\1\0\1\0\0\0\0"
    # The SOA's owner is the question's name.
    answer = b"\xc0\x0c" + soa_rr(served.zone, serial).rest
    packet = id_ + bytes((_OPCODE_AND_AA, 0)) + counts + question + answer
    mac = b""
    if key is not None:
        packet, mac = tsig.sign(packet, key, now)
    return Message(packet, id_, question, key, mac)


def outcome_of(reply: bytes, message: Message, now: float) -> Outcome | None:
    """What *reply*, from the secondary's address, says; None where it is not one to *message*.

    Where the message was signed the reply must be too (RFC 8945, section 5.4).
    """
    if len(reply) < HEADER or reply[:2] != message.id or reply[2] & 0xF8 != 0x80 | NOTIFY << 3:
        return None
    echoed = reply[HEADER : HEADER + len(message.question)]
    if reply[4:6] != b"\0\0" and echoed.lower() != message.question:
        return None
    rcode = reply[3] & 15
    if message.key is not None and not _is_signed_well(reply, message, now):
        # Who does not know the key cannot sign: believed as far as a log line goes.
        return "refused" if rcode in (query.NOTAUTH, query.REFUSED) else None
    return "accepted" if rcode in (query.NOERROR, query.NOTIMP) else "refused"


def _is_signed_well(reply: bytes, message: Message, now: float) -> bool:
    assert message.key is not None
    keys: Keyring = {message.key.name: message.key}
    try:
        *_, last = (None, *reading.records(reply))
    except ValueError:
        return False
    if last is None or last.rtype != query.TSIG:
        return False
    verdict = tsig.judge(reply, last.at, keys, now, message.mac)
    return isinstance(verdict, tsig.Verified)
