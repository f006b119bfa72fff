"""Metrics of a process, and of a part that has several: kept apart, summed when scraped."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Family = dict[str, Any]
"""One exported metric: name, type, help, samples as [name, labels, value]."""


@functools.cache
def callboard_version() -> str:
    """The version installed; `0` in a tree that was never installed."""
    try:
        return version("callboard")
    except PackageNotFoundError:
        return "0"


def registry_for(part: str) -> CollectorRegistry:
    """A fresh registry with what every part exports: build and process."""
    registry = CollectorRegistry()
    build = Gauge(
        "callboard_build_info",
        "Version of this part; always 1.",
        ["version", "part"],
        registry=registry,
    )
    build.labels(callboard_version(), part).set(1)
    ProcessCollector(registry=registry)
    return registry


def text_of(registry: CollectorRegistry) -> bytes:
    """The registry in Prometheus' text format."""
    return generate_latest(registry)


def export(registry: CollectorRegistry) -> list[Family]:
    """Everything in *registry* as JSON-able families, for the supervisor.

    Creation times are left out: they cannot be summed and nobody reads them.
    """
    return [
        {
            "name": metric.name,
            "type": metric.type,
            "help": metric.documentation,
            "samples": [
                [s.name, dict(s.labels), s.value]
                for s in metric.samples
                if not s.name.endswith("_created")
            ],
        }
        for metric in registry.collect()
    ]


def merged(exports: Iterable[list[Family]], summed_gauges: frozenset[str]) -> list[Family]:
    """The families of several workers as those of one part.

    Counters and histograms are summed, and of the gauges those in *summed_gauges* and the
    process's memory; of other gauges the greatest counts.
    """
    families: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families_of_one in exports:
        for family in families_of_one:
            name = family["name"]
            families.setdefault(name, family)
            add = (
                family["type"] != "gauge" or name in summed_gauges or name.endswith("memory_bytes")
            )
            slot = values.setdefault(name, {})
            for sample_name, labels, value in family["samples"]:
                key = sample_name, tuple(sorted(labels.items()))
                slot[key] = _combined(slot.get(key), value, add)
    return [
        {**families[name], "samples": [[s, dict(labels), v] for (s, labels), v in slot.items()]}
        for name, slot in values.items()
    ]


def _combined(old: float | None, new: float, add: bool) -> float:
    if old is None:
        return new
    return old + new if add else max(old, new)


def only_counts(families: list[Family]) -> list[Family]:
    """The counters and histograms in *families*: what outlives the worker that counted."""
    return [f for f in families if f["type"] in ("counter", "histogram", "summary")]


class Exported(Collector):
    """Families that came from elsewhere, as a collector."""

    def __init__(self) -> None:
        self.families: list[Family] = []

    def collect(self) -> Iterator[Metric]:
        for family in self.families:
            metric = Metric(family["name"], family["help"], family["type"])
            for name, labels, value in family["samples"]:
                metric.add_sample(name, _text_labels(labels), value)
            yield metric


def _text_labels(labels: Mapping[str, Any]) -> dict[str, str]:
    return {str(k): str(v) for k, v in labels.items()}
