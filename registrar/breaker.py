"""Whether Redis is asked at all: closed, open after failures in a row, half-open to try once.

While it is open every write fails at once instead of after a time-out, so that
callers are told when to come back and the process stays free for reads.
"""

from typing import Final

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half-open"

THRESHOLD = 3
"""Failures in a row that open it, as the predecessor had it."""

OPEN_SECONDS = 30.0
"""Until it is half-open at the latest.  A ping that succeeds makes it so at once."""


class Breaker:
    """Counts failures in a row.  Times are of one monotonic clock, given by the caller."""

    def __init__(self, threshold: int = THRESHOLD, open_seconds: float = OPEN_SECONDS) -> None:
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._failures = 0
        self._half_open_at: float | None = None
        self._trying = False

    def __repr__(self) -> str:
        return f"<Breaker {self._failures} failures, half-open at {self._half_open_at}>"

    def state(self, now: float) -> str:
        """One of CLOSED, OPEN, HALF_OPEN."""
        if self._half_open_at is None:
            return CLOSED
        return OPEN if now < self._half_open_at else HALF_OPEN

    def admits(self, now: float) -> bool:
        """Whether a call may be made; if so, its end must be told by one of the next three.

        Half-open it admits one call at a time.
        """
        match self.state(now):
            case "closed":
                return True
            case "open":
                return False
        if self._trying:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """A call was answered, be it with a refusal that is the caller's fault."""
        self._failures = 0
        self._half_open_at = None
        self._trying = False

    def failed(self, now: float) -> None:
        """A call was not answered, or the store said that it cannot work now."""
        self._trying = False
        self._failures += 1
        if self._failures >= self._threshold:
            self._half_open_at = now + self._open_seconds

    def abandoned(self) -> None:
        """A call was cancelled: nothing is learnt from it."""
        self._trying = False

    def pinged(self, now: float) -> None:
        """Something answers there again: an open breaker is half-open now."""
        if self._half_open_at is not None:
            self._half_open_at = min(self._half_open_at, now)
