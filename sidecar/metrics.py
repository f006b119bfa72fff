"""What the agent counted, as Prometheus families; imported only when the admin side is on."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from registry.runtime.metrics import registry_for, text_of
from sidecar.agent import Agent

COUNTERS = {
    "register": ("sidecar_registrations", "Registrations sent, by what came of them."),
    "heartbeat": ("sidecar_heartbeats", "Renewals sent, by what came of them."),
    "state": ("sidecar_state_reports", "States reported, by what came of them."),
    "deregister": ("sidecar_deregistrations", "Deregistrations sent, by what came of them."),
    "probe": ("sidecar_probes", "Probes of services, by their verdict."),
}

CONDITIONS = ("unregistered", "waiting", "serving", "unhealthy", "draining", "maintenance")


class Metrics(Collector):
    """Reads the agent when scraped; *agent* gives None until it has started."""

    def __init__(self, agent: Callable[[], Agent | None]) -> None:
        self._agent = agent
        self._registry = registry_for("sidecar")
        self._registry.register(self)

    async def text(self) -> bytes:
        """Prometheus' text format."""
        return text_of(self._registry)

    def collect(self) -> Iterator[Metric]:
        agent = self._agent()
        if agent is None:
            return
        for operation, (name, text) in COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=["status"])
            for (counted, status), value in sorted(agent.counts.items()):
                if counted == operation:
                    family.add_metric([status], value)
            yield family
        yield from _gauges(agent)
        bugs = CounterMetricFamily("sidecar_unforeseen_errors", "Exceptions that nobody foresaw.")
        bugs.add_metric([], agent.counts["bug", "caught"])
        yield bugs


def _gauges(agent: Agent) -> Iterator[Metric]:
    conditions = Counter(kept.condition for kept in agent.kept)
    instances = GaugeMetricFamily(
        "sidecar_instances", "Services of this sidecar, by their condition.", labels=["state"]
    )
    for condition in CONDITIONS:
        instances.add_metric([condition], conditions[condition])
    yield instances
    yield GaugeMetricFamily(
        "sidecar_registrar_available",
        "1 when a registrar answered the last call, 0 when none did.",
        value=0 if agent.registrar_is_away else 1,
    )
    yield GaugeMetricFamily(
        "sidecar_oldest_renewal_age_seconds",
        "Seconds since the renewal of the instance that has waited longest; 0 without any.",
        value=agent.oldest_renewal_age(),
    )
