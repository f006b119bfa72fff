"""When another instance may be tried, and when a service is left alone for a while."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

MAX_ATTEMPTS: Final = 3
"""Of one request, whatever the budget: a request that kills its server kills no fourth."""

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110, section 9.2.2."""

WINDOW: Final = 10.0
BUDGET_RATIO: Final = 0.2
"""Retries for each request within a window: at worst a service in trouble gets 1.2 times."""
LEAST_RETRIES: Final = 30
"""A window's retries that are always right: three a second, so that little traffic may retry."""

BREAKER_THRESHOLD: Final = 3
BREAKER_SECONDS: Final = 30.0


class Failure(Enum):
    """What went wrong with an attempt, as far as it matters for what follows."""

    REFUSED = "upstream-refused"
    """No connection: the request never left."""
    CONNECT_TIMEOUT = "upstream-unreachable"
    """No connection in time: the request never left."""
    FORBIDDEN = "upstream-forbidden"
    """An address that nothing may be sent to; the request never left."""
    CLOSED = "upstream-closed"
    """The connection ended before the answer did."""
    PROTOCOL = "upstream-protocol"
    """What came is not HTTP, or more than an answer."""
    TIMEOUT = "upstream-timeout"
    """The answer did not come in time."""


NEVER_LEFT: Final = frozenset({Failure.REFUSED, Failure.CONNECT_TIMEOUT, Failure.FORBIDDEN})


def may_retry(
    failure: Failure, method: bytes, *, answering: bool, replayable: bool, try_timeout: float = 0.0
) -> bool:
    """Whether another attempt is safe: nothing was sent to the client (*answering*), and the
    request never left, or doing it twice is doing it once and its body is still at hand.

    After a time-out only where a *try_timeout* is set: else the client has waited long enough,
    and the service may be overloaded.
    """
    if answering:
        return False
    if failure in NEVER_LEFT:
        return True
    if failure is Failure.TIMEOUT and not try_timeout:
        return False
    return method in IDEMPOTENT and replayable


class RetryBudget:
    """Counts requests and retries of a service over two half-overlapping windows."""

    __slots__ = ("_ends", "_previous_requests", "_previous_retries", "requests", "retries")

    def __init__(self) -> None:
        self._ends = 0.0
        self._previous_requests = self._previous_retries = 0
        self.requests = 0
        self.retries = 0

    def count(self, now: float) -> None:
        """A new request came."""
        if now >= self._ends:
            self._turn(now)
        self.requests += 1

    def allows(self, now: float) -> bool:
        """Whether one more retry is within the budget; it is counted if so."""
        if now >= self._ends:
            self._turn(now)
        requests = self.requests + self._previous_requests
        if self.retries + self._previous_retries >= LEAST_RETRIES + BUDGET_RATIO * requests:
            return False
        self.retries += 1
        return True

    def _turn(self, now: float) -> None:
        recent = now < self._ends + WINDOW
        self._previous_requests = self.requests if recent else 0
        self._previous_retries = self.retries if recent else 0
        self.requests = self.retries = 0
        self._ends = now + WINDOW


@dataclass(slots=True)
class Breaker:
    """Of one service: open after 3 failures in a row, for 30 s, then one request may try.

    It opens only when nothing else is left: the caller says whether every instance fails.
    """

    failures: int = 0
    opened_at: float | None = None
    probing_until: float = 0.0

    def admits(self, now: float) -> bool:
        """Whether a request may go; after 30 s that is one at a time."""
        if self.opened_at is None:
            return True
        if now < self.opened_at + BREAKER_SECONDS or now < self.probing_until:
            return False
        self.probing_until = now + BREAKER_SECONDS
        return True

    def is_open(self, now: float) -> bool:
        return self.opened_at is not None and now < self.opened_at + BREAKER_SECONDS

    def state(self, now: float) -> str:
        """`closed`, `open`, or `half-open` when one request may try."""
        if self.opened_at is None:
            return "closed"
        return "open" if self.is_open(now) else "half-open"

    def retry_after(self, now: float) -> float:
        """Seconds until it is worth asking again."""
        return 0.0 if self.opened_at is None else max(0.0, self.opened_at + BREAKER_SECONDS - now)

    def success(self) -> None:
        self.failures = 0
        self.opened_at = None
        self.probing_until = 0.0

    def abandoned(self) -> None:
        """The request that might have told something ended without telling; another may go."""
        self.probing_until = 0.0

    def failure(self, now: float, *, nothing_left: bool) -> bool:
        """A request failed for good; whether the breaker opened by it."""
        self.failures += 1
        probe_failed = self.opened_at is not None
        if not probe_failed and (self.failures < BREAKER_THRESHOLD or not nothing_left):
            return False
        self.opened_at = now
        self.probing_until = 0.0
        return True


@dataclass(slots=True)
class Standing:
    """What is remembered between requests of a name, beside its instances."""

    breaker: Breaker = field(default_factory=Breaker)
    budget: RetryBudget = field(default_factory=RetryBudget)


MAX_STANDINGS: Final = 4096
"""Names with a breaker and a budget, as many as the cache keeps; all are forgotten when there are
more."""


class Standings:
    """The standing of every name that was asked for."""

    def __init__(self) -> None:
        self.by_name: dict[str, Standing] = {}

    def __repr__(self) -> str:
        return f"<Standings of {len(self.by_name)} names>"

    def of(self, name: str) -> Standing:
        """That of *name*, a new one when there is none."""
        standing = self.by_name.get(name)
        if standing is None:
            if len(self.by_name) >= MAX_STANDINGS:
                self.by_name.clear()
            standing = self.by_name[name] = Standing()
        return standing

    def open_breakers(self, now: float) -> int:
        return sum(1 for standing in self.by_name.values() if standing.breaker.is_open(now))
