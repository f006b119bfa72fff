"""Which instances are left out for a while, because they failed where others did not.

Out after 5 failures in a row, or when half of at least 20 requests within 10 s failed; for 30 s
the first time, growing to 5 min; never more than half of a service, so the set is never empty.
When its time is over an instance gets one request: if that succeeds it is back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from resolver_gateway.balancer import Upstream

FAILURES_IN_A_ROW: Final = 5
WINDOW: Final = 10.0
"""Seconds over which failures and requests are counted."""
LEAST_REQUESTS: Final = 20
"""In a window, before its share of failures says anything."""
SHARE_OF_FAILURES: Final = 0.5
FIRST_EJECTION: Final = 30.0
LONGEST_EJECTION: Final = 300.0
PROBE_TIMEOUT: Final = 10.0
"""Seconds after which a probe that nobody reported counts as lost, and another may go."""
MAX_KNOWN: Final = 10_000
"""Instances with a record; the records of those that left are dropped with their service."""


@dataclass(slots=True)
class Health:
    """What is known of one instance."""

    failures: int = 0
    """In a row."""
    requests: int = 0
    failed: int = 0
    window_ends: float = 0.0
    ejections: int = 0
    ejected_until: float = 0.0
    """0: not ejected.  In the past: it waits for its probe."""
    probed_at: float | None = None


class OutlierDetector:
    """The record of every instance; `repr` counts them."""

    def __init__(self) -> None:
        self._health: dict[str, Health] = {}
        self._ejected: set[str] = set()

    def __repr__(self) -> str:
        return f"<OutlierDetector {len(self._health)} known, {len(self._ejected)} ejected>"

    @property
    def all_well(self) -> bool:
        """No instance of any service is out: the short cut of the common case."""
        return not self._ejected

    @property
    def ejected_count(self) -> int:
        """Instances that are out, or wait for their probe."""
        return len(self._ejected)

    def health(self, upstream: Upstream) -> Health | None:
        """The record of *upstream*, to be read; None when nothing was ever recorded."""
        return self._health.get(upstream.key)

    def admit(self, upstreams: Sequence[Upstream], now: float) -> Sequence[Upstream]:
        """Those of *upstreams* that may be chosen; at least half of them, and never none."""
        out = [u for u in upstreams if u.key in self._ejected and self._is_out(u.key, now)]
        surplus = len(out) - len(upstreams) // 2
        if surplus > 0:
            # The set has shrunk since; those longest out come back first.
            out.sort(key=lambda u: self._health[u.key].ejected_until)
            out = out[surplus:]
        left_out = {u.key for u in out}
        return [u for u in upstreams if u.key not in left_out]

    def _is_out(self, key: str, now: float) -> bool:
        health = self._health[key]
        if now < health.ejected_until:
            return True
        return health.probed_at is not None and now < health.probed_at + PROBE_TIMEOUT

    def chosen(self, upstream: Upstream, now: float) -> None:
        """A request goes to *upstream*: if its ejection is over, that is the probe."""
        if upstream.key in self._ejected:
            self._health[upstream.key].probed_at = now

    def record(
        self, upstream: Upstream, ok: bool, now: float, upstreams: Sequence[Upstream]
    ) -> bool:
        """A request to *upstream*, one of *upstreams*, went well or not; whether that ejects it."""
        health = self._health.get(upstream.key)
        if health is None:
            if len(self._health) >= MAX_KNOWN:
                self._health.clear()
                self._ejected.clear()
            health = self._health[upstream.key] = Health()
        if now >= health.window_ends:
            health.requests = health.failed = 0
            health.window_ends = now + WINDOW
        health.requests += 1
        if ok:
            if health.failures:
                health.failures = 0
            if health.probed_at is not None:
                self._readmit(upstream.key, health)
            return False
        health.failures += 1
        health.failed += 1
        return self._may_eject(upstream, health, now, upstreams)

    def _readmit(self, key: str, health: Health) -> None:
        self._ejected.discard(key)
        health.ejected_until = 0.0
        health.probed_at = None
        health.requests = health.failed = 0

    def _may_eject(
        self, upstream: Upstream, health: Health, now: float, upstreams: Sequence[Upstream]
    ) -> bool:
        probe_failed = health.probed_at is not None
        if upstream.key in self._ejected and not probe_failed:
            return False
        if not probe_failed and not _is_outlier(health):
            return False
        others = sum(1 for u in upstreams if u.key in self._ejected and u.key != upstream.key)
        if others + 1 > len(upstreams) // 2:
            return False
        health.ejections = health.ejections + 1 if _recently_out(health, now) else 1
        health.ejected_until = now + min(FIRST_EJECTION * health.ejections, LONGEST_EJECTION)
        health.probed_at = None
        self._ejected.add(upstream.key)
        return True

    def forget(self, keys: Iterable[str]) -> None:
        """These instances left."""
        for key in keys:
            self._health.pop(key, None)
            self._ejected.discard(key)

    def is_ejected(self, upstream: Upstream, now: float) -> bool:
        return upstream.key in self._ejected and self._is_out(upstream.key, now)

    def all_failing(self, upstreams: Iterable[Upstream]) -> bool:
        """Whether the last request to each of *upstreams* failed: nothing else is left."""
        return all((h := self._health.get(u.key)) is not None and h.failures for u in upstreams)


def _is_outlier(health: Health) -> bool:
    return health.failures >= FAILURES_IN_A_ROW or (
        health.requests >= LEAST_REQUESTS and health.failed >= health.requests * SHARE_OF_FAILURES
    )


def _recently_out(health: Health, now: float) -> bool:
    """An ejection makes the next one longer, until the instance has been well as long again."""
    return health.ejections > 0 and now < health.ejected_until + LONGEST_EJECTION
