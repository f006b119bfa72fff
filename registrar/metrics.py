"""The registrar's metrics; those named `registry_` and `redis_` are the predecessor's.

Its alert rules go on meaning what they say: a 404 is never an error, and a
series exists only once its operation was used.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from registrar.breaker import CLOSED, HALF_OPEN, OPEN
from registry.leases import Sweep
from registry.runtime.metrics import registry_for, text_of

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Buckets on both sides of 5, 10 and 100 ms, which the promises and alerts are about."""

REFUSALS: Final = frozenset((401, 403, 408, 413, 429))
"""Statuses of requests that met a bound, or had no right to what they asked."""

BREAKER_STATES: Final = {CLOSED: 0, OPEN: 1, HALF_OPEN: 2}


def outcome_of(status: int) -> str:
    """An HTTP status as the label `status`."""
    if status < 400:
        return "success"
    if status == 404:
        return "not_found"
    if status == 503:
        return "unavailable"
    return "rejected" if status < 500 else "error"


class Reading(Collector):
    """A counter that somebody else keeps, read when somebody scrapes."""

    def __init__(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        self._name, self._meaning, self._read = name, meaning, read

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._meaning, value=self._read())


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = registry_for("registrar")
        self._operations = Counter(
            "registry_operations_total",
            "Operations by kind and outcome; each heartbeat of a list counts.",
            ["operation", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "registry_operation_duration_seconds",
            "From the request's head to its answer.",
            ["operation"],
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "registrar_heartbeat_batch_size",
            "Renewals that shared one call to the store.",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
            registry=registry,
        )
        self._evictions = Counter(
            "registrar_evictions_total",
            "Instances that this registrar's sweeps evicted.",
            registry=registry,
        )
        self._suspicions = Counter(
            "registrar_suspicions_total",
            "Instances that this registrar's sweeps kept as suspect.",
            registry=registry,
        )
        self._states = Counter(
            "registrar_state_changes_total",
            "States set by PUT.",
            ["state"],
            registry=registry,
        )
        self._lookups = Counter(
            "registrar_lookups_total",
            "Look-ups of host names by result.",
            ["result"],
            registry=registry,
        )
        self._refusals = Counter(
            "registrar_refusals_total",
            "Requests and connections refused for a right or a bound, by the problem's name.",
            ["problem"],
            registry=registry,
        )
        self._dropped = Counter(
            "registrar_watchers_dropped_total",
            "Listeners to events who read too slowly.",
            registry=registry,
        )
        self._malformed = Counter(
            "registrar_malformed_requests_total",
            "Requests that were not HTTP.",
            registry=registry,
        )
        self._errors = Counter(
            "registrar_internal_errors_total",
            "Errors that nobody foresaw; each has a traceback in the log.",
            registry=registry,
        )
        self._store_failures = Counter(
            "registrar_store_failures_total",
            "Calls to the store that were not answered.",
            registry=registry,
        )
        self._outcomes: dict[tuple[str, str], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    def watch(
        self,
        *,
        active_services: Callable[[], float],
        instances: Callable[[], float],
        revision: Callable[[], float],
        age: Callable[[], float],
        breaker: Callable[[], str],
        connections: Callable[[], float],
        watchers: Callable[[], float],
        suspects: Callable[[], float],
        guarded: Callable[[], float],
    ) -> None:
        """Export what is read when somebody scrapes."""
        self._gauge(
            "registry_active_services", "Services with a serving instance.", active_services
        )
        self._gauge(
            "registry_circuit_breaker_open",
            "1 while writes are refused because Redis is away.",
            lambda: float(breaker() == OPEN),
        )
        self._gauge(
            "redis_circuit_breaker_state",
            "0 closed, 1 open, 2 half-open.",
            lambda: BREAKER_STATES[breaker()],
        )
        self._gauge("registrar_instances", "Instances listed, in any state.", instances)
        self._gauge("registrar_catalog_revision", "Revision of the catalog.", revision)
        self._gauge(
            "registrar_catalog_age_seconds",
            "Since the catalog was last known to be current.",
            age,
        )
        self._gauge("registrar_connections", "Connections open.", connections)
        self._gauge("registrar_watchers", "Requests that wait for changes.", watchers)
        self._gauge(
            "registrar_suspect_instances",
            "Instances kept although their lease is over, because too many ended at once.",
            suspects,
        )
        self._gauge("registrar_guarded_services", "Services that have such instances.", guarded)

    def count_repairs(self, repaired: Callable[[], float]) -> None:
        """Export how many instances the catalog held otherwise than the store."""
        self.registry.register(
            Reading(
                "registrar_catalog_repairs",
                "Instances that a comparison found otherwise in the store than in the catalog.",
                repaired,
            )
        )

    def _gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        Gauge(name, meaning, registry=self.registry).set_function(read)

    def operation(self, name: str, statuses: tuple[int, ...], seconds: float | None) -> None:
        """One request of operation *name*, answered with these statuses after *seconds*.

        None for one that waited for a change, and says nothing of how fast we are.
        """
        for status in statuses:
            key = name, outcome_of(status)
            counter = self._outcomes.get(key)
            if counter is None:
                counter = self._outcomes[key] = self._operations.labels(*key)
            counter.inc()
        if seconds is None:
            return
        duration = self._durations.get(name)
        if duration is None:
            duration = self._durations[name] = self._seconds.labels(name)
        duration.observe(seconds)

    def batch(self, size: int) -> None:
        self._batches.observe(size)

    def swept(self, sweep: Sweep) -> None:
        self._evictions.inc(len(sweep.evicted))
        self._suspicions.inc(len(sweep.suspects))

    def state_set(self, state: str) -> None:
        """*state* is one of the five that can be set."""
        self._states.labels(state).inc()

    def lookup(self, result: str) -> None:
        """*result* is `found`, `refused`, `missing` or `failed`."""
        self._lookups.labels(result).inc()

    def store_failed(self) -> None:
        self._store_failures.inc()

    def refused(self, status: int, name: str) -> None:
        """A request was answered with the problem *name*; it counts if a bound or right did it."""
        if status in REFUSALS:
            self._refusals.labels(name).inc()

    def bounded(self, name: str) -> None:
        """A connection met the bound *name*."""
        self._refusals.labels(name).inc()

    def watcher_dropped(self) -> None:
        self._dropped.inc()

    def malformed(self) -> None:
        self._malformed.inc()

    def internal_error(self) -> None:
        self._errors.inc()

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return text_of(self.registry)
