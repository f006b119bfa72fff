"""What is counted, as plain integers while packets fly, and as metrics when scraped."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dnsd.cookies import Cookies
from dnsd.journal import Journal
from dnsd.memo import Memo
from dnsd.responder import Reply

TYPES = {
    0: "none",
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    64: "SVCB",
    65: "HTTPS",
    251: "IXFR",
    252: "AXFR",
    255: "ANY",
}
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    9: "NOTAUTH",
    16: "BADVERS",
    23: "BADCOOKIE",
}

SUMMED_GAUGES = frozenset(
    "dnsd_memo_entries dnsd_memo_bytes dnsd_tcp_connections dnsd_transfers_active"
    " dnsd_journal_bytes".split()
)
"""Gauges of which a supervisor shows the sum over its workers, not the greatest."""


@dataclass(slots=True)
class Counts:
    """Counters of one worker, raised by its shells."""

    replies: dict[tuple[int, int, bool, bool], int] = field(default_factory=dict)
    """By type, code, whether truncated, whether over TCP."""
    dropped: Counter[str] = field(default_factory=Counter)
    limited: Counter[str] = field(default_factory=Counter)
    """Answers to strangers that were not sent as they were made, by what became of them."""
    errors: int = 0
    problems: int = 0
    saves: int = 0
    save_failures: int = 0
    tcp_accepted: int = 0
    tcp_open: int = 0
    tcp_closed: Counter[str] = field(default_factory=Counter)
    tsig_failures: Counter[str] = field(default_factory=Counter)
    transfers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind and result."""
    transfers_active: int = 0
    transfer_octets: int = 0
    notifies: Counter[str] = field(default_factory=Counter)

    def note(self, reply: Reply, *, tcp: bool) -> None:
        """Count a reply that was made (one from memory is counted there)."""
        if reply.tsig:
            self.tsig_failures[reply.tsig] += 1
        if reply.packet is None and reply.transfer is None:
            self.dropped[reply.dropped] += 1
        else:
            key = reply.qtype, reply.rcode, reply.truncated, tcp
            self.replies[key] = self.replies.get(key, 0) + 1
        if reply.error is not None:
            self.errors += 1

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] += count


class Feed(NamedTuple):
    """How the catalog is doing, read when scraped."""

    services: int
    instances: int
    revision: int
    age: float
    current: bool
    applied: int
    snapshots: int
    losses: int
    malformed: int


