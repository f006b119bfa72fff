"""How often a network of strangers is answered alike: pure, in a table of fixed size."""

import array
from enum import Enum

PLACES = 1 << 16
"""Of the table.  Networks and kinds share them by hash: whoever shares one is limited together."""

BURST = 1.0
"""Seconds' worth of answers that may come at once, after as long a silence."""

IPV4_PREFIX, IPV6_PREFIX = 3, 7
"""Octets of an address that make a network: /24 and /56, what one customer is given at most."""


class Limited(Enum):
    """What becomes of an answer."""

    SENT = "sent"
    SLIPPED = "slipped"
    DROPPED = "dropped"


class RateLimiter:
    """At most *rate* answers a second for each network and kind (GCRA).

    Of those beyond it every *slip*-th becomes a question to come by TCP, none where it is 0.
    The *seed*, secret and random, keeps an attacker from choosing who shares his place.
    """

    def __init__(self, rate: int, slip: int, seed: bytes, places: int = PLACES) -> None:
        self._interval = 1.0 / rate
        self._slip = slip
        self._seed = seed
        self._places = places
        self._next = array.array("d", bytes(8 * places))
        self._over = array.array("B", bytes(places))

    def judge(self, address: bytes, kind: bytes, now: float) -> Limited:
        """One more answer of *kind* to *address* (4 or 16 octets) at *now* (monotonic seconds)."""
        network = address[: IPV4_PREFIX if len(address) == 4 else IPV6_PREFIX]
        place = hash(self._seed + network + kind) % self._places
        due = max(self._next[place], now)
        if due - now <= BURST - self._interval / 2:
            self._next[place] = due + self._interval
            return Limited.SENT
        if self._slip == 0:
            return Limited.DROPPED
        over = self._over[place] = (self._over[place] + 1) % self._slip
        return Limited.SLIPPED if over == 0 else Limited.DROPPED
