"""How long to wait between attempts: never in step with the rest of a fleet.

Chance comes in as a function that gives numbers in [0, 1).
"""

from collections.abc import Callable

from sidecar.actions import Lease

MAX_SHARE = 0.45
"""Renewals are at most this share of the lease apart: one may be lost, and a second still fits."""

DEFAULT_SHARE = 5 / 12
"""What registrars advise (25 s of 60), for the answer that does not say."""

JITTER = 0.1
"""Renewals come up to a tenth early, never late, so that a fleet started at once spreads out."""

FIRST_JITTER = 0.9
"""The first renewal of a lease comes up to so much earlier: a fleet that was started at once, by a
deployment or by the end of an outage, is spread over a whole interval from then on."""

WINDOW_RETRY = 8.0
"""Longest pause between attempts while the lease lives: 1, 2, 4, 8 s within a lease of 60 s.

Shorter leases have shorter pauses, in proportion.
"""

MAX_BACKOFF = 60.0
"""Longest pause without a lease; after an outage registrars keep leases 70 s longer for it."""

MIN_BACKOFF = 0.1
"""Full jitter may draw nothing at all, which would be a busy loop."""

REFUSED_PACE = 60.0
"""Seconds until a request that was refused is tried again: only a human can mend it."""

SPREAD = 0.25
"""Share by which a `Retry-After` is drawn out: the registrar names one moment to many at once."""


class Pace:
    """Pauses of one instance; *random* gives numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random

    def early(self) -> float:
        """A factor a little below 1."""
        return 1.0 - JITTER * self._random()

    def first(self) -> float:
        """A factor for the first renewal of a lease: anywhere within its interval."""
        return 1.0 - FIRST_JITTER * self._random()

    def every(self, ttl: float, configured: float | None, advised: float) -> float:
        """Seconds between renewals of a lease of *ttl* seconds."""
        return min(configured or advised or ttl * DEFAULT_SHARE, ttl * MAX_SHARE)

    def backoff(self, failures: int) -> float:
        """The pause after so many failures in a row, without a lease to lose.

        Full jitter: after an outage, a fleet comes back spread over the whole pause.
        """
        longest = min(MAX_BACKOFF, 2.0 ** min(failures, 6))
        return max(MIN_BACKOFF, longest * self._random())

    def refused(self) -> float:
        return REFUSED_PACE * self.early()

    def soon(self, failures: int) -> float:
        """The pause after so many failures of a report, which has no lease to lose."""
        return float(min(WINDOW_RETRY, 2.0**failures)) * self.early()

    def within(self, lease: Lease, failures: int, now: float, retry_after: float | None) -> float:
        """The pause after so many failures in a row while *lease* lives.

        A `Retry-After` is obeyed, but not so far that the lease would end without another try.
        """
        longest = min(WINDOW_RETRY, WINDOW_RETRY * lease.ttl / 60)
        delay = min(longest, 2.0**failures) * self.early()
        last_chance = lease.ends_at - lease.timeout - now
        return max(delay, min(self.at_least(delay, retry_after), last_chance))

    def at_least(self, delay: float, retry_after: float | None) -> float:
        """*delay*, or what the registrar asks for where that is more, up to MAX_BACKOFF."""
        if retry_after is None:
            return delay
        # Spread upwards: the registrar names the earliest moment.
        bound = MAX_BACKOFF / (1.0 + SPREAD)
        return max(delay, min(retry_after, bound) * (1.0 + SPREAD * self._random()))
