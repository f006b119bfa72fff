"""What the gateway counts: plain integers while it works, Prometheus families when scraped."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from resolver_gateway.exchange import Exchange

BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Seconds; both sides of what a hop costs, of what people notice, and of the time-outs."""

SUMMED_GAUGES: Final = frozenset(
    {
        "gateway_connections",
        "gateway_upstream_connections",
        "gateway_idle_upstream_connections",
        "gateway_queued_requests",
    }
)
"""Gauges that add up over workers; of the others the greatest tells more."""

_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Counts:
    """The counters of one worker."""

    def __init__(self) -> None:
        self.answered = [0] * len(_CLASSES)
        """Requests whose answer is an upstream's, by class of status."""
        self.unanswered: Counter[tuple[str, str]] = Counter()
        """The others, by class of status and by cause."""
        self.resolutions: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.refused_connections: Counter[str] = Counter()
        self.retries = 0
        self.retries_denied = 0
        self.ejections = 0
        self.probes = 0
        self.breaker_opens = 0
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, exchange: Exchange) -> None:
        """Count a request that is over."""
        if exchange.cause:
            self.unanswered[_CLASSES[exchange.status // 100], exchange.cause] += 1
        else:
            self.answered[exchange.status // 100] += 1
        if exchange.resolution:
            self.resolutions[exchange.resolution] += 1
        self.buckets[bisect_left(BUCKETS, exchange.seconds)] += 1
        self.seconds += exchange.seconds

    @property
    def requests(self) -> dict[tuple[str, str], int]:
        """Every request, by class of status and by cause."""
        answered = {(name, ""): n for name, n in zip(_CLASSES, self.answered, strict=True) if n}
        return answered | dict(self.unanswered)


class GatewayCollector(Collector):
    """The families of `/metrics`, made from the counts and from what *gauges* says now."""

    def __init__(
        self, counts: Counts, dns: Counter[str], gauges: Callable[[], dict[str, float]]
    ) -> None:
        self._counts = counts
        self._dns = dns
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        requests = CounterMetricFamily(
            "gateway_requests_total",
            "Requests by class of their status and by what the gateway had to say, if anything.",
            labels=["status", "cause"],
        )
        for (status, cause), value in counts.requests.items():
            requests.add_metric([status, cause], value)
        yield requests
        yield self._histogram()
        for name, help, label, counter in (
            (
                "gateway_resolutions_total",
                "Requests by how their service was resolved.",
                "result",
                counts.resolutions,
            ),
            (
                "gateway_upstream_failures_total",
                "Attempts that failed, by how.",
                "reason",
                counts.failures,
            ),
            (
                "gateway_connections_refused_total",
                "Client connections that were turned away, by the limit that they met.",
                "limit",
                counts.refused_connections,
            ),
            (
                "gateway_dns_queries_total",
                "Queries to DNS servers, by what became of them.",
                "outcome",
                self._dns,
            ),
        ):
            family = CounterMetricFamily(name, help, labels=[label])
            for word, number in list(counter.items()):
                family.add_metric([word], number)
            yield family
        for name, help, total in (
            ("gateway_retries_total", "Attempts at another upstream.", counts.retries),
            (
                "gateway_retries_denied_total",
                "Attempts that the retry budget did not allow.",
                counts.retries_denied,
            ),
            ("gateway_ejections_total", "Instances left out for failing.", counts.ejections),
            ("gateway_probes_total", "Requests that decided about an instance.", counts.probes),
            ("gateway_breaker_opens_total", "Openings of a breaker.", counts.breaker_opens),
        ):
            yield CounterMetricFamily(name, help, value=total)
        for name, reading in self._gauges().items():
            yield GaugeMetricFamily(name, GAUGES[name], value=reading)

    def _histogram(self) -> Metric:
        cumulative, total = [], 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._counts.buckets, strict=True):
            total += count
            cumulative.append((bound, float(total)))
        family = HistogramMetricFamily(
            "gateway_request_duration_seconds",
            "From the last octet of a request's head to the last of its answer handed over.",
        )
        family.add_metric([], cumulative, self._counts.seconds)
        return family


GAUGES: Final = {
    "gateway_connections": "Client connections that are open.",
    "gateway_upstream_connections": "Upstream connections that are open.",
    "gateway_idle_upstream_connections": "Of them those that wait for a request.",
    "gateway_queued_requests": "Requests that wait for their turn.",
    "gateway_services": "Names whose instances are known.",
    "gateway_ejected_instances": "Instances that are left out now.",
    "gateway_open_breakers": "Services whose breaker is open now.",
    "gateway_stale_seconds": "Age past its TTL of the oldest answer that is still used; 0: none.",
    "gateway_events_following": "Whether the registrar's stream of changes is followed.",
    "gateway_certificate_expiry_seconds": "When our certificate ends, since 1970; 0: none.",
}
"""Every gauge with its help; `service.py` gives the values."""
