"""The metrics of several workers, as those of one part."""

import json

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from registry.runtime import metrics
from registry.runtime.metrics import Exported, export, merged, only_counts

ALL = frozenset({"connections"})


def a_worker(queries: int, connections: int, age: float, seconds: list[float]) -> CollectorRegistry:
    """What a worker that did so much has in its registry."""
    registry = CollectorRegistry()
    counter = Counter("queries", "Queries.", ["type"], registry=registry)
    counter.labels("A").inc(queries)
    Gauge("connections", "Open.", registry=registry).set(connections)
    Gauge("age_seconds", "Age.", registry=registry).set(age)
    histogram = Histogram("took_seconds", "Took.", buckets=[0.1, 1.0], registry=registry)
    for value in seconds:
        histogram.observe(value)
    return registry


def exported(registry: CollectorRegistry) -> list[metrics.Family]:
    """As it arrives at the supervisor: through JSON."""
    families: list[metrics.Family] = json.loads(json.dumps(export(registry)))
    return families


def text_of(families: list[metrics.Family]) -> str:
    collected = Exported()
    collected.families = families
    registry = CollectorRegistry()
    registry.register(collected)
    return metrics.text_of(registry).decode()


def test_counts_are_summed_and_of_gauges_the_greatest_counts_unless_they_are_summed_too() -> None:
    workers = [
        exported(a_worker(3, 10, 0.5, [0.05, 5.0])),
        exported(a_worker(4, 20, 7.5, [0.5])),
    ]

    text = text_of(merged(workers, ALL))

    assert 'queries_total{type="A"} 7.0' in text
    assert "connections 30.0" in text
    assert "age_seconds 7.5" in text
    assert 'took_seconds_bucket{le="0.1"} 1.0' in text
    assert 'took_seconds_bucket{le="1.0"} 2.0' in text
    assert 'took_seconds_bucket{le="+Inf"} 3.0' in text
    assert "took_seconds_count 3.0" in text
    assert "took_seconds_sum 5.55" in text
    assert "_created" not in text


def test_series_that_only_one_worker_has_are_kept() -> None:
    other = CollectorRegistry()
    counter = Counter("queries", "Queries.", ["type"], registry=other)
    counter.labels("SRV").inc()
    Counter("odd", "Odd.", registry=other).inc()

    text = text_of(merged([exported(a_worker(3, 1, 1, [])), exported(other)], ALL))

    assert 'queries_total{type="A"} 3.0' in text
    assert 'queries_total{type="SRV"} 1.0' in text
    assert "odd_total 1.0" in text


def test_of_the_dead_only_counts_remain() -> None:
    kept = only_counts(exported(a_worker(3, 10, 0.5, [0.05])))

    assert {f["name"] for f in kept} == {"queries", "took_seconds"}


def test_merging_leaves_what_it_merged_unchanged() -> None:
    first = exported(a_worker(3, 10, 0.5, [0.05]))
    before = json.dumps(first)

    merged([first, first], ALL)

    assert json.dumps(first) == before
    assert merged([], ALL) == []


def test_every_part_exports_its_build_and_its_process() -> None:
    text = metrics.text_of(metrics.registry_for("dnsd")).decode()

    version = metrics.callboard_version()
    assert f'callboard_build_info{{part="dnsd",version="{version}"}} 1.0' in text
    assert "process_resident_memory_bytes" in text
