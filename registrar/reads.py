"""What GET shows, kept ready: membership from the catalog, lease times from the store.

Membership never touches Redis.  Lease times cost about one call a service a
second, are noted when this registrar renews them itself, and are the last known
ones while the store is away.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from registrar import documents
from registrar.documents import LeaseTime, RenderedService
from registrar.gate import Gate
from registrar.selection import Rng
from registrar.view import View
from registry import names
from registry.catalog import Service
from registry.errors import StoreUnavailable
from registry.leases import LeaseStore
from registry.model import Instance

LEASE_TIMES_SECONDS = 1.0
"""For which the lease times of a service are not asked again.  They may be 5 s old."""

WAIT_SECONDS = 0.25
"""That a read waits for lease times before it shows the last known."""

MAX_ENTRIES = 4096
"""Services whose text is kept; the longest unused leaves first."""

KEYS_A_CALL = 2000
"""Lease times in one call, when all services are listed: under 1 ms of the store's time."""

SLICE = 50
"""Services rendered between two turns of the loop, some 2 ms."""


@dataclass(slots=True)
class _Entry:
    """One service: lease times by folded id, and its text with what that was made from."""

    asked_at: float = float("-inf")
    leases: dict[str, LeaseTime] = field(default_factory=dict)
    stamp: tuple[int, int] = (0, 0)
    rendered_at: float = float("-inf")
    rendered: RenderedService | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Reads:
    """The documents of GET /services and GET /services/{service}."""

    def __init__(self, store: LeaseStore, gate: Gate, view: View, rng: Rng) -> None:
        self._store = store
        self._gate = gate
        self._view = view
        self._rng = rng
        self._entries: dict[str, _Entry] = {}
        self._names: tuple[object, int, bytes] = (None, -1, b"[]")

    def __repr__(self) -> str:
        return f"<Reads {len(self._entries)} services>"

    def renewed(self, instance: Instance, ttl: float) -> None:
        """This registrar has just had *instance* renewed: its time is known without asking."""
        entry = self._entries.get(instance.service)
        if entry is not None and instance.registration.lease_ttl:
            entry.leases[instance.id] = LeaseTime(time.time(), ttl)
            entry.rendered = None

    def names(self) -> bytes:
        """The sorted list of listed services, as JSON; made once a revision."""
        catalog = self._view.catalog
        if self._names[0] is not catalog or self._names[1] != catalog.revision:
            listed = sorted(s.name for _, s in catalog.services() if s.instances)
            self._names = (catalog, catalog.revision, json.dumps(listed).encode())
        return self._names[2]

    async def service(self, name: str) -> str | None:
        """The document of one service; None when it has no instances."""
        instances = self._view.catalog.instances(name)
        if not instances:
            return None
        entry = self._entry(names.fold(name))
        if _is_outdated(entry, time.monotonic()):
            async with entry.lock:
                if _is_outdated(entry, time.monotonic()):
                    await self._ask([(entry, list(instances.values()))])
        service = self._view.catalog.service(name)
        if service is None or not service.instances:
            return None  # it left while the store was asked
        rendered = self._rendered(entry, service, time.monotonic())
        return rendered.text(self._rng, stale=not self._view.current)

    def _rendered(self, entry: _Entry, service: Service, now: float) -> RenderedService:
        stamp = stamp_of(service.instances)
        rendered = entry.rendered
        if rendered is None or entry.stamp != stamp or now - entry.rendered_at >= 1.0:
            for gone in entry.leases.keys() - service.instances.keys():
                del entry.leases[gone]
            instances = list(service.instances.values())
            rendered = documents.render_service(service.name, instances, entry.leases, time.time())
            entry.rendered, entry.stamp, entry.rendered_at = rendered, stamp, now
        return rendered

    async def listing(self, filters: Mapping[str, Sequence[str]]) -> list[str]:
        """The documents of all services with instances that match, sorted by name.

        A document shows the matching instances only.
        """
        wanted = [(service, i, self._entry(i[0].service)) for service, i in self.matching(filters)]
        now = time.monotonic()
        await self._ask([(entry, i) for _, i, entry in wanted if _is_outdated(entry, now)])
        shown: list[str] = []
        for count, (service, instances, entry) in enumerate(wanted, start=1):
            rendered = documents.render_service(service.name, instances, entry.leases, time.time())
            shown.append(rendered.text(self._rng, stale=not self._view.current))
            if count % SLICE == 0:
                await asyncio.sleep(0)
        return shown

    def matching(
        self, filters: Mapping[str, Sequence[str]]
    ) -> list[tuple[Service, list[Instance]]]:
        """Services with the instances that match *filters*, sorted by name; none without."""
        found = [
            (service, instances)
            for _, service in self._view.catalog.services()
            if (
                instances := [
                    i for i in service.instances.values() if documents.matches(i, filters)
                ]
            )
        ]
        return sorted(found, key=lambda pair: pair[0].name)

    def _entry(self, key: str) -> _Entry:
        """The entry of a service, now the most recently used."""
        entry = self._entries.pop(key, None) or _Entry()
        self._entries[key] = entry
        if len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        return entry

    async def _ask(self, wanted: Sequence[tuple[_Entry, Sequence[Instance]]]) -> None:
        """Fetch the lease times of *wanted*; the last known ones stay when that fails."""
        now = time.monotonic()
        for entry, _ in wanted:
            entry.asked_at = now  # also when it fails: a store that is away is not asked more often
        pairs = [
            (entry, instance)
            for entry, instances in wanted
            for instance in instances
            if instance.registration.lease_ttl
        ]
        try:
            for start in range(0, len(pairs), KEYS_A_CALL):
                await self._fetch(pairs[start : start + KEYS_A_CALL])
        except (StoreUnavailable, TimeoutError):
            return

    async def _fetch(self, pairs: Sequence[tuple[_Entry, Instance]]) -> None:
        keys = [instance.registration.key for _, instance in pairs]
        async with asyncio.timeout(WAIT_SECONDS):
            times = await self._gate(self._store.lease_times(keys))
        asked_at = time.time()
        for (entry, instance), remaining in zip(pairs, times, strict=True):
            entry.leases[instance.id] = LeaseTime(asked_at, remaining)


def _is_outdated(entry: _Entry, now: float) -> bool:
    """Whether lease times must be asked for.

    Not for a newcomer alone: its lease began when it was registered, which is known.
    """
    return now - entry.asked_at >= LEASE_TIMES_SECONDS


def stamp_of(instances: Mapping[str, Instance]) -> tuple[int, int]:
    """What changes whenever *instances* (at least one) do: the highest revision, and the number.

    Each change gives its instance the highest revision of all; after it only departures can
    leave that highest one as it is, and they are counted.
    """
    return max(i.revision for i in instances.values()), len(instances)