class DnsdCollector(Collector):
    """The metrics of one worker."""

    def __init__(
        self,
        counts: Counts,
        memo: Memo,
        feed: Callable[[], Feed],
        journal: Journal,
        cookies: Cookies,
    ) -> None:
        self._journal = journal
        self._cookies = cookies
        self._counts = counts
        self._memo = memo
        self._feed = feed

    def collect(self) -> Iterator[Metric]:
        yield from self._of_queries()
        yield from self._of_tcp()
        yield from self._of_transfers()
        yield from self._of_feed(self._feed())

    def _of_queries(self) -> Iterator[Metric]:
        remembered = self._memo.hits()
        replies = Counter(self._counts.replies)
        for (qtype, rcode, cut), hits in remembered.items():
            replies[qtype, rcode, cut, False] += hits
        queries: Counter[tuple[str, str, str]] = Counter()
        truncated: Counter[str] = Counter()
        for (qtype, rcode, cut, tcp), count in replies.items():
            transport = "tcp" if tcp else "udp"
            labels = TYPES.get(qtype, "other"), RCODES.get(rcode, "other"), transport
            queries[labels] += count
            truncated[transport] += count if cut else 0
        yield _labelled(
            "dnsd_queries_total",
            "Queries answered.",
            {k: v for k, v in queries.items() if v},
            ("type", "rcode", "transport"),
        )
        yield _labelled(
            "dnsd_truncated_total",
            "Answers sent with TC.",
            {(k,): v for k, v in truncated.items()},
            ("transport",),
        )
        yield _labelled(
            "dnsd_dropped_total",
            "Datagrams not answered, or answers not sent.",
            {(k,): v for k, v in self._counts.dropped.items()},
            ("reason",),
        )
        yield _labelled(
            "dnsd_limited_total",
            "Answers to strangers that did not leave as they were made.",
            {(k,): v for k, v in self._counts.limited.items()},
            ("result",),
        )
        yield _labelled(
            "dnsd_cookies_total",
            "Cookies that came, by what they were worth.",
            {(k,): v for k, v in self._cookies.counts.items()},
            ("kind",),
        )
        yield _counter("dnsd_memo_hits_total", "Answers from memory.", remembered.total())
        yield _gauge("dnsd_memo_entries", "Finished answers in memory.", len(self._memo))
        yield _gauge("dnsd_memo_bytes", "Octets that they take.", self._memo.size)
        yield _counter(
            "dnsd_errors_total",
            "Queries answered SERVFAIL for a fault within.",
            self._counts.errors,
        )
        yield _counter(
            "dnsd_compile_problems_total",
            "Answers that could not be compiled, or not whole.",
            self._counts.problems,
        )

    def _of_tcp(self) -> Iterator[Metric]:
        yield _gauge("dnsd_tcp_connections", "TCP connections now.", self._counts.tcp_open)
        yield _counter(
            "dnsd_tcp_accepted_total", "TCP connections accepted.", self._counts.tcp_accepted
        )
        yield _labelled(
            "dnsd_tcp_closed_total",
            "TCP connections that we ended, by reason.",
            {(k,): v for k, v in self._counts.tcp_closed.items()},
            ("reason",),
        )

    def _of_transfers(self) -> Iterator[Metric]:
        counts = self._counts
        yield _labelled(
            "dnsd_transfers_total",
            "Zone transfers over TCP that were granted, by what was sent and how it ended.",
            {(k, r): v for (k, r), v in counts.transfers.items()},
            ("kind", "result"),
        )
        yield _gauge("dnsd_transfers_active", "Zone transfers under way.", counts.transfers_active)
        yield _counter("dnsd_transfer_bytes_total", "Octets of transfers.", counts.transfer_octets)
        yield _gauge("dnsd_journal_changes", "Changes that IXFR can go back.", len(self._journal))
        yield _gauge("dnsd_journal_bytes", "Octets that they take, roughly.", self._journal.size)
        yield _labelled(
            "dnsd_notifies_total",
            "Changes that a secondary was told of, by how it took them.",
            {(k,): v for k, v in counts.notifies.items()},
            ("result",),
        )
        yield _labelled(
            "dnsd_tsig_failures_total",
            "Queries whose signature was not good, by what was wrong.",
            {(k,): v for k, v in counts.tsig_failures.items()},
            ("error",),
        )

    def _of_feed(self, feed: Feed) -> Iterator[Metric]:
        yield _gauge("dnsd_catalog_services", "Services known.", feed.services)
        yield _gauge("dnsd_catalog_instances", "Instances known, in any state.", feed.instances)
        yield _gauge("dnsd_catalog_revision", "Revision of the catalog.", feed.revision)
        yield _gauge(
            "dnsd_feed_age_seconds", "Seconds since the catalog was known to be current.", feed.age
        )
        yield _gauge("dnsd_feed_current", "1 while the feed is current.", int(feed.current))
        yield _counter("dnsd_feed_changes_total", "Changes folded in.", feed.applied)
        yield _counter(
            "dnsd_feed_snapshots_total", "Snapshots taken from the store.", feed.snapshots
        )
        yield _counter("dnsd_feed_losses_total", "Times the feed was lost.", feed.losses)
        yield _counter(
            "dnsd_malformed_entries_total", "Entries of the store left out.", feed.malformed
        )
        yield _counter(
            "dnsd_snapshot_saves_total", "Snapshots written to disk.", self._counts.saves
        )
        yield _counter(
            "dnsd_snapshot_save_failures_total",
            "Snapshots that could not be written.",
            self._counts.save_failures,
        )


def _counter(name: str, help: str, value: float) -> Metric:
    family = CounterMetricFamily(name, help)
    family.add_metric((), value)
    return family


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _labelled(
    name: str, help: str, values: dict[tuple[str, ...], int], labels: tuple[str, ...]
) -> Metric:
    family = CounterMetricFamily(name, help, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
