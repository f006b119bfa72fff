"""Which instances are left out for a while, because they failed where others did not.

Out after 5 failures in a row, or when half of at least 20 requests within 10 s failed; for 30 s
the first time, growing to 5 min; never more than half of a service, so the set is never empty.
When its time is over an instance gets one request: if that succeeds it is back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from resolver_gateway.balancer import Upstream

FAILURES_IN_A_ROW: Final = 5
WINDOW: Final = 10.0
"""Seconds over which failures and requests are counted."""
SLOT: Final = 1.0
"""Seconds counted together: the window is exact to this much."""
LEAST_REQUESTS: Final = 20
"""In a window, before its share of failures says anything."""
SHARE_OF_FAILURES: Final = 0.5
FIRST_EJECTION: Final = 30.0
LONGEST_EJECTION: Final = 300.0
"""Also how long an instance must have been well for its next ejection to be a first one."""
PROBE_TIMEOUT: Final = 10.0
"""Seconds after which a probe that nobody reported counts as lost, and another may go."""
PROBE_PATIENCE: Final = 10.0
"""Seconds for which the probe is left to requests that can be repeated elsewhere; a service that
has none of them takes another one for a probe then."""
MAX_KNOWN: Final = 10_000
"""Instances with a record; the records of those that left are dropped with their service."""


@dataclass(slots=True)
class Health:
    """What is known of one instance."""

    failures: int = 0
    """In a row."""
    reason: str = ""
    """Of the last failure; empty when the last request went well."""
    requests: int = 0
    failed: int = 0
    slot_ends: float = 0.0
    earlier: list[tuple[float, int, int]] = field(default_factory=list)
    """Slots before this one: when each ended, its requests, how many of them failed."""
    ejections: int = 0
    ejected_until: float = 0.0
    """0: not ejected.  In the past: it waits for its probe."""
    probed_at: float | None = None
    well_since: float = 0.0

    def turn(self, now: float) -> None:
        """A slot is over."""
        if self.requests:
            self.earlier.append((self.slot_ends, self.requests, self.failed))
        self.earlier = [slot for slot in self.earlier if slot[0] > now - WINDOW]
        self.requests = self.failed = 0
        self.slot_ends = now + SLOT

    def within_window(self, now: float) -> tuple[int, int]:
        """Requests, and how many of them failed, in the last ten seconds."""
        recent = [slot for slot in self.earlier if slot[0] > now - WINDOW]
        requests = self.requests + sum(slot[1] for slot in recent)
        return requests, self.failed + sum(slot[2] for slot in recent)


class OutlierDetector:
    """The record of every instance; `repr` counts them."""

    def __init__(self) -> None:
        self._health: dict[str, Health] = {}
        self._ejected: dict[str, str] = {}
        """Keys of instances that are out, or wait for their probe, with their service."""
        self.troubled: frozenset[str] = frozenset()
        """The services of these: of all others every instance may be chosen."""
        self.changes = 0
        """Rises whenever an instance is ejected, back, or gone."""

    def __repr__(self) -> str:
        return f"<OutlierDetector {len(self._health)} known, {len(self._ejected)} ejected>"

    @property
    def all_well(self) -> bool:
        """No instance of any service is out."""
        return not self._ejected

    @property
    def ejected_count(self) -> int:
        """Instances that are out, or wait for their probe."""
        return len(self._ejected)

    def health(self, upstream: Upstream) -> Health | None:
        """The record of *upstream*, to be read; None when nothing was ever recorded."""
        return self._health.get(upstream.key)

    def admit(
        self, upstreams: Sequence[Upstream], now: float, *, careful: bool = False
    ) -> Sequence[Upstream]:
        """Those of *upstreams* that may be chosen; at least half of them, and never none.

        *careful*: for a request that cannot be repeated, which is no good probe.
        """
        out = [u for u in upstreams if u.key in self._ejected and self._is_out(u.key, now, careful)]
        surplus = len(out) - len(upstreams) // 2
        if surplus > 0:
            # The set has shrunk since; those longest out come back first.
            out.sort(key=lambda u: self._health[u.key].ejected_until)
            out = out[surplus:]
        left_out = {u.key for u in out}
        return [u for u in upstreams if u.key not in left_out]

    def settled_until(self, service: str) -> float:
        """When time alone may change who of *service* is admitted: the next end of an ejection."""
        keys = (key for key, of in self._ejected.items() if of == service)
        return min((self._health[key].ejected_until for key in keys), default=inf)

    def _is_out(self, key: str, now: float, careful: bool) -> bool:
        health = self._health[key]
        if now < health.ejected_until + (PROBE_PATIENCE if careful else 0.0):
            return True
        return health.probed_at is not None and now < health.probed_at + PROBE_TIMEOUT

    def chosen(self, upstream: Upstream, now: float) -> bool:
        """A request goes to *upstream*; whether it is the probe after an ejection."""
        if upstream.key not in self._ejected:
            return False
        health = self._health[upstream.key]
        if now < health.ejected_until:
            return False  # it was chosen because nobody else was left
        health.probed_at = now
        return True

    def record(
        self,
        upstream: Upstream,
        ok: bool,
        now: float,
        upstreams: Sequence[Upstream],
        reason: str = "",
    ) -> bool:
        """A request to *upstream*, one of *upstreams*, went well or not; whether that ejects it."""
        health = self._health.get(upstream.key)
        if health is None:
            health = self._first(upstream.key)
        if now >= health.slot_ends:
            health.turn(now)
        health.requests += 1
        if ok:
            if health.failures:
                health.failures = 0
                health.reason = ""
            if health.probed_at is not None:
                self._readmit(upstream.key, health, now)
            return False
        health.failures += 1
        health.failed += 1
        health.reason = reason
        return self._may_eject(upstream, health, now, upstreams)

    def _first(self, key: str) -> Health:
        if len(self._health) >= MAX_KNOWN:
            self._health.clear()
            self._ejected.clear()
            self._changed()
        health = self._health[key] = Health()
        return health

    def _changed(self) -> None:
        self.troubled = frozenset(self._ejected.values())
        self.changes += 1

    def _readmit(self, key: str, health: Health, now: float) -> None:
        self._ejected.pop(key, None)
        health.ejected_until = 0.0
        health.probed_at = None
        health.requests = health.failed = 0
        health.earlier = []
        health.well_since = now
        self._changed()

    def _may_eject(
        self, upstream: Upstream, health: Health, now: float, upstreams: Sequence[Upstream]
    ) -> bool:
        probe_failed = health.probed_at is not None
        if upstream.key in self._ejected:
            if not probe_failed:
                return False  # a request of before its ejection
        elif not _is_outlier(health, now) or not self._room_for_one(upstream, upstreams):
            return False
        if not probe_failed and now >= health.well_since + LONGEST_EJECTION:
            health.ejections = 0
        health.ejections += 1
        health.ejected_until = now + min(FIRST_EJECTION * health.ejections, LONGEST_EJECTION)
        health.probed_at = None
        self._ejected[upstream.key] = upstream.service
        self._changed()
        return True

    def _room_for_one(self, upstream: Upstream, upstreams: Sequence[Upstream]) -> bool:
        """Whether *upstream* may be ejected too, with no more than half of them out."""
        others = sum(1 for u in upstreams if u.key in self._ejected and u.key != upstream.key)
        return others + 1 <= len(upstreams) // 2

    def forget(self, keys: Iterable[str]) -> None:
        """These instances left."""
        for key in keys:
            self._health.pop(key, None)
            self._ejected.pop(key, None)
        self._changed()

    def all_failing(self, upstreams: Iterable[Upstream]) -> bool:
        """Whether each of *upstreams* is out, or failed last: nothing else is left."""
        return all(self._is_failing(u.key) for u in upstreams)

    def _is_failing(self, key: str) -> bool:
        health = self._health.get(key)
        return key in self._ejected or (health is not None and health.failures > 0)

    def state_of(self, upstream: Upstream, now: float) -> str:
        """`serving`, `failing`, `ejected`, or `probing` when it waits for its one request."""
        health = self._health.get(upstream.key)
        if upstream.key in self._ejected and health is not None:
            return "ejected" if now < health.ejected_until else "probing"
        return "failing" if health is not None and health.failures else "serving"


def _is_outlier(health: Health, now: float) -> bool:
    if health.failures >= FAILURES_IN_A_ROW:
        return True
    requests, failed = health.within_window(now)
    return requests >= LEAST_REQUESTS and failed >= requests * SHARE_OF_FAILURES
